import numpy as np
import pytest

from unlearn_ray.evaluation import measure
from unlearn_ray.material import Material, Question, TokenPrompt
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.models import load_model, load_tokenizer
from unlearn_ray.scoring import score_blocks, specific_mass

PROMPTS = ["The Queen of Hearts", "Alice was beginning to get very tired of sitting by", "Off"]
BLOCKS = [[5, 80, 120, 300, 9], list(range(100, 180)), [260, 4, 4, 90] * 9]


@pytest.fixture(scope="module")
def measured(tiny_model_folder: str):
    model, tokenizer = load_model(tiny_model_folder), load_tokenizer(tiny_model_folder)
    material = Material(
        probability=[TokenPrompt(text, [4, 90]) for text in PROMPTS],
        texts={"forget": BLOCKS, "retain": []},
        completion=[Prompt("book", text, ("",)) for text in PROMPTS],
        verbatim=[Prompt("book", PROMPTS[1], ("",))],
        probes=[Question("the Mad", " Hatter")],
        controls=[],
        shown=[TokenPrompt(PROMPTS[0], [4])],
        completion_tokens=4,
        themes=frozenset(),
    )
    return model, tokenizer, measure(model, tokenizer, 2, material=material)


def test_readings_are_one_an_item_and_none_where_nothing_is_asked(measured):
    model, tokenizer, readings = measured
    assert (
        readings["specific_mass"].tolist()
        == specific_mass(model, tokenizer, [TokenPrompt(text, [4, 90]) for text in PROMPTS], 8).tolist()
    )
    assert [len(readings[name]) for name in ("completion", "verbatim", "probe", "control")] == [3, 1, 1, 0]
    assert len(readings["retain/nll"]) == 0


def test_readings_of_a_text_come_from_the_scores_of_its_tokens(measured):
    model, tokenizer, readings = measured
    scores = score_blocks(model, tokenizer, BLOCKS, 3)
    assert readings["forget/tokens"].tolist() == [5, 80, 36]
    for row, one in enumerate(scores):
        assert readings["forget/nll"][row] == pytest.approx(-one.logprobs_P.sum(), rel=1e-5)
        least = np.argsort(one.logprobs_P)[: len(one.logprobs_P) // 5]
        assert readings["forget/min_k"][row] == pytest.approx(one.logprobs_P[least].mean(), rel=1e-4)
        normed = np.sort((one.logprobs_P - one.means_P) / one.deviations_P)[: len(least)]
        assert readings["forget/min_k_plus_plus"][row] == pytest.approx(normed.mean(), rel=1e-3)
        behind = 0
        while behind < len(one.greedy_P) and one.greedy_P[-1 - behind]:
            behind += 1
        assert readings["forget/extraction"][row] == pytest.approx(behind / len(one.greedy_P))


def test_shown_distributions_start_with_the_likeliest_token(measured):
    _, _, readings = measured
    [probabilities] = readings["shown_probabilities"]
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)  # the vocabulary is smaller than what is kept
    assert probabilities.tolist() == sorted(probabilities, reverse=True)
    assert len(set(readings["shown_ids"][0].tolist())) == len(probabilities)
