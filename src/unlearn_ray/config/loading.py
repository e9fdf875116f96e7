"""Reading a run from YAML, with `a.b=value` overrides and one clear line for every mistake."""

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from unlearn_ray.config.sections import TAKEN_NAMES, RunConfig
from unlearn_ray.errors import InputError

LONGEST_NAME = 100
PROBLEMS_TOLD = 5


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run from YAML and apply `a.b=value` overrides, whose values are YAML too (`label.alpha=[2.5,5]`).

    `forget_sets` given as a glob or as a .jsonl file becomes the list here. Relative paths stay as they are: they are
    relative to the current directory. Raises InputError that names the file and the key.
    """
    try:
        data = _yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the configuration: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of keys such as root, baseline and forget_sets")
    for override in overrides:
        _apply(override, data)
    if isinstance(data.get("forget_sets"), str):
        data["forget_sets"] = _listed_sets(data["forget_sets"])
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = [_problem(one) for one in error.errors()]
        more = [f"and {len(problems) - PROBLEMS_TOLD} more"] if len(problems) > PROBLEMS_TOLD else []
        raise InputError(f"{path}: " + "; ".join([*problems[:PROBLEMS_TOLD], *more])) from error


class _Yaml12(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, which reads 3e-6 as a string; in YAML 1.2 it is a number."""


_Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Yaml12)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error


def _apply(override: str, data: dict) -> None:
    key, equals, value = override.partition("=")
    *sections, last = key.split(".")
    if not equals or not all([*sections, last]):
        raise InputError(f"{override}: expected KEY=VALUE, such as label.block_tokens=256")
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
        if not isinstance(data, dict):
            raise InputError(f"{override}: {section} has no keys of its own; replace it whole with {section}=...")
    data[last] = _yaml(value, override)


def _listed_sets(pattern: str) -> list[dict]:
    if pattern.endswith(".jsonl") and not glob.has_magic(pattern):
        return _sets_of_file(pattern)
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise InputError(f"forget_sets: no local file matches {pattern}; sets elsewhere are given as "
                         "[{name: NAME, documents: URI}], or as such lines in a local .jsonl file")  # fmt: skip
    folder = os.path.dirname(re.split(r"[*?[]", pattern, maxsplit=1)[0])
    names = _names([os.path.relpath(path, folder or ".") for path in paths])
    return [{"name": name, "documents": glob.escape(path)} for name, path in zip(names, paths, strict=True)]


def _sets_of_file(path: str) -> list[dict]:
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"forget_sets: cannot read {path}: {error}") from error
    sets = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                sets.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"forget_sets: {path} line {number} is not JSON: {error}") from error
    return sets


def _names(paths: Sequence[str]) -> list[str]:
    """Names of sets from paths below the folder that the glob names: `sf/dune.txt` is sf-dune, whatever else is there.

    What a folder of the root cannot be called is left out; where two are then alike, or nothing is left, the name ends
    in a hash of the path.
    """
    plain = [_plain_name(path) for path in paths]
    alike = Counter(name.casefold() for name in plain)
    return [
        name if name and alike[name.casefold()] == 1 and name.casefold() not in TAKEN_NAMES else _hashed(name, path)
        for name, path in zip(plain, paths, strict=True)
    ]


def _plain_name(path: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.splitext(path)[0].replace(os.sep, "-")).strip("-._")
    return name if len(name) <= LONGEST_NAME else _hashed(name, path)


def _hashed(name: str, path: str) -> str:
    ending = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9] or 'set'}-{ending}"


def _problem(error: Any) -> str:
    """One mistake as `a.b: what is wrong (got VALUE)`."""
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "unknown_key":
            return f"{key}.{error['ctx']['key']}: {error['msg']}".removeprefix(".")
        case "missing":
            return f"{key}: missing"
        case "model_type":
            message = "should be a mapping of keys"
        case "tuple_type":
            message = "should be a list"
        case _:
            message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{key}: {message}{given}".removeprefix(": ")
