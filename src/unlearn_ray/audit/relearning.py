"""How fast does the knowledge come back by fine-tuning, on a part of the forget set or on harmless text about it?

A model that never knew it needs as long as the text teaches it; one that only hides it recovers in a few steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.audit.questions import Asked, ask
from unlearn_ray.evaluation import Readings
from unlearn_ray.models import leading_ids
from unlearn_ray.training.examples import endless_batches, text_example
from unlearn_ray.training.loop import LossModel

RANK = 16
MICRO_BATCH = 4  # blocks whose activations are kept at one time


def ask_relearning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    *,
    texts: Mapping[str, tuple[Sequence[Sequence[int]], Asked]],
    steps: Sequence[int],
    learning_rate: float,
    blocks: int,
    seed: int,
) -> Readings:
    """Conditions "NAME, step N": a LoRA adapter on all linear layers, trained with AdamW on `blocks` blocks a step.

    texts: name -> (the blocks to train on, what is asked); completions are left out, which would take most of the time.
    An adapter leaves the weights alone, so that the next attack finds the model as it was, and it fits beside any model
    that can be scored.
    """
    readings = {}
    for name, (trained, whole) in texts.items():
        asked = replace(whole, completion=[])
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            adapted = PeftModel(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))  # type: ignore[arg-type]
        try:
            loss = LossModel(adapted, leading_ids(tokenizer))
            weights = [weight for weight in adapted.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
            batches = endless_batches(len(trained), min(blocks, len(trained)), seed)
            for step in range(max(steps) + 1):
                if step in steps:
                    readings |= ask(model, tokenizer, batch_size, asked=asked, condition=f"{name}, step {step}")
                if step < max(steps):
                    _train(loss, [trained[row] for row in next(batches)], optimizer, weights)
        finally:
            adapted.unload()
            model.requires_grad_(True)
    return readings


def _train(loss: LossModel, blocks: Sequence[Sequence[int]], optimizer: torch.optim.Optimizer, weights: list) -> None:
    """One step on the mean loss of all tokens."""
    examples = [text_example({"block_id": 0, "input_ids": np.asarray(block)}) for block in blocks]
    tokens = sum(len(example.positions_P) for example in examples)
    for start in range(0, len(examples), MICRO_BATCH):
        part = examples[start : start + MICRO_BATCH]
        loss(part, [1 / tokens] * len(part)).backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad()
