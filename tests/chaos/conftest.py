"""A run as a program of its own, to kill its parts."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = """
import sys
from unlearn_ray import load_config, pipeline
until, root, config, *overrides = sys.argv[1:]
for outcome in pipeline.run(load_config(config, ["root=" + root, *overrides]), until=until):
    if outcome.error:
        raise outcome.error
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_run) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), stories=32)


@pytest.fixture
def start(config, ray_folder, kill_ours) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(until, root, *overrides, address=None): a run as far as that step, as a program of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(until: str, root: Path, *overrides: str, address: str | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"RAY_TMPDIR": ray_folder} | ({"RAY_ADDRESS": address} if address else {})
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, until, str(root), str(config), *overrides],
                env=environment,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for program in started:
        program.kill()
        program.communicate()
        kill_ours(program.pid, ray_folder)


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[str]], None]:
    def wait(program: subprocess.Popen[str]) -> None:
        output, _ = program.communicate(timeout=400)
        assert program.returncode == 0, output

    return wait
