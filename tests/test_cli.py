import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from unlearn_ray.cli import main
from unlearn_ray.engine.cleaning import Superfluous
from unlearn_ray.engine.steps import Outcome, Step
from unlearn_ray.errors import InputError, StepFailed

RUN = "root: runs/test\nbaseline: some/model\nforget_sets: [{name: alice, documents: a.txt}]\n"
COMMANDS = ["run", "plan", "status", "clean", "report", "evaluate", "anchors build", "anchors check", "anchors show"]
COMMANDS += ["review export", "review import", "review serve"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    Path("a.txt").write_text("Alice met the White\nRabbit.\n\nIt ran from ALICE.\n")
    return tmp_path


@pytest.fixture
def dictionary(folder) -> str:
    entries = [{"anchor": "Alice", "generic": "Jane"}, {"anchor": "White Rabbit", "generic": "Grey Hare"}]
    Path("d.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return "d.jsonl"


def outcome(stage: str, state, *, forget_set: str = "alice", seconds: float = 0.0, error=None) -> Outcome:
    step = Step(stage, 1, forget_set, {}, lambda run: {})
    return Outcome(step, state, step.folder("runs/test"), seconds, error)


REPORT = {
    "metrics": {
        "choice": {"model": "step-8"},
        "metrics": {
            "probability_familiarity": {"baseline": {"value": 0.2, "n": 40}, "step-8": {"value": 0.05, "n": 40}}
        },
        "changes": {"probability_familiarity": {"relative": {"value": -0.75}}},
    },
    "completions": [
        {
            "kind": "familiarity",
            "prompt": "The Mad",
            "before": {"parts": [{"text": " Hatter"}]},
            "after": {"parts": [{"text": " dog"}]},
        }
    ],
}


@pytest.fixture
def pipeline(folder, monkeypatch) -> types.SimpleNamespace:
    """Stands in for the pipeline, which needs Ray and a model: what the command makes of its answers is tested."""
    stand_in = types.SimpleNamespace(
        run=lambda config, until, sets=None, job=None, on_event=None: stand_in.until.append(until) or stand_in.outcomes,
        watch=lambda config, sets: lambda: stand_in.looks.pop() if len(stand_in.looks) > 1 else stand_in.looks[0],
        redone=lambda config, sets: stand_in.again,
        report=lambda config, only_new=False: stand_in.pages,
        clean=lambda config, delete: stand_in.deleted.append(delete) or stand_in.superfluous,
        read_run=lambda config: {"alice": REPORT},
        evaluate_model=lambda config, model, forget_set, on_event: f"{config.root}/{forget_set}/{model}",
        until=[],
        outcomes=[],
        looks=[],
        again=[],
        deleted=[],
        superfluous=[],
        pages={},
    )
    monkeypatch.setattr("unlearn_ray.pipeline", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "unlearn_ray.pipeline", stand_in)  # type: ignore[arg-type]
    return stand_in


@pytest.mark.parametrize("command", ["", *COMMANDS, "anchors"])
def test_every_command_explains_itself(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0 and "Usage:" in result.output
    if command in COMMANDS:
        assert "--debug" in result.output


def test_the_version_is_told():
    assert call("--version").output.startswith("unlearn-ray, version 0.")


@pytest.mark.parametrize("command", ["run", "plan", "status", "report", "anchors build", "review export"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "error: absent.yaml: cannot read the configuration"),
        (["run.yaml", "label.alfa=3"], "error: run.yaml: label.alfa: unknown key, the nearest known one is alpha"),
        (["run.yaml", "mode=both"], "error: run.yaml: mode: should be 'separate', 'joint' or 'sequential'"),
        (["run.yaml", "alpha"], "error: alpha: expected KEY=VALUE"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_code_2(folder, command, arguments, message):
    result = call(*command.split(), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1 and not result.stdout


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(folder, place):
    arguments = ["--debug", "run", "absent.yaml"] if place == "before" else ["run", "absent.yaml", "--debug"]
    assert isinstance(call(*arguments).exception, InputError)


def test_a_run_ends_with_a_table_and_its_reports(pipeline):
    pipeline.outcomes = [outcome("blocks", "done", seconds=2), outcome("labels", "ran", seconds=150)]
    pipeline.pages = {"alice": "runs/test/alice/report.html"}
    result = call("run", "run.yaml")
    assert result.exit_code == 0 and not result.stderr and pipeline.until == ["evaluation"]
    assert result.stdout.splitlines() == [
        "forget set  blocks      labels",
        "alice       done 2.0 s  ran 2 min",
        "",
        "                         before  after  change  n",
        "probability familiarity  0.2     0.05   -75%    40",
        "",
        "The Mad",
        "    before:  Hatter",
        "    after:  dog",
        "",
        "report of alice: runs/test/alice/report.html",
    ]


def test_attacks_are_part_of_a_run_that_asks_for_them(pipeline):
    assert call("run", "run.yaml", "--audit").exit_code == 0
    assert pipeline.until == ["audit"]


def test_a_failed_step_is_one_line_and_exit_code_1(pipeline):
    worker_error = RuntimeError("Traceback (most recent call last):\n  File x\nValueError: boom\n")
    pipeline.outcomes = [
        outcome("blocks", "failed", error=StepFailed("disk full")),
        outcome("labels", "failed", forget_set="bob", error=worker_error),
        outcome("unlearned", "skipped", forget_set="bob"),
    ]
    result = call("run", "run.yaml")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error: alice blocks-") and first.endswith(": disk full")
    assert second.endswith("RuntimeError: ValueError: boom (--debug shows where)")
    assert "bob" in result.stdout and "skipped" in result.stdout
    assert "Traceback" in call("run", "run.yaml", "--debug").stderr


def test_progress_is_told_as_steps_start_and_end(pipeline):
    def run(config, on_event, **options):
        on_event(outcome("blocks", "running"))
        on_event(outcome("blocks", "ran", seconds=1.5))
        return []

    pipeline.run = run
    started, ended = call("run", "run.yaml").stdout.splitlines()[:2]
    assert started.split()[1:] == ["alice", f"blocks-{outcome('blocks', 'ran').step.digest}", "running"]
    assert ended.split()[-3:] == ["ran", "1.5", "s"]


def test_an_interrupt_is_exit_code_130(pipeline):
    def run(config, **options):
        raise KeyboardInterrupt

    pipeline.run = run
    assert call("run", "run.yaml").exit_code == 130


def test_status_tells_of_failures_and_is_no_failure(pipeline):
    pipeline.looks = [[outcome("blocks", "failed", error=StepFailed("disk full")), outcome("labels", "to do")]]
    result = call("status", "run.yaml")
    assert result.exit_code == 0 and "disk full" in result.stderr
    assert result.stdout.splitlines()[1].split() == ["alice", "failed", "to", "do"]


def test_status_tells_what_is_done_again_and_why(pipeline):
    pipeline.looks = [[outcome("labels", "to do")]]
    pipeline.again = [f"labels of set-{n}: alpha changed" for n in range(30)]
    lines = call("status", "run.yaml").stdout.splitlines()
    assert lines[2] == "again: labels of set-0: alpha changed" and lines[-1] == "and 10 more"


def of_many(count: int) -> tuple[str, list[Outcome]]:
    """A run of many sets: the first failed, the second runs ten times as long as is usual, the others are done."""
    names = [f"set-{number:04}" for number in range(count)]
    sets = "forget_sets=" + json.dumps([{"name": name, "documents": "x", "deadline": "2026-01-01"} for name in names])
    outcomes = []
    for name in names:
        step = Step("labels", 1, name, {"of": name}, lambda run: {})
        outcomes.append(Outcome(step, "done", step.folder("runs/test"), 60.0))
    outcomes[0] = replace(outcomes[0], state="failed", error=StepFailed("disk full"))
    outcomes[1] = replace(
        outcomes[1], state="running", seconds=600.0, progress={"step": 9, "steps": 10, "seconds_left": 66}
    )
    outcomes[2] = replace(outcomes[2], state="to do", seconds=0.0)
    return sets, outcomes


def test_status_of_a_thousand_sets_fits_on_a_screen(pipeline):
    sets, pipeline.looks = (found := of_many(1000))[0], [found[1]]
    result = call("status", "run.yaml", sets)
    lines = result.stdout.splitlines()
    assert lines[0] == "1000 forget sets: 997 done, 1 running, 1 failed, 1 to do"
    assert lines[2].split() == ["step", "done", "running", "failed", "to", "do"]
    assert lines[3].split() == ["labels", "997", "1", "1", "1"]
    assert "slow: set-0001 labels runs for 10 min, usual is 60.0 s" in lines
    assert "past their deadline: set-0000, set-0001, set-0002" in lines
    assert "about 2 min left, with 1 steps at a time as now" in lines
    assert len(lines) < 15 and "disk full" in result.stderr


def test_status_for_programs_is_one_json_object(pipeline):
    sets, pipeline.looks = (found := of_many(1000))[0], [found[1]]
    told = json.loads(call("status", "run.yaml", "--json", sets).stdout)
    assert told["sets"] == {"failed": 1, "running": 1, "to do": 1, "done": 997}
    assert told["failed"][0]["forget_set"] == "set-0000" and told["failed"][0]["error"] == "disk full"
    assert told["seconds_left"] == 66 + 60 and told["slow"][0]["usual_seconds"] == 60
    assert told["by_set"]["set-0001"] == "running" and len(told["by_set"]) == 1000


def test_status_can_be_watched_until_all_has_ended(pipeline, monkeypatch):
    monkeypatch.setattr("unlearn_ray.cli.WATCH_S", 0)
    pipeline.looks = [[outcome("labels", state)] for state in ("done", "running", "to do")]
    lines = call("status", "run.yaml", "--watch").stdout.splitlines()
    assert [line.split()[1:] for line in lines if line.startswith("alice")] == [["to", "do"], ["running"], ["done"]]


def test_clean_removes_only_when_told_to(pipeline):
    pipeline.superfluous = [
        Superfluous("runs/test/alice/labels-0123456789", "no step of this configuration", 3 * 10**9)
    ]
    result = call("clean", "run.yaml")
    assert pipeline.deleted == [False] and "nothing was removed; --delete does it" in result.stdout
    assert "3.0 GB" in result.stdout and "alice/labels-0123456789" in result.stdout
    assert "--delete" not in call("clean", "run.yaml", "--delete").stdout and pipeline.deleted == [False, True]


def test_a_report_of_nothing_says_what_to_do(pipeline):
    result = call("report", "run.yaml")
    assert result.exit_code == 2 and "unlearn-ray run run.yaml" in result.stderr


def test_evaluate_takes_the_only_set_or_the_named_one(pipeline):
    told = call("evaluate", "some/model", "--config", "run.yaml").stdout
    assert told == "report of some/model: runs/test/alice/some/model\n"
    two = "forget_sets=[{name: a, documents: x}, {name: b, documents: y}]"
    assert call("evaluate", "m", "--config", "run.yaml", "--forget-set", "b", two).stdout.endswith(" runs/test/b/m\n")
    result = call("evaluate", "m", "--config", "run.yaml", two)
    assert result.exit_code == 2 and result.stderr == "error: --forget-set is missing: expected one of a, b\n"


def test_a_built_dictionary_is_named(pipeline):
    pipeline.outcomes = [outcome("blocks", "done"), outcome("anchors", "ran")]
    folder = pipeline.outcomes[1].folder
    assert call("anchors", "build", "run.yaml").stdout == f"dictionary of alice: {folder}/dictionary.jsonl\n"


def test_the_dictionary_that_people_corrected_is_the_one_that_is_named(pipeline):
    pipeline.outcomes = [outcome("anchors", "done"), outcome("reviewed_anchors", "ran")]
    told = call("anchors", "build", "run.yaml").stdout
    assert told == f"dictionary of alice: {pipeline.outcomes[1].folder}/dictionary.jsonl\n"


def test_a_sound_dictionary_passes_the_check(dictionary):
    result = call("anchors", "check", dictionary, "--documents", "*.txt")
    assert result.exit_code == 0, result.output
    assert "info: coverage:" in result.stdout and "error:" not in result.output


def test_a_broken_dictionary_fails_the_check_with_its_entries(dictionary):
    with open(dictionary, "a") as file:
        file.write('{"anchor": "Dinah", "generic": "dinah"}\n')
    result = call("anchors", "check", dictionary, "--documents", "a.txt")
    assert result.exit_code == 1
    assert "error: identity:" in result.stdout and "Dinah -> dinah" in result.stdout


def test_a_missing_dictionary_or_document_is_bad_input(dictionary):
    for command in ("check", "show"):
        for given in (["absent.jsonl", "--documents", "a.txt"], [dictionary, "--documents", "absent*.txt"]):
            result = call("anchors", command, *given)
            assert result.exit_code == 2 and "absent" in result.stderr and result.stderr.count("\n") == 1


def test_a_passage_stands_beside_its_translation(dictionary, monkeypatch):
    monkeypatch.setenv("COLUMNS", "65")
    result = call("anchors", "show", dictionary, "--documents", "a.txt", "--at", "3")
    assert result.stdout.splitlines() == [
        "a.txt, characters 0 to 48; occurrence 3 of 3",
        "[Alice] met the [White Rabbit]. | [Jane] met the [Grey Hare].",
        "                                |",
        "It ran from [ALICE].            | It ran from [JANE].",
    ]
    result = call("anchors", "show", dictionary, "--documents", "a.txt", "--at", "4")
    assert result.exit_code == 2 and "3 occurrences" in result.stderr


def test_the_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "unlearn_ray", "--help"], capture_output=True, text=True, check=True)
    assert "anchors" in done.stdout
