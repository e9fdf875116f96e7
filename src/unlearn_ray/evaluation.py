"""What is measured of a model, on prepared material. Free of Ray: takes a model, its tokenizer and what to measure on.

Readings are item by item (one value a prompt, answer or block), in the order of the material, so that two models can be
compared pair by pair, and figures with other intervals or by other groups need no second look at a model.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.material import Material, TokenPrompt
from unlearn_ray.method.memorisation import extraction_strength, min_k, min_k_plus_plus
from unlearn_ray.scoring import (
    PROMPTS_PER_BLOCK,
    answer_probability,
    complete,
    next_token,
    score_blocks,
    specific_mass,
)

Readings = dict[str, np.ndarray]
"""By name: float64 [N], one an item; for completions their texts."""

SHOWN_TOKENS = 1024  # the likeliest next tokens that are kept of a prompt whose distribution is shown


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, *, material: Material
) -> Readings:
    """All that `material` asks for, `batch_size` blocks or PROMPTS_PER_BLOCK times as many prompts at a time.

    Names: specific_mass, probe, control, completion, verbatim; TEXT/WHAT as in `text_readings`; shown_ids and
    shown_probabilities [N, SHOWN_TOKENS], the likeliest first.
    """
    tokens, prompt_batch = material.completion_tokens, PROMPTS_PER_BLOCK * batch_size
    shown_ids, shown_probabilities = _likeliest(model, tokenizer, material.shown, prompt_batch)
    readings = {
        "specific_mass": specific_mass(model, tokenizer, material.probability, prompt_batch),
        "probe": answer_probability(model, tokenizer, material.probes, prompt_batch),
        "control": answer_probability(model, tokenizer, material.controls, prompt_batch),
        "completion": np.array(
            complete(model, tokenizer, [p.text for p in material.completion], tokens, prompt_batch), dtype=np.str_
        ),
        "verbatim": np.array(
            complete(model, tokenizer, [p.text for p in material.verbatim], tokens, prompt_batch), dtype=np.str_
        ),
        "shown_ids": shown_ids,
        "shown_probabilities": shown_probabilities,
    }
    for text, blocks in material.texts.items():
        readings |= text_readings(model, tokenizer, text, blocks, batch_size)
    return readings


def text_readings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, blocks: Sequence[list[int]], batch_size: int
) -> Readings:
    """For each block of a text its negative log-likelihood in nats (nll), its tokens, extraction strength (extraction),
    and min-k% and min-k%++ (min_k, min_k_plus_plus)."""
    scores = score_blocks(model, tokenizer, blocks, batch_size)
    found = {
        "nll": [-one.logprobs_P.sum() for one in scores],
        "tokens": [len(one.logprobs_P) for one in scores],
        "extraction": [extraction_strength(one.greedy_P) for one in scores],
        "min_k": [min_k(one.logprobs_P) for one in scores],
        "min_k_plus_plus": [min_k_plus_plus(one.logprobs_P, one.means_P, one.deviations_P) for one in scores],
    }
    return {f"{text}/{what}": np.array(values, dtype=np.float64) for what, values in found.items()}


def _likeliest(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[TokenPrompt], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 and probabilities float32, both [N, SHOWN_TOKENS]."""
    kept = min(SHOWN_TOKENS, model.config.get_text_config().vocab_size)
    ids_NK, probabilities_NK = np.zeros((len(prompts), kept), np.int64), np.zeros((len(prompts), kept), np.float32)
    for rows, probabilities_BV in next_token(model, tokenizer, [prompt.text for prompt in prompts], batch_size):
        top = torch.topk(probabilities_BV, kept)
        ids_NK[rows], probabilities_NK[rows] = top.indices.cpu(), top.values.cpu()
    return ids_NK, probabilities_NK
