"""The usual ways to unlearn, written plainly, for benchmarks/quality.py.

Three losses in one bare training loop, and the paper's formula at inference time. Shapes: B blocks, T positions,
V vocabulary, H hidden size.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from types import SimpleNamespace

import torch
from torch.nn.functional import cross_entropy, logsigmoid
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from unlearn_ray.method.labels import IGNORED, gains, generic_logits
from unlearn_ray.models import compute_dtype, decoder, lm_head
from unlearn_ray.training.examples import endless_batches, training_batches
from unlearn_ray.training.loop import BETAS, TrainSettings, learning_rate_at

BETA = 0.1  # of NPO, as in its paper

Blocks = list[list[int]]
ForgetLoss = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def ascent(logprobs_B: torch.Tensor, reference_B: torch.Tensor, tokens: int) -> torch.Tensor:
    """Gradient ascent: minus the mean cross-entropy of the forget text, mean log p(token)   (Jang et al. 2023).

    With a retain term it is gradient difference (Liu et al. 2022; Maini et al. 2024).
    """
    return logprobs_B.sum() / tokens


def npo(logprobs_B: torch.Tensor, reference_B: torch.Tensor, tokens: int) -> torch.Tensor:
    """Negative preference optimisation: (2 / beta) mean log(1 + (p(block) / p_reference(block))^beta), where the
    reference is the model before unlearning   (Zhang et al. 2024, equation 3).
    """
    return -2 / BETA * logsigmoid(-BETA * (logprobs_B - reference_B)).mean()


def block_logprobs(model: PreTrainedModel, leading: Sequence[int], blocks: Blocks) -> tuple[torch.Tensor, int]:
    """The log-probability [B] of each block, and the number of tokens of all of them."""
    ids_BT = pad_sequence([torch.tensor([*leading, *block]) for block in blocks], True, IGNORED).to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, compute_dtype(model.device.type) == torch.bfloat16):
        logits_BTV = model(input_ids=ids_BT.clamp(min=0), use_cache=False).logits
    targets_BT = ids_BT[:, 1:]
    nll_BT = cross_entropy(logits_BTV[:, :-1].mT.float(), targets_BT, ignore_index=IGNORED, reduction="none")
    return -nll_BT.sum(1), int((targets_BT != IGNORED).sum())


def unlearn_by(
    loss_of: ForgetLoss,
    model: PreTrainedModel,
    leading: Sequence[int],
    forget: Blocks,
    retain: Blocks,
    settings: TrainSettings,
) -> None:
    """Trains `model` in place by a loss on the forget blocks and, with settings.retain_weight, the cross-entropy of the
    retain blocks: the batches, schedule and optimiser of training/loop.py.
    """
    with torch.no_grad():
        references = torch.cat([block_logprobs(model, leading, [block])[0] for block in forget])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=BETAS, weight_decay=0.0)
    batches = training_batches(len(forget), settings.global_batch, settings.epochs, settings.seed)
    held = islice(endless_batches(len(retain), settings.retain_batch, settings.seed), len(batches))
    model.train()
    for step, (rows, retained) in enumerate(zip(batches, held, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(batches), settings)
        logprobs_B, tokens = block_logprobs(model, leading, [forget[row] for row in rows])
        loss_of(logprobs_B, references[rows], tokens).backward()
        if settings.retain_weight:
            logprobs_B, tokens = block_logprobs(model, leading, [retain[row] for row in retained])
            (-settings.retain_weight * logprobs_B.sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


class InferenceFormula(torch.nn.Module):
    """v_baseline - alpha * ReLU(v_reinforced - v_baseline) on the same text at inference time: no anchors, no
    translation, two models in memory ("WHP" of the MUSE benchmark, Shi et al. 2024).

    It offers what scoring.py asks of a model; `head` stands for its lm_head.
    """

    base_model_prefix = "both"

    def __init__(self, baseline: PreTrainedModel, reinforced: PreTrainedModel, alpha: float):
        super().__init__()
        self.baseline, self.reinforced, self.alpha = baseline, reinforced, alpha
        self.heads = lm_head(baseline), lm_head(reinforced)
        self.config, self.generation_config, self.device = baseline.config, baseline.generation_config, baseline.device

    def both(self, input_ids: torch.Tensor) -> SimpleNamespace:
        """The hidden states of both models side by side, [B, T, 2 H]."""
        parts = [decoder(model)(input_ids=input_ids).last_hidden_state for model in (self.baseline, self.reinforced)]
        return SimpleNamespace(last_hidden_state=torch.cat(parts, -1))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        baseline, reinforced = (head(part) for head, part in zip(self.heads, hidden.chunk(2, -1), strict=True))
        return generic_logits(baseline, gains(reinforced, baseline), self.alpha)

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options) -> torch.Tensor:
        formula = _Formula(self.reinforced, attention_mask, self.alpha)
        return self.baseline.generate(
            input_ids, attention_mask=attention_mask, logits_processor=LogitsProcessorList([formula]), **options
        )


class _Formula(LogitsProcessor):
    """The formula on the last position, while the baseline generates; the second model has a KV cache of its own."""

    def __init__(self, reinforced: PreTrainedModel, mask_BT: torch.Tensor, alpha: float):
        self.reinforced, self.mask_BT, self.alpha, self.cache = reinforced, mask_BT, alpha, None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new_BT = input_ids if self.cache is None else input_ids[:, -1:]
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, input_ids.shape[1] - self.mask_BT.shape[1]), value=1)
        output = self.reinforced(
            input_ids=new_BT,
            attention_mask=self.mask_BT,
            position_ids=(self.mask_BT.cumsum(1) - 1).clamp(min=0)[:, -new_BT.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = output.past_key_values
        return generic_logits(scores, gains(output.logits[:, -1].float(), scores), self.alpha)
