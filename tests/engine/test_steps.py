import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unlearn_ray.engine import leases, schedule
from unlearn_ray.engine.events import read_events
from unlearn_ray.engine.leases import living_drivers
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.steps import Holds, Outcome, Step, StepRun, step_states
from unlearn_ray.engine.storage import write_json
from unlearn_ray.errors import InputError
from unlearn_ray.terminal import table


def step(stage: str = "work", *, forget_set: str = "alice", version: int = 1, run: Any = None, **parts: Any) -> Step:
    params = parts.pop("params", {"alpha": [2.5, 5]})
    return Step(stage, version, forget_set, params, run or (lambda run: {}), **parts)


def fail(run: StepRun) -> dict:
    raise ValueError("boom")


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.steps import Step

def work(run):
    Path(run.out, "half").write_text("x")
    print("working", flush=True)
    sys.stdin.read()
    return {}

run_steps(sys.argv[1], [Step("work", 1, "alice", {"alpha": [2.5, 5]}, work)])
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Another process in the middle of a step."""
    monkeypatch.setattr(leases, "LINGER_S", 0.5)
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background, it is ignored
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_step_that_another_driver_has_is_waited_for_and_never_run_twice(tmp_path, driver):
    assert states(step_states(str(tmp_path), [step()])) == {"alice/work": "running"}
    beside, told = step(params={"beside": 1}), []
    waiting = threading.Thread(target=lambda: told.extend(run_steps(str(tmp_path), [step(run=fail), beside])))
    waiting.start()
    wait_until(lambda: states(step_states(str(tmp_path), [beside])) == {"alice/work": "done"})
    assert waiting.is_alive(), "the step that somebody else has must not be run"
    assert driver.stdin
    driver.stdin.close()  # which lets it finish
    waiting.join(timeout=30)
    assert [outcome.state for outcome in told] == ["done", "ran"]
    assert [row["event"] for row in read_events(str(tmp_path)) if row.get("digest") == step().digest] == [
        "started",
        "ran",
    ]


def test_a_step_whose_driver_is_killed_is_taken_over_by_one_that_waits_for_it(tmp_path, driver):
    told = []
    waiting = threading.Thread(target=lambda: told.extend(run_steps(str(tmp_path), [step()])))
    waiting.start()
    driver.kill()
    driver.wait()
    waiting.join(timeout=30)
    assert [outcome.state for outcome in told] == ["ran"]
    events = [(row["event"], row["driver"]) for row in read_events(str(tmp_path)) if row.get("digest")]
    assert [event for event, _ in events] == ["started", "started", "ran"] and events[0][1] != events[1][1]


def test_a_step_that_failed_with_another_driver_meanwhile_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "POLL_S", 0.1)
    go, tried = threading.Event(), []

    def work(run: StepRun) -> dict:
        tried.append(run)
        go.wait(20)
        raise ValueError("boom")

    told: list[list[Outcome]] = []
    drivers = [threading.Thread(target=lambda: told.append(run_steps(str(tmp_path), [step(run=work)]))) for _ in "ab"]
    for one in drivers:
        one.start()
    wait_until(lambda: bool(tried))
    time.sleep(0.5)
    go.set()
    for one in drivers:
        one.join(timeout=30)
    assert [outcome.state for outcomes in told for outcome in outcomes] == ["failed", "failed"] and len(tried) == 1


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
    assert living_drivers(str(tmp_path)) == []


def test_an_interrupt_ends_the_driver_in_the_middle_of_a_step(tmp_path, driver):
    started = time.monotonic()
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=20)
    assert time.monotonic() - started < 20 and living_drivers(str(tmp_path)) == []


def test_steps_run_together_only_as_far_as_the_cluster_carries_them(tmp_path):
    held, most = Counter[str](), Counter[str]()

    def work(cpus: float, gpus: float) -> Any:
        def run(run: StepRun) -> dict:
            held.update({"cpus": int(cpus), "gpus": int(gpus)})
            most["cpus"], most["gpus"] = max(most["cpus"], held["cpus"]), max(most["gpus"], held["gpus"])
            time.sleep(0.05)
            held.subtract({"cpus": int(cpus), "gpus": int(gpus)})
            return {}

        return run

    steps = [
        step(params={"n": n, "gpus": gpus}, run=work(cpus, gpus), holds=partial(Holds, cpus, gpus))
        for cpus, gpus in ((2, 0), (0, 3), (1, 1))
        for n in range(6)
    ]
    outcomes = run_steps(str(tmp_path), steps, max_parallel=None, capacity=lambda: Holds(5, 4))
    assert {outcome.state for outcome in outcomes} == {"ran"}
    assert 3 < most["cpus"] <= 5 and 3 < most["gpus"] <= 4  # CPU work of some under the GPU work of others


def test_a_step_larger_than_the_cluster_runs_alone(tmp_path):
    steps = [step(params={"n": n}, holds=partial(Holds, 0, gpus)) for n, gpus in enumerate((1, 8, 1))]
    outcomes = run_steps(str(tmp_path), steps, max_parallel=None, capacity=lambda: Holds(1, 1))
    assert {outcome.state for outcome in outcomes} == {"ran"}


def test_the_most_urgent_steps_come_first_and_small_ones_do_not_hold_up_a_large_one(tmp_path):
    order: list[str] = []
    wanted = {"c": (0, 1), "a": (1, 1), "large": (2, 2), "b": (3, 1), "d": (4, 1)}
    steps = [
        step(name, holds=partial(Holds, 0, gpus), run=lambda run: time.sleep(0.1) or {})
        for name, (_, gpus) in sorted(wanted.items())
    ]
    hear = lambda outcome: order.append(outcome.step.stage) if outcome.state == "running" else None
    urgency = lambda one: (wanted[one.stage][0],)
    run_steps(str(tmp_path), steps, max_parallel=None, capacity=lambda: Holds(2, 2), urgency=urgency, on_event=hear)
    assert set(order[:2]) == {"c", "a"} and order[2] == "large" and set(order[3:]) == {"b", "d"}


def test_the_cost_of_a_step_does_not_grow_with_their_number(tmp_path):
    def chain(name: str) -> Step:
        one = step("stage-0", forget_set=name, params={"of": name})
        for number in range(1, 10):
            one = step(f"stage-{number}", forget_set=name, inputs={"before": one})
        return one

    few, many = ([chain(f"set-{number:04}") for number in range(count)] for count in (20, 400))
    began = time.monotonic()
    run_steps(str(tmp_path / "few"), few, max_parallel=16)
    of_few, began = (time.monotonic() - began) / 200, time.monotonic()
    outcomes = run_steps(str(tmp_path / "many"), many, max_parallel=16)
    of_many = (time.monotonic() - began) / 4000
    assert len(outcomes) == 4000 and {outcome.state for outcome in outcomes} == {"ran"}
    assert of_many < 2 * of_few, "the time of a step grows with their number"
