import json

from unlearn_ray.engine.steps import StepRun
from unlearn_ray.stages.baseline import model_path
from unlearn_ray.stages.joint import together
from unlearn_ray.stages.sequence import keep_result


def metrics(familiarity: dict[str, float], perplexity: dict[str, float]) -> dict:
    values = {"probability_familiarity": familiarity, "perplexity_forget": familiarity, "perplexity_retain": perplexity}
    return {name: {model: {"value": value} for model, value in of.items()} for name, of in values.items()}


RETAIN = {"baseline": 10.0, "step-1": 10.1, "step-2": 10.4, "unlearned": 12.0}
CHOICE = {"candidates": [{"model": model} for model in ("step-1", "step-2", "unlearned")]}


def test_the_checkpoint_is_the_best_for_all_sets_however_large_their_familiarity_is():
    rare = metrics({"baseline": 0.01, "step-1": 0.009, "step-2": 0.001, "unlearned": 0.0}, RETAIN)
    famous = metrics({"baseline": 0.9, "step-1": 0.3, "step-2": 0.4, "unlearned": 0.0}, RETAIN)
    found = together([rare, famous], [CHOICE, CHOICE], tolerance=0.1)
    # step-1 leaves 90% and 33%, step-2 10% and 44%; the last model loses too much.
    assert found["model"] == "step-2" and found["within_tolerance"]
    assert [round(one["familiarity"], 3) for one in found["candidates"]] == [0.617, 0.272, 0.0]
    assert "2 sets" in found["rule"]


def test_what_one_set_loses_is_lost_for_all():
    other = metrics({"baseline": 0.5, "step-1": 0.4, "step-2": 0.1, "unlearned": 0.0}, RETAIN | {"step-2": 11.5})
    mine = metrics({"baseline": 0.5, "step-1": 0.4, "step-2": 0.1, "unlearned": 0.0}, RETAIN)
    assert together([mine, other], [CHOICE, CHOICE], tolerance=0.1)["model"] == "step-1"


def test_the_result_of_a_sequence_is_the_chosen_checkpoint_wherever_the_root_lies(tmp_path):
    for model in ("step-2", "unlearned"):
        root = tmp_path / model
        folders = {name: root / "alice" / f"{name}-0123456789" for name in ("unlearned", "evaluation", "result")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        (folders["evaluation"] / "metrics.json").write_text(json.dumps({"choice": {"model": model}}))
        inputs = {name: str(folder) for name, folder in folders.items() if name != "result"}
        assert keep_result(StepRun(str(folders["result"]), inputs)) == {"choice": model}
        moved = root.rename(tmp_path / f"moved-{model}")
        place = moved / "alice" / "unlearned-0123456789"
        expected = place if model == "unlearned" else place / "checkpoints" / model
        assert model_path(str(moved / "alice" / "result-0123456789")) == str(expected)
