import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from unlearn_ray.engine.steps import Outcome, Step, StepRun, run_steps, step_states
from unlearn_ray.engine.storage import write_json
from unlearn_ray.errors import InputError
from unlearn_ray.terminal import table


def step(stage: str = "work", *, forget_set: str = "alice", version: int = 1, run: Any = None, **parts: Any) -> Step:
    params = parts.pop("params", {"alpha": [2.5, 5]})
    return Step(stage, version, forget_set, params, run or (lambda run: {}), **parts)


def fail(run: StepRun) -> dict:
    raise ValueError("boom")


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {f"{outcome.step.forget_set}/{outcome.step.stage}": outcome.state for outcome in outcomes}


@pytest.mark.parametrize(
    "other",
    [
        step("other"),
        step(version=2),
        step(params={"alpha": [2.5]}),
        step(params={"alpha": [5, 2.5]}),
        step(params={"alpha": [2.5, 5], "new": None}),
        step(inputs={"blocks": step("blocks", params={"tokens": 256})}),
        step(inputs={"text": step("blocks", params={"tokens": 512})}),
        step(contents={"a.txt": "00"}),
        step(contents={"b.txt": "ff"}),
    ],
)
def test_the_digest_changes_with_what_the_result_depends_on(other):
    base = step(inputs={"blocks": step("blocks", params={"tokens": 512})}, contents={"a.txt": "ff"})
    assert other.digest != base.digest
    assert other.digest != step().digest


def test_the_digest_does_not_change_with_order_place_or_owner():
    one = step(params={"a": (1, 2), "b": "é"})
    other = step(params={"b": "é", "a": [1, 2]}, forget_set="bob", run=fail)
    assert one.digest == other.digest
    assert one.folder("runs/x") == f"runs/x/alice/work-{one.digest}"
    assert other.folder("s3://y/") == f"s3://y/bob/work-{one.digest}"
    assert len(one.digest) == 10 and set(one.digest) <= set("0123456789abcdef")


@pytest.mark.parametrize("value", [float("nan"), Path("x"), {1: 2}, {"a": {1, 2}}, fail])
def test_params_without_one_json_form_are_refused(value):
    with pytest.raises(InputError, match=r"work\.params\.value"):
        step(params={"value": value})


@pytest.mark.parametrize(
    "name", ["token", "hf_token", "API_KEY", "apikey", "openai-api-key", "client_secret", "password"]
)
def test_keys_and_passwords_are_refused_as_params(name):
    with pytest.raises(InputError, match=name):
        step(params={"client": [{name: "value"}]})


@pytest.mark.parametrize("name", ["block_tokens", "completion_tokens", "leading_token", "tokenizer", "top_k"])
def test_names_that_only_look_like_secrets_are_params(name):
    assert step(params={name: 1}).params == {name: 1}


def test_a_finished_step_has_a_manifest_and_is_not_run_again(tmp_path):
    runs = []

    def work(run: StepRun) -> dict:
        runs.append(run)
        Path(run.out, "result").write_text("x")
        return {"rows": {"blocks": 3}, "loss": 0.5}

    blocks = step("blocks", forget_set="shared")
    one = step(run=work, inputs={"blocks": blocks}, contents={"a.txt": "ff"})
    first = run_steps(str(tmp_path), [one])
    assert states(first) == {"shared/blocks": "ran", "alice/work": "ran"}
    assert runs == [StepRun(one.folder(str(tmp_path)), {"blocks": blocks.folder(str(tmp_path))})]

    manifest = json.loads(Path(one.folder(str(tmp_path)), "manifest.json").read_text())
    assert manifest["digest"] == one.digest and manifest["params"] == {"alpha": [2.5, 5]}
    assert manifest["inputs"] == {"blocks": {"digest": blocks.digest, "folder": f"shared/blocks-{blocks.digest}"}}
    assert manifest["contents"] == {"a.txt": "ff"}
    assert manifest["rows"] == {"blocks": 3} and manifest["figures"] == {"loss": 0.5}
    assert {"ray", "torch", "transformers", "python", "unlearn-ray"} <= manifest["libraries"].keys()

    again = run_steps(str(tmp_path), [one])
    assert states(again) == {"shared/blocks": "done", "alice/work": "done"}
    assert again[1].seconds == first[1].seconds and len(runs) == 1


def test_the_manifest_comes_last(tmp_path):
    seen = []
    one = step(run=lambda run: seen.append(os.listdir(run.out)) or {})
    run_steps(str(tmp_path), [one])
    assert seen == [["attempt.json"]]
    assert os.listdir(one.folder(str(tmp_path))) == ["manifest.json"]


def test_a_step_with_a_foreign_or_broken_manifest_runs_again(tmp_path):
    one = step()
    for content in ('{"digest": "0000000000"}', '{"dig'):
        run_steps(str(tmp_path), [one])
        Path(one.folder(str(tmp_path)), "manifest.json").write_text(content)
        assert states(run_steps(str(tmp_path), [one])) == {"alice/work": "ran"}


def test_figures_that_are_not_json_fail_the_step(tmp_path):
    [outcome] = run_steps(str(tmp_path), [step(run=lambda run: {"loss": float("nan")})])
    assert outcome.state == "failed" and isinstance(outcome.error, ValueError)
    assert not Path(outcome.folder, "manifest.json").exists()


def test_steps_with_one_digest_run_once_and_share_the_result(tmp_path):
    runs, used = [], []
    blocks = [step("blocks", forget_set=name, run=lambda run: runs.append(run) or {}) for name in ("alice", "bob")]
    labels = [
        step("labels", forget_set=one.forget_set, params={"of": one.forget_set}, inputs={"blocks": one},
             run=lambda run: used.append(run.inputs["blocks"]) or {})
        for one in blocks
    ]  # fmt: skip
    outcomes = run_steps(str(tmp_path), labels)
    assert len(runs) == 1 and used == [blocks[0].folder(str(tmp_path))] * 2
    assert set(states(outcomes).values()) == {"ran"} and len(outcomes) == 4
    assert {outcome.folder for outcome in outcomes if outcome.step.stage == "blocks"} == set(used)
    # The result is found whichever set comes first.
    assert set(states(run_steps(str(tmp_path), labels[::-1])).values()) == {"done"}


def test_a_failed_step_leaves_its_dependants_undone_and_the_others_running(tmp_path):
    reinforced = step("reinforced", run=fail)
    labels = step("labels", inputs={"reinforced": reinforced})
    unlearned = step("unlearned", inputs={"labels": labels})
    other = step("other", forget_set="bob")
    outcomes = run_steps(str(tmp_path), [unlearned, other])
    assert states(outcomes) == {
        "alice/reinforced": "failed",
        "alice/labels": "skipped",
        "alice/unlearned": "skipped",
        "bob/other": "ran",
    }
    assert str(outcomes[0].error) == "boom"
    assert states(step_states(str(tmp_path), [unlearned, other])) == {
        "alice/reinforced": "failed",
        "alice/labels": "to do",
        "alice/unlearned": "to do",
        "bob/other": "done",
    }
    mended = step("reinforced")
    assert mended.digest == reinforced.digest
    assert states(run_steps(str(tmp_path), [mended])) == {"alice/reinforced": "ran"}


def test_independent_steps_run_at_the_same_time_up_to_the_limit(tmp_path):
    together = threading.Barrier(2, timeout=20)
    active, most = [], []

    def work(run: StepRun) -> dict:
        active.append(run)
        most.append(len(active))
        together.wait()
        active.remove(run)
        return {}

    steps = [step(params={"n": n}, run=work) for n in range(4)]
    assert {outcome.state for outcome in run_steps(str(tmp_path), steps, max_parallel=2)} == {"ran"}
    assert max(most) == 2


def test_events_tell_of_starts_and_ends(tmp_path):
    blocks = step("blocks")
    run_steps(str(tmp_path), [blocks])
    events: list[tuple[str, str]] = []
    bad = step("bad", run=fail)
    after = step("after", inputs={"bad": bad, "blocks": blocks})
    run_steps(str(tmp_path), [after], on_event=lambda outcome: events.append((outcome.step.stage, outcome.state)))
    assert events == [("blocks", "done"), ("bad", "running"), ("bad", "failed"), ("after", "skipped")]


DRIVER = """
import sys, time
from pathlib import Path
from unlearn_ray.engine.steps import Step, run_steps

def work(run):
    Path(run.out, "half").write_text("x")
    print("working", flush=True)
    time.sleep(60)
    return {}

run_steps(sys.argv[1], [Step("work", 1, "alice", {"alpha": [2.5, 5]}, work)])
"""


@pytest.fixture
def driver(tmp_path):
    """Another process in the middle of a step."""
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background, it is ignored
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True, preexec_fn=heed
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_root_with_a_living_driver_is_refused(tmp_path, driver):
    with pytest.raises(InputError, match=f"in use by process {driver.pid}"):
        run_steps(str(tmp_path), [step()])
    assert states(step_states(str(tmp_path), [step()])) == {"alice/work": "running"}


def test_a_running_step_tells_how_far_it_is(tmp_path, driver):
    [outcome] = step_states(str(tmp_path), [step()])
    progress = {"step": 3, "steps": 40, "seconds_left": 250.0}
    write_json(f"{outcome.folder}/progress.json", progress)
    [outcome] = step_states(str(tmp_path), [step()])
    assert outcome.progress == progress
    assert "running 3/40, 4 min left" in table([outcome])


def test_a_killed_step_runs_again_and_finds_what_it_left(tmp_path, driver):
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert states(step_states(str(tmp_path), [step()])) == {"alice/work": "to do"}
    found = []
    outcomes = run_steps(str(tmp_path), [step(run=lambda run: found.append(Path(run.out, "half").read_text()) or {})])
    assert states(outcomes) == {"alice/work": "ran"} and found == ["x"]
    assert not (tmp_path / ".lock").exists()


def test_an_interrupt_ends_the_driver_in_the_middle_of_a_step(tmp_path, driver):
    started = time.monotonic()
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=20)
    assert time.monotonic() - started < 20 and not (tmp_path / ".lock").exists()
