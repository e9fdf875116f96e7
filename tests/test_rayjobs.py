"""The entrypoints of rayjobs/: thin, and each documented by the command that submits it."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "rayjobs"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_an_entrypoint_only_calls_a_command_and_says_how_it_is_submitted(file):
    text = file.read_text()
    assert len(text.splitlines()) < 60
    assert f"-- python rayjobs/{file.name} " in text.split('"""')[1]
    done = subprocess.run([sys.executable, str(file), "--no-such-option"], capture_output=True, text=True)
    assert done.returncode == 2 and "--no-such-option" in done.stderr
