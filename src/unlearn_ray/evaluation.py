"""Measuring one model on prepared material. Free of Ray: takes a model, its tokenizer and what to measure on.

Everything comes back item by item (one value a prompt, answer or block), in the order of the material, so that two
models can be compared pair by pair. Results do not depend on the batch size, up to rounding.
Shapes: N items, B sequences of a batch, T positions, P positions that are asked for, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.material import Material, Question, TokenPrompt
from unlearn_ray.models import decoder, leading_ids, lm_head

CHUNK_LOGITS = 2**24  # logits that exist at one time: 64 MB of float32
PROMPTS_PER_BLOCK = 4  # prompts are short beside blocks, and a decoding step costs the same for more of them


@dataclass(frozen=True)
class Measurement:
    """One model's values, float64, one an item of the material in its order; shown_NV are float32 probabilities."""

    specific_mass_N: np.ndarray
    forget_nll_N: np.ndarray
    forget_tokens_N: np.ndarray
    heldout_nll_N: np.ndarray
    heldout_tokens_N: np.ndarray
    probe_probability_N: np.ndarray
    control_probability_N: np.ndarray
    completions: list[str]
    continuations: list[str]
    shown_NV: np.ndarray


@torch.inference_mode()
def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, material: Material, batch_size: int
) -> Measurement:
    """All that `material` asks for, `batch_size` blocks or PROMPTS_PER_BLOCK times as many prompts at a time."""
    forget_nll_N, forget_tokens_N = block_nll(model, tokenizer, material.forget_blocks, batch_size)
    heldout_nll_N, heldout_tokens_N = block_nll(model, tokenizer, material.heldout_blocks, batch_size)
    tokens, prompt_batch = material.completion_tokens, PROMPTS_PER_BLOCK * batch_size
    shown_NV = np.zeros((len(material.shown), model.config.get_text_config().vocab_size), dtype=np.float32)
    for rows, probabilities_BV in next_token(model, tokenizer, [p.text for p in material.shown], prompt_batch):
        shown_NV[rows] = probabilities_BV.cpu()
    return Measurement(
        specific_mass_N=specific_mass(model, tokenizer, material.probability, prompt_batch),
        forget_nll_N=forget_nll_N,
        forget_tokens_N=forget_tokens_N,
        heldout_nll_N=heldout_nll_N,
        heldout_tokens_N=heldout_tokens_N,
        probe_probability_N=answer_probability(model, tokenizer, material.probes, prompt_batch),
        control_probability_N=answer_probability(model, tokenizer, material.controls, prompt_batch),
        completions=complete(model, tokenizer, [p.text for p in material.completion], tokens, prompt_batch),
        continuations=complete(model, tokenizer, [p.text for p in material.verbatim], tokens, prompt_batch),
        shown_NV=shown_NV,
    )


@torch.inference_mode()
def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_tokens: int, batch_size: int
) -> list[str]:
    """Greedy completions of at most `max_tokens` tokens, without the prompts; they end at the model's end token.

    Prompts are padded on the left, so that all continue from the last column and share one KV cache.
    """
    sequences = [_encode(tokenizer, prompt) for prompt in prompts]
    ends = _end_ids(model)
    # Spelt out, because what is left open comes from the checkpoint's own generation config (sampling, penalties).
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=max_tokens,
        eos_token_id=ends,
        pad_token_id=0,
    )
    texts = [""] * len(sequences)
    for rows in _batches(sequences, batch_size):
        width = max(len(sequences[row]) for row in rows)
        ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for line, row in enumerate(rows):
            ids_BT[line, width - len(sequences[row]) :] = torch.tensor(sequences[row])
            mask_BT[line, width - len(sequences[row]) :] = 1
        out_BT = cast(Any, model).generate(
            ids_BT.to(model.device), attention_mask=mask_BT.to(model.device), generation_config=config
        )
        for row, new in zip(rows, out_BT[:, width:].tolist(), strict=True):
            texts[row] = _continuation(tokenizer, sequences[row], _until(new, ends or []))
    return texts


@torch.inference_mode()
def next_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yields (indices of prompts, float32 probabilities [B, V] of the token after each of them)."""
    sequences = [_encode(tokenizer, prompt) for prompt in prompts]
    head = lm_head(model)
    for rows in _batches(sequences, batch_size):
        hidden_BTH = decoder(model)(input_ids=_padded(sequences, rows, model.device)).last_hidden_state
        last_B = torch.tensor([len(sequences[row]) - 1 for row in rows], device=hidden_BTH.device)
        hidden_BH = hidden_BTH[torch.arange(len(rows), device=hidden_BTH.device), last_B]
        yield rows, head(hidden_BH).float().softmax(-1)


def specific_mass(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[TokenPrompt], batch_size: int
) -> np.ndarray:
    """For each prompt the probability, float64 [N], that its next token is one of its specific tokens."""
    mass_N = np.zeros(len(prompts))
    for rows, probabilities_BV in next_token(model, tokenizer, [prompt.text for prompt in prompts], batch_size):
        for row, probabilities_V in zip(rows, probabilities_BV, strict=True):
            mass_N[row] = probabilities_V[torch.tensor(prompts[row].specific, dtype=torch.long)].sum().item()
    return mass_N


def answer_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], batch_size: int
) -> np.ndarray:
    """For each question the probability, float64 [N], of the whole answer right after the prompt."""
    return np.exp(answer_logprob(model, tokenizer, questions, batch_size))


def answer_logprob(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], batch_size: int
) -> np.ndarray:
    """For each question the log-probability, float64 [N], of the whole answer right after the prompt."""
    sequences, starts = [], []
    for question in questions:
        # Tokenised in one piece, since a tokenizer may treat the beginning of a text in its own way; a token that holds
        # the end of the prompt and the beginning of the answer counts as answer.
        encoded = tokenizer(question.prompt + question.answer, add_special_tokens=False, return_offsets_mapping=True)
        inside = sum(end <= len(question.prompt) for _, end in encoded["offset_mapping"])
        leading = leading_ids(tokenizer)
        sequences.append(leading + encoded["input_ids"])
        starts.append(len(leading) + inside)
    logprobs = target_logprobs(model, sequences, starts, batch_size)
    return np.array([values.sum() for values in logprobs], dtype=np.float64)


def block_nll(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, blocks: Sequence[list[int]], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each block its negative log-likelihood in nats and the number of tokens predicted, both float64 [N]."""
    leading = leading_ids(tokenizer)
    sequences = [leading + list(block) for block in blocks]
    logprobs = target_logprobs(model, sequences, [max(len(leading), 1)] * len(blocks), batch_size)
    nll_N = np.array([-values.sum() for values in logprobs], dtype=np.float64)
    return nll_N, np.array([len(values) for values in logprobs], dtype=np.float64)


@torch.inference_mode()
def target_logprobs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], starts: Sequence[int], batch_size: int
) -> list[np.ndarray]:
    """For each sequence the log-probabilities, float64 [P], of its tokens from index `start` (>= 1) on, each given all
    before it. Only these positions go through the LM head, a chunk at a time."""
    head = lm_head(model)
    chunk = max(1, CHUNK_LOGITS // model.config.get_text_config().vocab_size)
    out = [np.zeros(0)] * len(sequences)
    for rows in _batches(sequences, batch_size):
        hidden_BTH = decoder(model)(input_ids=_padded(sequences, rows, model.device)).last_hidden_state
        for hidden_TH, row in zip(hidden_BTH, rows, strict=True):
            targets_P = torch.tensor(sequences[row][starts[row] :], device=hidden_BTH.device)
            hidden_PH = hidden_TH[starts[row] - 1 : len(sequences[row]) - 1]
            pieces = [
                -torch.nn.functional.cross_entropy(head(part_PH).float(), part_P, reduction="none")
                for part_PH, part_P in zip(hidden_PH.split(chunk), targets_P.split(chunk), strict=True)
            ]
            out[row] = torch.cat(pieces).double().cpu().numpy() if pieces else np.zeros(0)
    return out


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return leading_ids(tokenizer) + tokenizer(text, add_special_tokens=False)["input_ids"]


def _batches(sequences: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of the sequences, the longest first, so that a batch holds little padding and memory fails at once."""
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def _padded(sequences: Sequence[Sequence[int]], rows: Sequence[int], device: torch.device) -> torch.Tensor:
    """Ids [B, T], filled up on the right, where causal attention cannot see the padding: no mask is needed."""
    lines = [torch.tensor(sequences[row]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(lines, batch_first=True).to(device)


def _end_ids(model: PreTrainedModel) -> list[int] | None:
    ends = model.generation_config.eos_token_id if model.generation_config else None
    return [ends] if isinstance(ends, int) else ends


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    """The ids before the first end token."""
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


def _continuation(tokenizer: PreTrainedTokenizerFast, prompt: list[int], new: list[int]) -> str:
    """The text that `new` adds: decoded behind the prompt, since some tokenizers drop the first space of a text."""

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return text(prompt + new)[len(text(prompt)) :]
