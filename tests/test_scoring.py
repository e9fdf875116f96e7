import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray import scoring
from unlearn_ray.material import Question, TokenPrompt
from unlearn_ray.models import leading_ids, load_model, load_tokenizer
from unlearn_ray.scoring import answer_probability, complete, next_token, score_blocks, specific_mass

PROMPTS = [
    "The Queen of Hearts",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and the Mad",
    "It was a bright morning.",
    "Off",
    "nobody in the garden knew what",
]
QUESTIONS = [
    Question("the Mad", " Hatter"),
    Question("Alice followed the White", " Rabbit ran"),
    Question("said", " the"),
]
BLOCKS = [[5, 80, 120, 300, 9], list(range(100, 180)), [7], [260, 4, 4, 90] * 9]


@pytest.fixture(scope="module")
def model(tiny_model_folder: str) -> PreTrainedModel:
    return load_model(tiny_model_folder, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: str) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_model_folder)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return leading_ids(tokenizer) + tokenizer(text, add_special_tokens=False)["input_ids"]


def slow_probabilities(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """Next-token probabilities [T, V] of one sequence by the model's own forward pass and a softmax in float64."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([ids])).logits[0].double().numpy()
    exp_TV = np.exp(logits_TV - logits_TV.max(-1, keepdims=True))
    return exp_TV / exp_TV.sum(-1, keepdims=True)


def test_completions_are_those_of_generate_one_by_one(model, tokenizer):
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([ids_of(tokenizer, prompt)])
        new = model.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True))
    assert len(set(expected)) > 2
    for batch_size in (1, 3, 8):
        assert complete(model, tokenizer, PROMPTS, 12, batch_size) == expected


def test_a_completion_ends_at_the_end_token_of_its_model(model, tokenizer, monkeypatch):
    whole = complete(model, tokenizer, ["Off"], 12, 1)[0]
    ids = torch.tensor([ids_of(tokenizer, "Off")])
    third = int(model.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] + 2])
    monkeypatch.setattr(model.generation_config, "eos_token_id", [third])
    cut = complete(model, tokenizer, ["Off", PROMPTS[1]], 12, 2)[0]
    assert whole.startswith(cut) and len(cut) < len(whole)


def test_next_token_mass_is_a_plain_softmax_sum(model, tokenizer):
    specific = [[4, 90, 300], [], [17], [2, 3], [255]]
    prompts = [TokenPrompt(text, ids) for text, ids in zip(PROMPTS, specific, strict=True)]
    slow = [slow_probabilities(model, ids_of(tokenizer, p.text))[-1][p.specific].sum() for p in prompts]
    for batch_size in (1, 2, 8):
        assert specific_mass(model, tokenizer, prompts, batch_size) == pytest.approx(slow, rel=1e-4)


def test_next_token_gives_back_which_prompts_its_rows_are(model, tokenizer):
    seen = {}
    for rows, probabilities_BV in next_token(model, tokenizer, PROMPTS, 2):
        seen |= dict(zip(rows, probabilities_BV, strict=True))
    for row, prompt in enumerate(PROMPTS):
        assert seen[row].numpy() == pytest.approx(
            slow_probabilities(model, ids_of(tokenizer, prompt))[-1], rel=1e-3, abs=1e-7
        )


@pytest.mark.parametrize("chunk_logits", [1, 700 * 3, 2**24])
def test_answer_probability_is_the_product_over_its_tokens(model, tokenizer, monkeypatch, chunk_logits):
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", chunk_logits)
    slow = []
    for question in QUESTIONS:
        prompt, answer = ids_of(tokenizer, question.prompt), tokenizer(question.answer)["input_ids"]
        table = slow_probabilities(model, prompt + answer)
        slow.append(np.prod([table[len(prompt) - 1 + place, token] for place, token in enumerate(answer)]))
    for batch_size in (1, 3):
        assert answer_probability(model, tokenizer, QUESTIONS, batch_size) == pytest.approx(slow, rel=1e-3)


def test_blocks_are_scored_behind_the_leading_ids_token_by_token(model, tokenizer):
    for batch_size in (1, 4):
        for scores, block in zip(score_blocks(model, tokenizer, BLOCKS, batch_size), BLOCKS, strict=True):
            table_TV = np.log(slow_probabilities(model, leading_ids(tokenizer) + block))[: len(block)]
            means_T = (np.exp(table_TV) * table_TV).sum(-1)
            spread_T = np.sqrt((np.exp(table_TV) * (table_TV - means_T[:, None]) ** 2).sum(-1))
            assert scores.logprobs_P == pytest.approx(table_TV[np.arange(len(block)), block], rel=1e-3)
            assert scores.means_P == pytest.approx(means_T, rel=1e-3)
            assert scores.deviations_P == pytest.approx(spread_T, rel=1e-3)
            assert scores.greedy_P.tolist() == (table_TV.argmax(-1) == block).tolist()
