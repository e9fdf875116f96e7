import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.benchmarks import TASKS, benchmark_items
from unlearn_ray.config import Benchmarks
from unlearn_ray.errors import InputError
from unlearn_ray.models import leading_ids, load_model, load_tokenizer


def arc(question: str, choices: list[str], labels: str, answer: str) -> dict:
    return {"question": question, "choices": {"text": choices, "label": list(labels)}, "answerKey": answer}


ROWS = {
    "arc_easy": [
        arc("Who was tired?", ["Alice", "the Mad Hatter", "a road", "tea"], "ABCD", "A"),
        arc("Who ran past?", ["her sister", "the White Rabbit", "the March Hare", "Alice"], "1234", "2"),
        arc("What did the Hatter drink?", ["tea", "a garden", "his head"], "ABC", "A"),
        arc("Who said so?", ["the bank", "the Queen of Hearts", "the Cheshire Cat", "nobody"], "ABCD", "B"),
        arc("Who grinned from ear to ear?", ["the Cheshire Cat", "Alice", "the road", "his tea"], "1234", "1"),
        arc("What was long?", ["the morning", "a head", "the garden", "the road"], "ABCD", "D"),
        arc("What was bright?", ["a morning", "the Queen", "the Mad Hatter", "a sister"], "ABCD", "A"),
    ],
    "boolq": [
        {"passage": "Alice was very tired of sitting by her sister.", "question": "was alice tired", "label": 1},
        {"passage": "The White Rabbit ran past.", "question": "did the rabbit sit on the bank", "label": 0},
        {"passage": "The Mad Hatter drank his tea.", "question": "did the hatter drink tea", "label": 1},
        {
            "passage": "The Cheshire Cat grinned from ear to ear.",
            "question": "did the cat say what it knew",
            "label": 0,
        },
        {"passage": "It was a bright morning.", "question": "was the road long", "label": 0},
        {"passage": "The road was long.", "question": "was the road bright", "label": 1},
    ],
    "winogrande": [
        {
            "sentence": "Alice saw the Rabbit and _ ran past.",
            "option1": "Alice",
            "option2": "the Rabbit",
            "answer": "2",
        },
        {"sentence": "The Hatter gave tea since _ was tired.", "option1": "tea", "option2": "he", "answer": "2"},
        {"sentence": "_ said nothing of the road.", "option1": "The garden", "option2": "The Queen", "answer": "2"},
        {"sentence": "The cat sat by Alice; _ grinned.", "option1": "the cat", "option2": "Alice", "answer": "1"},
        {"sentence": "Her sister drank, and _ was bright.", "option1": "the morning", "option2": "tea", "answer": "1"},
        {"sentence": "Off with _ said the Queen.", "option1": "the head", "option2": "the long road", "answer": "1"},
    ],
}


@pytest.fixture(scope="module")
def model(tiny_model_folder: str) -> PreTrainedModel:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: str) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_model_folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, rows in ROWS.items():
        write(folder, name, "\n".join(map(json.dumps, rows)))
    return str(folder)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "validation.jsonl").write_text(text)


def spelled_out(name: str, row: dict) -> tuple[list[tuple[str, str]], int]:
    """The item as lm-eval puts it: (text, what is scored behind it) for each choice, and the right one."""
    if name == "arc_easy":
        right = row["choices"]["label"].index(row["answerKey"])
        return [(f"Question: {row['question']}\nAnswer:", f" {text}") for text in row["choices"]["text"]], right
    if name == "boolq":
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        return [(prompt, " no"), (prompt, " yes")], row["label"]
    before, after = row["sentence"].split("_")
    return [(before + row["option1"], after), (before + row["option2"], after)], int(row["answer"]) - 1


def slow_logprob(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> float:
    """By the model's own forward pass of this one sequence."""
    given = leading_ids(tokenizer) + tokenizer(prompt)["input_ids"]
    asked = tokenizer(answer)["input_ids"]
    with torch.no_grad():
        logprobs_TV = model(torch.tensor([given + asked])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs_TV[len(given) - 1 + place, token]) for place, token in enumerate(asked))


@pytest.mark.parametrize("name", ROWS)
def test_an_item_is_right_where_its_answer_has_the_greatest_log_probability(model, tokenizer, data, name):
    right, right_per_character = [], []
    for row in ROWS[name]:
        choices, answer = spelled_out(name, row)
        logprobs = np.array([slow_logprob(model, tokenizer, *choice) for choice in choices])
        right.append(float(logprobs.argmax() == answer))
        lengths = [len(text.removeprefix(" ")) for _, text in choices]
        right_per_character.append(float((logprobs / lengths).argmax() == answer))
    assert 0 < sum(right) < len(right)
    expected = {name: right}
    if name == "arc_easy":
        assert right != right_per_character
        expected["arc_easy/acc_norm"] = right_per_character
    for batch_size in (1, 5):
        found = benchmark_items(model, tokenizer, batch_size, tasks=[name], data=data, limit=None)
        assert {key: items.tolist() for key, items in found.items()} == expected
        assert all(items.dtype == np.float64 for items in found.values())


def test_a_limit_takes_items_from_the_whole_task_the_same_for_every_model(model, tokenizer, data, tiny_model_folder):
    other = load_model(tiny_model_folder)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(-1)  # what was likely is unlikely
    for one in (model, other):
        every, some, most = (
            benchmark_items(one, tokenizer, 8, tasks=["arc_easy"], data=data, limit=limit) for limit in (None, 3, 100)
        )
        for key in ("arc_easy", "arc_easy/acc_norm"):
            assert some[key].tolist() == every[key][[0, 2, 4]].tolist()
            assert most[key].tolist() == every[key].tolist()


def test_several_tasks_come_in_the_order_asked_for_and_test_rows_before_validation_rows(model, tokenizer, data):
    (Path(data) / "boolq" / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS["boolq"][:2])))
    found = benchmark_items(model, tokenizer, 8, tasks=["winogrande", "boolq"], data=data, limit=None)
    assert {key: len(items) for key, items in found.items()} == {"winogrande": 6, "boolq": 2}
    assert list(found) == ["winogrande", "boolq"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mmlu", "", "unknown benchmark 'mmlu': expected one of arc_challenge, arc_easy, boolq"),
        ("piqa", None, "the benchmark piqa has no data: neither .*test.jsonl nor .*validation.jsonl exists; `python "),
        ("piqa", "{", "piqa from .*validation.jsonl, which needs the columns of its dataset: .*JSON"),
        ("piqa", '{"goal": "g", "sol1": "a", "label": 0}', "piqa from .*validation.jsonl"),
        ("piqa", '{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}\n{"goal": "g", "sol1": "a", "label": 1}', "sol2"),
        ("piqa", '{"goal": "g", "sol1": "a", "sol2": "b", "label": -1}', "has no answer: .*'label': -1"),
        ("hellaswag", '{"goal": "g"}', "hellaswag from .*: KeyError: 'ctx_a'"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(model, tokenizer, tmp_path, name, text, message):
    if text is not None:
        write(tmp_path, name, text)
    with pytest.raises(InputError, match=message) as caught:
        benchmark_items(model, tokenizer, 1, tasks=[name], data=str(tmp_path), limit=None)
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(model, tokenizer, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.tasks", raising=False)
    with pytest.raises(InputError, match=r"pip install 'unlearn-ray\[eval\]'"):
        benchmark_items(model, tokenizer, 1, tasks=["boolq"], data=data, limit=None)


def test_the_configuration_knows_every_benchmark():
    assert Benchmarks.model_validate({"tasks": list(TASKS)}).tasks == tuple(TASKS)
