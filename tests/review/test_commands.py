import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from unlearn_ray.cli import main
from unlearn_ray.errors import InputError
from unlearn_ray.review.serve import PROGRAM, label_studio, program
from unlearn_ray.review.server import LONGEST_TITLE, title_of
from unlearn_ray.review.store import Store
from unlearn_ray.review.tasks import PROJECTS


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["review", *arguments])


@pytest.fixture
def exported(run, tmp_path, monkeypatch) -> Path:
    """The folder of an export; it is the current one."""
    monkeypatch.chdir(tmp_path)
    result = call("export", str(run.path), "--to", "out", "review.gold=0", "review.label_probability=0.05")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["story", "anchors", "9", "out/story/anchors/tasks.json"],
        ["story", "labels", "3", "out/story/labels/tasks.json"],
        ["story", "judge", "16", "out/story/judge/tasks.json"],
    ]
    return tmp_path / "out/story"


def test_a_round_trip_of_files_needs_no_server_and_neither_the_sdk_nor_crowd_kit(run, exported, monkeypatch):
    for name in ("label_studio_sdk", "crowdkit"):
        monkeypatch.setitem(sys.modules, name, None)
    assert (exported / "judge/interface.xml").read_text().startswith("<View")
    tasks = json.loads((exported / "judge/tasks.json").read_text())
    for task in tasks[:4]:
        task["answers"] = [{"by": name, "at": "2026-11-22", "grade": "1"} for name in ("ann", "bob")]
    tasks[4]["answers"] = [
        {"by": name, "at": "2026-11-22", "grade": grade} for name, grade in zip("ab", "13", strict=True)
    ]
    (exported / "judge/tasks.json").write_text(json.dumps(tasks))
    result = call("import", str(run.path), "out/story/judge/tasks.json")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["story", "judge", "10", "10", "5/16", "4", "0.00", "4", "4", "1"]
    assert lines[2].startswith("open: judge: completion") and lines[2].endswith("no majority (a: 1, b: 3)")
    assert lines[-1] == f"`unlearn-ray run {run.path}` applies it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.json, line 1: not JSON"),
        ('[{"data": {"key"', "bad.json, line 1: not JSON"),
        ("[]", "bad.json: expected a list of tasks"),
        (b"\xff\xfe", "bad.json: not UTF-8"),
    ],
)
def test_a_file_that_is_no_export_is_one_line_and_exit_code_2(run, exported, content, message):
    Path("bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = call("import", str(run.path), "bad.json")
    assert result.exit_code == 2 and result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import"], "give FILES, or a server as --server"),
        (["import", "absent.json"], "absent.json: no such file"),
        (["import", "--server", "http://127.0.0.1:9"], "set LABEL_STUDIO_API_KEY to an access token"),
        (["export", "--server", "http://127.0.0.1:9", "--to", "x"], "--to and --server: give the one or the other"),
        (["export", "--forget-set", "other"], "--forget-set other: expected one of story"),
        (["export", "--project", "labels", "review.label_probability=1e-9"], "no tasks to export (story labels"),
        (["export", "review.overlap=0"], "review.overlap: "),
        (["serve"], "no label-studio program"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(run, exported, monkeypatch, arguments, message):
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    monkeypatch.setenv(PROGRAM, str(run.root / "nowhere"))
    command, *rest = arguments
    if "http://127.0.0.1:9" in rest and command == "import":
        pytest.importorskip("label_studio_sdk")
    result = call(command, str(run.path), *rest)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_server_that_is_not_there_is_one_line_without_the_token(run, exported, monkeypatch):
    pytest.importorskip("label_studio_sdk")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    result = call("import", str(run.path), "--server", "http://127.0.0.1:9")
    assert result.exit_code == 1 and result.stderr.startswith("error: http://127.0.0.1:9: ")
    assert "0123456789abcdef" not in result.output and result.stderr.count("\n") == 1


def test_long_names_of_forget_sets_are_cut_in_titles_which_name_the_project():
    titles = [title_of("a" * 80, project) for project in PROJECTS]
    assert len(set(titles)) == 3 and all(len(title) == LONGEST_TITLE for title in titles)
    assert title_of("alice", "judge") == "alice: judge audit"


def test_the_mark_by_which_a_run_finds_its_projects_is_its_own_and_stays(tmp_path):
    one, other = (Store(str(tmp_path / root), "story") for root in ("one", "other"))
    assert one.mark() is None
    mark = one.make_mark()
    assert mark == one.make_mark() == Store(str(tmp_path / "one"), "story").mark() != other.make_mark()


def test_dawid_skene_without_crowd_kit_says_what_to_install(run, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdkit", None)
    tasks = json.loads((exported / "judge/tasks.json").read_text())
    tasks[0]["answers"] = [{"by": "ann", "at": "2026-11-22", "grade": "1"}]
    Path("answers.json").write_text(json.dumps(tasks))
    result = call("import", str(run.path), "answers.json", "--override", "review.aggregate=dawid-skene")
    assert result.exit_code == 2 and "pip install 'unlearn-ray[review]'" in result.stderr


def test_the_server_listens_on_loopback_with_a_password_of_its_own_and_ends_with_us(tmp_path, monkeypatch):
    fake = tmp_path / "label-studio"
    fake.write_text(f"""#!{sys.executable}
import http.server, json, os, sys
json.dump({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}, open("{tmp_path}/started.json", "w"))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])),
                       type("H", (http.server.BaseHTTPRequestHandler,), {{
    "do_GET": lambda self: (self.send_response(200), self.end_headers())}})).serve_forever()
""")
    fake.chmod(0o755)
    monkeypatch.setenv(PROGRAM, str(fake))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "of-another-server")
    passwords = set()
    for _ in range(2):
        with label_studio(str(tmp_path / "data"), 28431) as running:
            started = json.loads((tmp_path / "started.json").read_text())
            passwords.add(running.password)
            arguments, environment = started["arguments"], started["environment"]
            assert arguments[arguments.index("--internal-host") + 1] == "127.0.0.1"
            assert environment["LABEL_STUDIO_PASSWORD"] == running.password not in " ".join(arguments)
            assert "LABEL_STUDIO_API_KEY" not in environment and running.password not in repr(running)
            with pytest.raises(InputError, match="port 28431 is taken"), label_studio(str(tmp_path / "other"), 28431):
                pass
        assert running.process.poll() is not None
    assert len(passwords) == 2 and all(len(one) >= 16 for one in passwords)


def test_a_server_that_ends_as_it_starts_says_why(tmp_path, monkeypatch):
    fake = tmp_path / "label-studio"
    fake.write_text("#!/bin/sh\necho the database is locked\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv(PROGRAM, str(fake))
    assert program() == str(fake)
    with pytest.raises(Exception, match="the database is locked"), label_studio(str(tmp_path / "data"), 28432):
        pass
