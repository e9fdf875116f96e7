from pathlib import Path

from unlearn_ray.engine.changes import why_again
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.engine.steps import Step


def chain(alpha: float = 5, sets: tuple[str, ...] = ("alice",), content: str = "ff") -> list[Step]:
    blocks = {name: Step("blocks", 1, name, {"of": name}, lambda run: {}, {}, {"a.txt": content}) for name in sets}
    labels = {f"labels of {name}": Step("labels", 1, name, {"alpha": alpha}, lambda run: {}, {"blocks": one})
              for name, one in blocks.items()}  # fmt: skip
    return [Step("unlearned", 1, "joint", {}, lambda run: {}, labels)]


def test_nothing_is_told_of_what_is_done_or_new(tmp_path):
    assert why_again(str(tmp_path), chain()) == []
    run_steps(str(tmp_path), chain())
    assert why_again(str(tmp_path), chain()) == []


def test_a_changed_setting_and_all_that_follows_are_told(tmp_path):
    run_steps(str(tmp_path), chain())
    assert why_again(str(tmp_path), chain(alpha=2.5)) == [
        "labels of alice: alpha changed from 5 to 2.5",
        "unlearned of joint: labels of alice is made again",
    ]


def test_a_changed_document_is_told(tmp_path):
    run_steps(str(tmp_path), chain())
    assert why_again(str(tmp_path), chain(content="00"))[0] == "blocks of alice: the content of a.txt changed"


def test_a_set_more_or_less_is_told(tmp_path):
    run_steps(str(tmp_path), chain())
    assert why_again(str(tmp_path), chain(sets=("alice", "bob"))) == ["unlearned of joint: labels of bob is new"]
    run_steps(str(tmp_path), chain(sets=("alice", "bob")))
    Path(tmp_path, "joint", f"unlearned-{chain()[0].digest}", "manifest.json").unlink()
    assert why_again(str(tmp_path), chain()) == ["unlearned of joint: labels of bob is no longer there"]
