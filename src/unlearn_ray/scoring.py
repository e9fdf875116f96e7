"""What one model makes of texts: completions, next tokens, and the probabilities of given ones. Free of Ray.

Everything comes back item by item (one value a prompt, answer or block), in the order it was given, so that two models
can be compared pair by pair. Results do not depend on the batch size, up to rounding.
Shapes: N items, B sequences of a batch, T positions, P positions that are asked for, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.material import Question, TokenPrompt
from unlearn_ray.models import decoder, leading_ids, lm_head

CHUNK_LOGITS = 2**24  # logits that exist at one time: 64 MB of float32
PROMPTS_PER_BLOCK = 4  # prompts are short beside blocks, and a decoding step costs the same for more of them


@dataclass(frozen=True)
class TokenScores:
    """What a model makes of the tokens of one sequence, float64 [P], each given all before it: their log-probabilities,
    whether they are its likeliest token, and the mean and the standard deviation of the log-probability under its own
    next-token distribution.
    """

    logprobs_P: np.ndarray
    greedy_P: np.ndarray
    means_P: np.ndarray
    deviations_P: np.ndarray


@torch.inference_mode()
def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_tokens: int, batch_size: int
) -> list[str]:
    """Greedy completions of at most `max_tokens` tokens, without the prompts; they end at the model's end token.

    Prompts are padded on the left, so that all continue from the last column and share one KV cache.
    """
    sequences = _encode(tokenizer, prompts)
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
    sequences = _encode(tokenizer, prompts)
    head = lm_head(model)
    for rows in _batches(sequences, batch_size):
        hidden_BTH = decoder(model)(input_ids=_padded(sequences, rows, model.device)).last_hidden_state
        last_B = torch.tensor([len(sequences[row]) - 1 for row in rows], device=hidden_BTH.device)
        hidden_BH = hidden_BTH[torch.arange(len(rows), device=hidden_BTH.device), last_B]
        yield rows, head(hidden_BH).softmax(-1)


@torch.inference_mode()
def last_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    depths: Sequence[float],
    batch_size: int,
) -> np.ndarray:
    """The hidden states, float32 [N, len(depths), H], at the last token of each text, behind the layers at these shares
    of the model's depth."""
    sequences = _encode(tokenizer, texts)
    config = model.config.get_text_config()
    layers = [round(depth * config.num_hidden_layers) for depth in depths]
    states_NLH = np.zeros((len(texts), len(layers), config.hidden_size), dtype=np.float32)
    for rows in _batches(sequences, batch_size):
        ids_BT = _padded(sequences, rows, model.device)
        hidden = decoder(model)(input_ids=ids_BT, output_hidden_states=True).hidden_states
        for line, row in enumerate(rows):
            last = len(sequences[row]) - 1
            states_NLH[row] = torch.stack([hidden[layer][line, last].float().cpu() for layer in layers]).numpy()
    return states_NLH


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
    sequences, starts, leading = [], [], leading_ids(tokenizer)
    for question in questions:
        # Tokenised in one piece, since a tokenizer may treat the beginning of a text in its own way; a token that holds
        # the end of the prompt and the beginning of the answer counts as answer.
        encoded = tokenizer(question.prompt + question.answer, add_special_tokens=False, return_offsets_mapping=True)
        inside = sum(end <= len(question.prompt) for _, end in encoded["offset_mapping"])
        sequences.append(leading + encoded["input_ids"])
        starts.append(len(leading) + inside)
    logprobs = target_logprobs(model, sequences, starts, batch_size)
    return np.array([values.sum() for values in logprobs], dtype=np.float64)


def score_blocks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, blocks: Sequence[list[int]], batch_size: int
) -> list[TokenScores]:
    """For each block of token ids the scores of all its tokens behind the ids that lead every sequence."""
    leading = leading_ids(tokenizer)
    sequences = [leading + list(block) for block in blocks]
    scores = [TokenScores(*np.zeros((4, 0)))] * len(blocks)
    for row, pieces in _target_logits(model, sequences, [max(len(leading), 1)] * len(blocks), batch_size):
        found = [torch.stack(_scores(logits_PV, targets_P)) for logits_PV, targets_P in pieces]
        if found:
            scores[row] = TokenScores(*torch.cat(found, dim=1).double().cpu().numpy())
    return scores


def _scores(logits_PV: torch.Tensor, targets_P: torch.Tensor) -> list[torch.Tensor]:
    """The columns of TokenScores, float32 [P] each."""
    logprobs_PV = logits_PV.log_softmax(-1)
    weighted_PV = logprobs_PV.exp().mul_(logprobs_PV)
    means_P = weighted_PV.sum(-1)
    variances_P = weighted_PV.mul_(logprobs_PV).sum(-1) - means_P.square()
    greedy_P = (logits_PV.argmax(-1) == targets_P).float()
    return [logprobs_PV.gather(1, targets_P[:, None])[:, 0], greedy_P, means_P, variances_P.clamp(min=0).sqrt()]


def target_logprobs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], starts: Sequence[int], batch_size: int
) -> list[np.ndarray]:
    """For each sequence the log-probabilities, float64 [P], of its tokens from index `start` (>= 1) on, each given all
    before it."""
    out = [np.zeros(0)] * len(sequences)
    for row, pieces in _target_logits(model, sequences, starts, batch_size):
        found = [
            -torch.nn.functional.cross_entropy(logits_PV, targets_P, reduction="none")
            for logits_PV, targets_P in pieces
        ]
        if found:
            out[row] = torch.cat(found).double().cpu().numpy()
    return out


@torch.inference_mode()
def _target_logits(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], starts: Sequence[int], batch_size: int
) -> Iterator[tuple[int, Iterator[tuple[torch.Tensor, torch.Tensor]]]]:
    """Yields (index of the sequence, pairs of float32 logits [P, V] and the tokens [P] that follow there). Only
    positions from index `start` on go through the LM head, a chunk at a time: take the pairs one by one."""
    head = lm_head(model)
    chunk = max(1, CHUNK_LOGITS // model.config.get_text_config().vocab_size)
    for rows in _batches(sequences, batch_size):
        hidden_BTH = decoder(model)(input_ids=_padded(sequences, rows, model.device)).last_hidden_state
        for hidden_TH, row in zip(hidden_BTH, rows, strict=True):
            targets_P = torch.tensor(sequences[row][starts[row] :], device=hidden_BTH.device)
            hidden_PH = hidden_TH[starts[row] - 1 : len(sequences[row]) - 1]
            parts = zip(hidden_PH.split(chunk), targets_P.split(chunk), strict=True) if len(targets_P) else ()
            yield row, ((head(part_PH), part_P) for part_PH, part_P in parts)


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    leading = leading_ids(tokenizer)
    return [leading + tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


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
