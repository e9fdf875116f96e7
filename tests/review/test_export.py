import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from lxml import etree

from unlearn_ray.errors import InputError
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.models import load_tokenizer
from unlearn_ray.review.judge import judge_tasks
from unlearn_ray.review.labels import doubtful_places, label_tasks
from unlearn_ray.review.tasks import PROJECTS, interface, text_before
from unlearn_ray.reviewing import export_review


def test_terms_come_by_mentions_times_doubt_with_a_mention_and_all_marks(run, tmp_path):
    tasks = run.export(tmp_path)["anchors"]
    questions = [task["data"]["question"] for task in tasks if task["data"]["choices"]]
    assert questions == [
        "cellar → attic (other, 8 mentions)",
        "lamp → candle (object, 8 mentions)",
        "Quendor → Fairview (place, 8 mentions)",
    ]  # two sources saw Zorblax, which is no English word: nobody needs to look
    for task in tasks:
        [prediction] = task["predictions"]
        marks = [one["value"] for one in prediction["result"] if one["from_name"] == "span"]
        assert marks and all(task["data"]["text"][one["start"] : one["end"]] == one["text"] for one in marks)
    assert len(tasks) > len(questions), "and passages to correct and complete"


def test_labels_come_least_probable_first_with_context_and_alternatives(run, tmp_path, tiny_model_folder):
    tokenizer = load_tokenizer(tiny_model_folder)
    tasks = run.export(tmp_path)["labels"]
    assert len(tasks) == 3
    first = tasks[0]["data"]
    before, label = tokenizer.decode(run.tokens[:3]), tokenizer.decode([run.labels[3]])
    assert f"{before}{label}" in first["shown"].replace("<mark><b>", "").replace("</b></mark>", "")
    assert f"<mark><b>{label.lstrip()}</b></mark>" in first["shown"]
    assert len(first["alternatives"]) == 5 and first["alternatives"][0]["hotkey"] == "4"


def test_completions_are_graded_blind_and_rare_grades_are_there(run, tmp_path):
    tasks = run.export(tmp_path, "review.completions=6")["judge"]
    assert len(tasks) == 6
    for task in tasks:
        assert set(task["data"]) == {"key", "forget_set", "shown"} and not task["predictions"]
    told = [task["data"]["shown"] for task in tasks]
    assert any("unlearned says 7" in one for one in told) and any("baseline says 0" in one for one in told)


def test_gold_tasks_look_like_all_others_and_only_the_run_knows_them(run, tmp_path):
    tasks = run.export(tmp_path, "review.gold=4")
    for project in PROJECTS:
        asked = [
            json.loads(line) for line in (run.root / f"story/review/asked/{project}.jsonl").read_text().splitlines()
        ]
        gold = {row["data"]["key"]: row["facts"]["gold"] for row in asked if "gold" in row["facts"]}
        assert gold and set(gold) < {task["data"]["key"] for task in tasks[project]}
        assert "gold" not in json.dumps(tasks[project])
        shapes = {tuple(sorted(task["data"])) for task in tasks[project]}
        assert len(shapes) == 1


def test_the_same_export_twice_asks_the_same(run, tmp_path):
    assert run.export(tmp_path / "one") == run.export(tmp_path / "other")


def test_a_term_that_people_added_without_a_translation_is_asked_about(run, tmp_path, answered):
    tasks = run.export(tmp_path / "first")["anchors"]
    passage = next(task for task in tasks if not task["data"]["choices"])
    start = passage["data"]["text"].index("wizard")
    marks = [one["value"] for one in passage["predictions"][0]["result"]]
    marked = {"spans": [(start, start + 6, "anchor"), *((one["start"], one["end"], "anchor") for one in marks)]}
    run.import_(answered(passage, ann=marked, bob=marked))
    assert "without a translation" in run.read("open.jsonl")[0]["why"]
    assert run.export(tmp_path / "next")["anchors"][0]["data"]["question"].startswith("wizard → ? (marked by people")


def test_text_of_documents_is_shown_and_never_run(tiny_model_folder):
    row = {"kind": "familiarity", "prompt": "<script>x</script>", "completion": "<img src=x>", "reference": "<b>",
           "model": "baseline", "grade": 0, "subtlety": 3}  # fmt: skip
    [task], _ = judge_tasks("story", [row], ["baseline"], count=1, gold=0, seed=0)
    assert "<script" not in task.data["shown"] and "<img" not in task.data["shown"]


def test_steps_that_are_not_done_are_told(run):
    for manifest in run.folder("labels").glob("manifest.json"):
        manifest.unlink()
    exported = export_review(run.config, forget_sets=["story"], folder=str(run.root / "out"))
    assert {one.project: one.where for one in exported}["labels"] == "not yet: labels to do"
    with pytest.raises(InputError, match="labels to do"):
        export_review(run.config, forget_sets=["story"], projects=["labels"], folder="x")


@pytest.mark.parametrize("project", PROJECTS)
def test_interfaces_name_what_their_tasks_have(run, tmp_path, project):
    tree = etree.fromstring(interface(project).encode())
    variables = {value[1:] for node in tree.iter() for value in node.attrib.values() if value.startswith("$")}
    assert variables == set(run.export(tmp_path)[project][0]["data"]) - {"key", "forget_set"}


def test_ten_thousand_tasks_take_seconds(tiny_model_folder):
    tokenizer = load_tokenizer(tiny_model_folder)
    text = "Alice was beginning to get very tired of sitting by her sister on the bank. " * 1200
    blocks = cut_blocks("book.txt", text, tokenizer, 512)
    ids = blocks["input_ids"].to_pylist()
    labels = pa.table(
        {
            "block_id": blocks["block_id"],
            "input_ids": blocks["input_ids"],
            "labels_5": pa.array(ids, pa.list_(pa.int32())),
            "baseline_prob": pa.array([np.full(len(row), 0.001, np.float32) for row in ids]),
            "topk_ids": pa.array([[list(range(200, 232))] * len(row) for row in ids], pa.list_(pa.list_(pa.int32()))),
        }
    )
    started = time.monotonic()
    found = doubtful_places([labels], "labels_5", below=0.01, count=10_000)
    tasks, _ = label_tasks("book", found, [], {row["block_id"]: row for row in blocks.to_pylist()}, tokenizer)
    assert len(tasks) == len(found) == 10_000
    assert time.monotonic() - started < 15  # 2 s on a free core


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"cannot write .*file/story"):
        run.export(Path(tmp_path / "file"))


def test_what_is_shown_of_a_document_begins_with_a_whole_word():
    assert text_before("he cupboards as she fell", 19, 100, cut=True) == "… cupboards as she"
    assert text_before("The cupboards as she fell", 20, 100, cut=False) == "The cupboards as she"
    assert text_before("The cupboards as she fell", 20, 8, cut=False) == "… as she"
