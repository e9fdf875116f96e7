"""Imports run one way: cli -> reviewing -> pipeline -> stages -> engine, and stages -> method. What computes is free of
Ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unlearn_ray

SOURCE = Path(unlearn_ray.__path__[0])
ALL = {"errors", "config", "method", "storage", "engine", "stages", "pipeline", "reviewing", "library"}

# What each part may import of the others; `storage` is engine/storage.py, filesystems.py and copies.py, free of Ray,
# and `library` is every other module beside cli.py, reviewing.py and pipeline.py.
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "method": {"errors"},
    "storage": {"errors"},
    "engine": {"errors", "config", "storage"},
    "library": {"errors", "config", "method", "storage"},
    "stages": {"errors", "config", "method", "storage", "engine", "library"},
    "pipeline": {"errors", "config", "method", "storage", "engine", "library", "stages"},
    "reviewing": ALL - {"reviewing"},
    "cli": ALL | {"terminal", "cli_cluster", "cli_common"},
    "cli_cluster": ALL | {"cli_common"},
    "cli_common": ALL | {"terminal"},
    "terminal": {"errors"},
    "__main__": {"cli"},
    "__init__": ALL,
}
FREE_OF_RAY = {"errors", "config", "method", "storage", "library", "cli", "cli_cluster", "cli_common", "terminal"}

FILES = sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    if module.startswith(("engine.storage", "engine.filesystems", "engine.copies")):
        return "storage"
    name = module.split(".")[0]
    return name if name in ALLOWED else "library"


def imports(tree: ast.AST, *, types_too: bool) -> set[str]:
    """The modules imported anywhere in the file, with or without those that only the type checker sees."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types_too:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            found |= imports(node, types_too=types_too)
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(SOURCE)) for file in FILES])
def test_imports_run_one_way(file):
    part = part_of(".".join(file.relative_to(SOURCE).with_suffix("").parts))
    found = imports(ast.parse(file.read_text()), types_too=part != "terminal")
    own = {part_of(name.removeprefix("unlearn_ray.")) for name in found if name.startswith("unlearn_ray.")}
    assert own <= ALLOWED[part] | {part}
    if part in FREE_OF_RAY:
        assert not {name for name in found if name.split(".")[0] == "ray"}


def test_help_imports_nothing_heavy():
    script = (
        "import sys, unlearn_ray\n"
        "from unlearn_ray.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "main(['anchors', 'check', '--help'], standalone_mode=False)\n"
        "main(['review', 'serve', '--help'], standalone_mode=False)\n"
        "print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {
        "ray",
        "torch",
        "transformers",
        "numpy",
        "pyarrow",
        "pandas",
        "pydantic",
        "yaml",
        "ebooklib",
        "wordfreq",
    }
    assert "click" in loaded and not loaded & heavy
