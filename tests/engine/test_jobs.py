"""What needs no cluster; tests/test_ray_cluster.py submits to one."""

import re
import socket

import pytest
from click.testing import CliRunner

from unlearn_ray import load_config
from unlearn_ray.cli import main
from unlearn_ray.engine.jobs import connect, run_name
from unlearn_ray.errors import InputError


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_run_is_named_by_what_it_computes_and_where_to(write_run, tmp_path):
    path = write_run(tmp_path)

    def name(*overrides: str, command: str = "run") -> str:
        return run_name(load_config(path, overrides), [command, str(path), *overrides], str(path))

    assert re.fullmatch(r"unlearn-run-[0-9a-f]{8}", name())
    assert name() == name("resources.workers=4")
    assert len({name(), name("seed=1"), name("root=elsewhere"), name(command="doctor")}) == 4


def test_an_address_where_nothing_answers_is_an_error_at_once():
    with pytest.raises(
        InputError, match=r"--address http://127\.0\.0\.1:\d+: no dashboard of a Ray cluster answers there"
    ):
        connect(f"http://127.0.0.1:{closed_port()}")


@pytest.mark.parametrize("command", ["submit", "doctor"])
def test_a_configuration_that_the_job_would_not_get_is_refused(command, write_run, tmp_path, monkeypatch):
    path = write_run(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = CliRunner().invoke(main, [command, str(path), "--address", "http://127.0.0.1:1"])
    assert done.exit_code == 2
    assert "lies outside the current folder" in done.output


def test_a_submission_without_an_address_says_what_one_looks_like(write_run, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    done = CliRunner().invoke(main, ["submit", str(write_run(tmp_path))])
    assert done.exit_code == 2 and "http://127.0.0.1:8265" in done.output
