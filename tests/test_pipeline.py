"""The whole method on real Ray with a tiny model: what a run leaves, and what a second run or a change does again."""

import json
import os
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from unlearn_ray import pipeline
from unlearn_ray.config import load_config
from unlearn_ray.config.evidence import Attack
from unlearn_ray.models import load_model, load_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run) -> Path:
    return write_run(tmp_path_factory.mktemp("run")).parent


@pytest.fixture(scope="module")
def outcomes(folder, local_ray):
    found = pipeline.run(load_config(str(folder / "run.yaml")))
    for outcome in found:
        if outcome.error:
            raise outcome.error
    return {(o.step.forget_set, o.step.stage, i): o for i, o in enumerate(found)}


def folders(outcomes) -> dict[str, Path]:
    return {stage: Path(outcome.folder) for (owner, stage, _), outcome in outcomes.items() if owner == "story"}


def test_every_step_runs_once_and_leaves_a_manifest(outcomes):
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    for outcome in outcomes.values():
        manifest = json.loads((Path(outcome.folder) / "manifest.json").read_text())
        assert manifest["digest"] == outcome.step.digest
        assert manifest["figures"]


def test_labels_have_the_columns_of_the_contract(outcomes):
    table = pq.read_table(sorted(folders(outcomes)["labels"].glob("part-*.parquet"))[0])
    assert {f.name: str(f.type) for f in table.schema} == {
        "block_id": "int64",
        "document": "string",
        "index": "int32",
        "input_ids": "list<element: int32>",
        "labels_5": "list<element: int32>",
        "labels_2.5": "list<element: int32>",
        "baseline_prob": "list<element: float>",
        "topk_ids": "list<element: list<element: int32>>",
        "topk_logprobs": "list<element: list<element: float>>",
    }
    for row in table.to_pylist():
        assert len(row["labels_5"]) == len(row["input_ids"]) == len(row["topk_ids"])


def test_the_unlearned_model_is_an_ordinary_checkpoint_with_others_on_the_way(outcomes, tiny_model_folder):
    unlearned = folders(outcomes)["unlearned"]
    weights = load_model(str(unlearned)).state_dict()
    assert any((weights[name] != weight).any() for name, weight in load_model(tiny_model_folder).state_dict().items())
    load_tokenizer(str(unlearned))
    assert (unlearned / "checkpoints" / "step-3" / "model.safetensors").exists()


def test_an_adapter_trained_with_zero_3_stays_by_itself_when_asked_to(outcomes, folder, tiny_model_folder):
    overrides = [
        "resources.deepspeed=configs/deepspeed/zero3.json",
        "unlearn.adapter={rank: 4}",
        "unlearn.merge_adapter=false",
        "unlearn.learning_rate=0.01",
        "unlearn.retain_targets=text",
        "unlearn.checkpoint_every=1",
        "unlearn.keep_checkpoints=2",
    ]
    found = pipeline.run(load_config(str(folder / "run.yaml"), overrides), until="unlearned")[-1]
    assert found.state == "ran", found.error
    unlearned = Path(found.folder)
    written = json.loads((unlearned / "adapter_config.json").read_text())
    base = written["base_model_name_or_path"]
    assert base == tiny_model_folder
    assert written["target_modules"] == sorted(written["target_modules"])  # the same every time
    assert f"base_model: {base}\n" in (unlearned / "README.md").read_text()
    before, after = load_model(base).state_dict(), load_model(str(unlearned)).state_dict()
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    assert changed == {name for name in before if "proj" in name}  # every linear layer but the output
    steps = json.loads((unlearned / "manifest.json").read_text())["rows"]["steps"]
    kept = {file.name for file in (unlearned / "checkpoints").iterdir()}
    assert kept == {f"step-{steps - 2}", f"step-{steps - 1}"}
    assert not (unlearned / "saves").exists() and list((unlearned / "tensorboard").iterdir())


def test_the_evaluation_has_every_figure_with_n_and_interval(outcomes):
    metrics = json.loads((folders(outcomes)["evaluation"] / "metrics.json").read_text())["metrics"]
    for name in ("completion_familiarity", "probability_familiarity", "perplexity_forget", "perplexity_retain"):
        for model in ("baseline", "unlearned"):
            figure = metrics[name][model]
            assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] > 0


def test_a_second_run_finds_everything_done_also_with_other_resources(outcomes, folder):
    for overrides in ([], ["resources.batch_blocks=2", "resources.workers=2"]):
        again = pipeline.run(load_config(str(folder / "run.yaml"), overrides))
        assert {outcome.state for outcome in again} == {"done"}


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("evaluate.completions=5", {"evaluation"}),
        ("unlearn.epochs=2", {"unlearned", "evaluation"}),
        ("label.alpha=[5]", {"labels", "unlearned", "evaluation"}),
        ("label.block_tokens=32", {"blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation", "retain"}),
        ("retain=null", {"unlearned", "evaluation"}),
    ],
)
def test_a_change_runs_again_what_depends_on_it(outcomes, folder, override, redone):
    states = pipeline.status(load_config(str(folder / "run.yaml"), [override]))
    assert {outcome.step.stage for outcome in states if outcome.state == "to do"} == redone


def test_the_report_is_one_page_with_the_figures_of_the_run(outcomes, folder):
    [page] = pipeline.report(load_config(str(folder / "run.yaml"))).values()
    html = Path(page).read_text()
    assert "Zorblax" in html and "://" not in html.replace("http://www.w3.org", "")
    data = json.loads(Path(page).with_suffix(".json").read_text())
    assert {step["name"] for step in data["steps"]} >= {"baseline", "blocks", "labels", "unlearned", "evaluation"}


def test_any_checkpoint_can_be_evaluated_like_the_runs_own(outcomes, folder, tiny_model_folder):
    (folder / "questions.jsonl").write_text('{"language": "French", "prompt": "Le", "answer": " Zorblax"}\n')
    small = {"attacks": ["know nothing", "languages", "translation"], "languages": str(folder / "questions.jsonl")}
    config = load_config(str(folder / "run.yaml"), [f"audit={json.dumps(small)}"])
    page = Path(pipeline.evaluate_model(config, tiny_model_folder, "story"))
    found = json.loads(page.with_suffix(".json").read_text())
    same = found["metrics"]["metrics"]["probability_familiarity"]
    assert same["baseline"]["value"] == pytest.approx(same["unlearned"]["value"])
    attacks = {(one["attack"], one["condition"]) for one in found["audit"]["attacks"]}
    assert attacks >= {("no attack", ""), ("know nothing", "instruction"), ("languages", "French")}
    assert all(one["to_baseline"]["value"] == 0 for one in found["audit"]["attacks"])
    assert found["audit"]["not_tested"]["quantisation"] == "not among audit.attacks"
    before = page.read_bytes()
    assert pipeline.evaluate_model(config, tiny_model_folder, "story") == str(page) and page.read_bytes() == before


def test_an_audit_makes_every_attack_and_one_that_was_killed_goes_on(outcomes, folder):
    (folder / "about.txt").write_text("A tale of a wizard called Zorblax, who came to Quendor in the evening. " * 4)
    overrides = [f"audit.about={folder / 'about.txt'}", "audit.prompts=4", "audit.relearn_steps=[0,1]"]
    config = load_config(str(folder / "run.yaml"), overrides)
    found = pipeline.run(config, until="audit")[-1]
    assert found.state == "ran", found.error
    audit = json.loads((Path(found.folder) / "audit.json").read_text())
    made = {one["attack"] for one in audit["attacks"]}
    assert made | set(audit["not_tested"]) == {"no attack", *get_args(Attack)} and "languages" in audit["not_tested"]
    readings = {file: file.stat().st_mtime_ns for file in Path(found.folder).rglob("*.npz")}
    lost = min(readings)
    lost.unlink()
    (Path(found.folder) / "manifest.json").unlink()
    assert pipeline.run(config, until="audit")[-1].state == "ran"
    assert {file for file, time in readings.items() if file.stat().st_mtime_ns != time} == {lost}
    assert json.loads((Path(found.folder) / "audit.json").read_text()) == audit
    [page] = pipeline.report(config).values()
    assert "know nothing" in Path(page).read_text() and "| no attack |" in Path(page).with_suffix(".md").read_text()


def test_labels_are_byte_identical_for_two_workers_and_after_lost_shards(outcomes, folder, tmp_path):
    labels = folders(outcomes)["labels"]
    before = {file.name: file.read_bytes() for file in labels.glob("part-*.parquet")}
    for file in (*labels.glob("part-*.parquet"), labels / "manifest.json"):
        os.remove(file)
    pipeline.run(load_config(str(folder / "run.yaml"), ["resources.workers=2"]), until="labels")
    assert {file.name: file.read_bytes() for file in labels.glob("part-*.parquet")} == before
