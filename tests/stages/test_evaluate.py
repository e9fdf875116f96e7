import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chat_server import Reply, chat_server

from unlearn_ray.config import Endpoint, Evaluate, Judge, Prompts, Resources
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import load_model, load_tokenizer, save_checkpoint
from unlearn_ray.stages.evaluate import COMPLETION_SCHEMA, evaluate, models_of, read_questions, read_token_prompts

NAMES = ("Alice", "the Hatter", "a Dormouse", "the White Rabbit")
BOOK = "\n\n".join(
    f"In the {n}th year nobody in the house could say on which day they had all sat down to tea, until somebody called "
    f"for {NAMES[n % 4]}, who came late and went away again."
    for n in range(40)
)
SETTINGS = Evaluate(
    completions=6, completion_tokens=5, probability_prompts=8, verbatim=3, perplexity_blocks=4, bootstrap=200
)


@pytest.fixture
def run(tmp_path: Path, tiny_model_folder: str) -> StepRun:
    """A run whose reinforced model is the baseline, and whose unlearned one, of two checkpoints, differs from it."""
    tokenizer = load_tokenizer(tiny_model_folder)
    others = {f"text-{name}": BOOK.replace("Alice", who) for name, who in (("retain", "Nobody"), ("nonmembers", "Bob"))}
    for name, text in ({"blocks": BOOK} | others).items():
        (tmp_path / name).mkdir()
        pq.write_table(cut_blocks(name, text, tokenizer, 32), tmp_path / name / "part-0.parquet")
    (tmp_path / "anchors").mkdir()
    anchors = [
        Anchor("Alice", "Susan"),
        Anchor("Hatter", "Baker"),
        Anchor("Dormouse", "Vole"),
        Anchor("White Rabbit", "Fox"),
    ]
    (tmp_path / "anchors" / "dictionary.jsonl").write_text(AnchorDictionary(anchors).to_jsonl())
    model = load_model(tiny_model_folder)
    with torch.no_grad():
        next(model.base_model.parameters()).mul_(0.5)  # the embedding
    for folder in ("unlearned", "unlearned/checkpoints/step-2", "unlearned/checkpoints/step-10"):
        save_checkpoint(model, tokenizer, str(tmp_path / folder))
    shutil.copytree(tiny_model_folder, tmp_path / "reinforced")
    inputs = {name: str(tmp_path / name) for name in ("blocks", *others, "anchors", "reinforced", "unlearned")}
    inputs["baseline"] = tiny_model_folder
    return StepRun(str(tmp_path / "evaluation"), inputs)


def measured(run: StepRun, settings: Evaluate) -> tuple[dict, pa.Table]:
    evaluate(run, settings=settings, resources=Resources(batch_blocks=3, gpus_per_worker=0), trust_remote_code=False)
    return json.loads((Path(run.out) / "metrics.json").read_text()), pq.read_table(
        Path(run.out) / "completions.parquet"
    )


def test_every_model_is_measured_on_everything(local_ray, run, tmp_path, tiny_model_folder):
    questions = tmp_path / "probes.jsonl"
    questions.write_text('{"prompt": "the Mad", "answer": " Hatter"}\n\n{"prompt": "the White", "answer": " Rabbit"}\n')
    given = {"probes": str(questions), "reference": tiny_model_folder}
    metrics, completions = measured(run, SETTINGS.model_copy(update=given))

    everything = ["baseline", "reference", "reinforced", "step-2", "step-10", "unlearned"]
    assert metrics["models"] == everything
    figures = metrics["metrics"]
    for metric in ("probability_familiarity", "perplexity_forget", "perplexity_retain", "completion_familiarity",
                   "verbatim_rouge_l", "probe_probability", "membership_min_k", "extraction_strength"):  # fmt: skip
        assert list(figures[metric]) == everything
    assert "control_probability" not in figures and "perplexity_nonmembers" in figures
    assert figures["probability_familiarity"]["reinforced"] == figures["probability_familiarity"]["baseline"]
    assert figures["perplexity_forget"]["step-2"] == figures["perplexity_forget"]["unlearned"]
    assert figures["membership_min_k"]["baseline"]["n"] == 8

    # The unlearned model and its checkpoints are the same: of equals the last.
    assert metrics["choice"]["model"] == "unlearned"
    assert metrics["choice"]["pareto"] == ["step-2", "step-10", "unlearned"]
    ends = [figures["perplexity_forget"][name] for name in ("baseline", "unlearned")]
    assert [figure["n"] for figure in ends] == [4, 4]
    assert all(figure["low"] < figure["value"] < figure["high"] for figure in ends)
    relative = metrics["changes"]["perplexity_forget"]["relative"]
    assert relative["value"] == pytest.approx(ends[1]["value"] / ends[0]["value"] - 1)
    assert relative["low"] < relative["value"] < relative["high"]
    assert metrics["distance_to_reference"] == metrics["changes"]  # this reference is the baseline

    assert completions.schema == COMPLETION_SCHEMA
    rows = completions.to_pylist()
    assert [(r["kind"], r["model"]) for r in rows].count(("familiarity", "unlearned")) == 6
    assert [(r["kind"], r["model"]) for r in rows].count(("verbatim", "baseline")) == 3
    assert all((r["grade"] is None) == (r["kind"] == "verbatim") == (r["rouge_l"] is not None) for r in rows)
    assert sum(metrics["grades"]["unlearned"].values()) == 6
    plot = metrics["next_token"][0]
    assert len(plot["tokens"]) == len(plot["specific"]) == len(plot["before"]) == len(plot["after"]) >= 6
    assert plot["before"] == sorted(plot["before"], reverse=True)
    assert metrics["dropped"] == {}


def test_a_model_from_elsewhere_is_evaluated_without_other_text_or_checkpoints(local_ray, run, tiny_model_folder):
    inputs = {name: run.inputs[name] for name in ("baseline", "blocks", "anchors")} | {"unlearned": tiny_model_folder}
    metrics, _ = measured(StepRun(run.out, inputs), SETTINGS)
    assert metrics["models"] == ["baseline", "unlearned"]
    assert not {"perplexity_retain", "membership_min_k"} & metrics["metrics"].keys()
    assert metrics["changes"]["perplexity_forget"]["relative"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 4}


def test_a_killed_evaluation_reads_no_model_again_that_it_has_read(local_ray, run):
    measured(run, SETTINGS)
    folder = Path(run.out) / "readings" / "core"
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    (folder / "step-10.npz").unlink()
    metrics, _ = measured(run, SETTINGS)
    after = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    assert after.keys() == before.keys() and {name for name in before if before[name] != after[name]} == {"step-10.npz"}
    assert metrics["models"][-2:] == ["step-10", "unlearned"]


def test_a_language_model_grades_written_prompts_and_what_cannot_be_read_is_counted(
    local_ray, run, tmp_path, monkeypatch
):
    """The judge gives 3 to everything, and garbles its answer about one prompt as often as it is asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    prompts = tmp_path / "prompts.jsonl"
    texts = ["They sat down to tea with", "Nobody in the house knew", "Late in the evening came"]
    rows = [{"prompt": text, "references": ["Alice"], "subtlety": 2 + 3 * n} for n, text in enumerate(texts)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reply(body, number):
        garbled = texts[1] in json.dumps(body["messages"])
        return Reply("I like it." if garbled else '{"reason": "It names Alice.", "grade": 3}')

    given = {"prompts": Prompts(file=str(prompts)), "judge": Judge(source="openai", model="judge")}
    settings = SETTINGS.model_copy(update=given)
    with chat_server(reply) as server:
        resources = Resources(gpus_per_worker=0, endpoint=Endpoint(base_url=server.base_url, timeout_s=10))
        figures = evaluate(
            run, settings=settings, resources=resources, trust_remote_code=False, answers=str(tmp_path / "answers")
        )
    metrics = json.loads((Path(run.out) / "metrics.json").read_text())
    familiarity = metrics["metrics"]["completion_familiarity"]
    assert {model: (figure["value"], figure["n"]) for model, figure in familiarity.items()} == dict.fromkeys(
        ["baseline", "reinforced", "step-2", "step-10", "unlearned"], (5.0, 2)
    )
    assert metrics["ungraded"] == dict.fromkeys(familiarity, 1)
    assert metrics["groups"]["completion familiarity by subtlety"].keys() == {"1 to 3", "8 to 10"}
    assert figures["judging"]["outcomes"] == {"read": 10, "unreadable": 5}
    assert "sk-secret" not in (Path(run.out) / "metrics.json").read_text()


def test_models_come_in_the_order_of_training(run):
    assert list(models_of(run, SETTINGS)) == ["baseline", "reinforced", "step-2", "step-10", "unlearned"]


@pytest.mark.parametrize("line", ["not json", '["a", "b"]', '{"prompt": "x"}', '{"prompt": "x", "answer": " "}'])
def test_questions_that_cannot_be_read_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "probes.jsonl"
    path.write_text('{"prompt": "the Mad", "answer": " Hatter"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"probes\.jsonl, line 2"):
        read_questions(str(path))


@pytest.mark.parametrize("line", ['{"prompt": "x"}', '{"prompt": "x", "tokens": []}', '{"prompt": "x", "tokens": [1]}'])
def test_prompts_with_tokens_that_cannot_be_read_are_refused_with_their_line(tmp_path, line):
    path = tmp_path / "tokens.jsonl"
    path.write_text('{"prompt": "the Mad", "tokens": [" Hatter"]}\n')
    assert read_token_prompts(str(path)) == [("the Mad", [" Hatter"])]
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"tokens\.jsonl, line 2"):
        read_token_prompts(str(path))
