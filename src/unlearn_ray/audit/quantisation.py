"""Does rounding the weights bring the knowledge back? Zhang et al. 2024 ("Catastrophic failure of LLM unlearning via
quantization") found that it does where unlearning moved the weights by less than the rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.audit.questions import Asked, ask
from unlearn_ray.evaluation import Readings
from unlearn_ray.models import decoder

GROUP = 128  # weights of a row that share a scale, as in the usual 4-bit formats


def ask_quantised(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, batch_size: int, *, asked: Asked, bits: Sequence[int]
) -> Readings:
    """One condition a width."""
    readings = {}
    for width in bits:
        with quantised(model, width):
            readings |= ask(model, tokenizer, batch_size, asked=asked, condition=f"{width} bits")
    return readings


@contextmanager
def quantised(model: PreTrainedModel, bits: int) -> Iterator[None]:
    """The linear layers of the decoder rounded; embeddings and LM head stay as they are, as in the usual formats."""
    layers = [layer for layer in decoder(model).modules() if isinstance(layer, torch.nn.Linear)]
    originals = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = round_to_nearest(layer.weight.data, bits)
        yield
    finally:
        for layer, weights_OI in zip(layers, originals, strict=True):
            layer.weight.data = weights_OI


def round_to_nearest(weights_OI: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric round-to-nearest: in each group of GROUP inputs of an output the largest weight is 2^(bits - 1) - 1
    steps from 0. Returns the dequantised weights in their own dtype.
    """
    outputs, inputs = weights_OI.shape
    padded = torch.nn.functional.pad(weights_OI.float(), (0, -inputs % GROUP)).view(outputs, -1, GROUP)
    most = 2 ** (bits - 1) - 1
    step = padded.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / most
    rounded = (padded / step).round().clamp(-most, most) * step
    return rounded.view(outputs, -1)[:, :inputs].to(weights_OI)
