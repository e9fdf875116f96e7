from pathlib import Path

import pytest

from unlearn_ray.engine.cleaning import superfluous
from unlearn_ray.engine.leases import driving
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.steps import Step
from unlearn_ray.errors import InputError


def labels(alpha: float, name: str = "alice") -> Step:
    blocks = Step("blocks", 1, name, {}, lambda run: {})
    work = lambda run: {"written": Path(run.out, "part.parquet").write_bytes(b"x" * 1000)}
    return Step("labels", 1, name, {"alpha": alpha}, work, {"blocks": blocks})


def test_what_no_step_refers_to_can_go_and_nothing_else(tmp_path):
    root, old, gone = str(tmp_path), labels(5), labels(1, "bob")
    run_steps(root, [old, gone, labels(2.5)])
    for kept in (
        "alice/report.html",
        "alice/review/answers/judge.jsonl",
        "shared/answers/ab/ab12.json",
        "notes/x-1.txt",
    ):
        (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / kept).write_text("x")
    found = superfluous(root, [labels(2.5)], lambda: [])
    assert {one.path for one in found} == {old.folder(root), gone.folder(root)}  # blocks are the same for both
    assert {one.bytes >= 1000 for one in found if "labels" in one.path} == {True}


def test_a_root_with_a_living_driver_is_left_alone(tmp_path):
    with driving(str(tmp_path)), pytest.raises(InputError, match="in use by process"):
        superfluous(str(tmp_path), [], lambda: [])
