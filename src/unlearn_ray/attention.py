"""Causal attention of whole sequences on CPUs, as products of matrices.

PyTorch's kernel there, without AMX, takes nearly half of a forward pass of 512 tokens in bfloat16, and more than twice
as long as this (docs/labelling.md). Registered with transformers under NAME.

Shapes: B sequences, N heads, M heads of keys and values with G = N / M of queries each, L = B x M,
T positions, D size of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "causal_on_cpu"
ROWS = 64  # positions whose scores exist at one time
ELSEWHERE = ("softcap", "position_bias", "cache")  # what only the attention of transformers can do


def causal_on_cpu(
    module: torch.nn.Module,
    query_BNTD: torch.Tensor,
    key_BMTD: torch.Tensor,
    value_BMTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """What sdpa_attention_forward gives [B, T, N, D], with scores in float32 or finer as there; for anything but whole
    causal sequences without gradients, on a CPU, that function itself.
    """
    T, D = query_BNTD.shape[2:]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    whole = causal and attention_mask is None and key_BMTD.shape[2] == T
    special = dropout > 0 or any(others.get(name) is not None for name in ELSEWHERE)
    if not whole or special or torch.is_grad_enabled() or query_BNTD.device.type != "cpu":
        options = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal} | others
        return sdpa_attention_forward(module, query_BNTD, key_BMTD, value_BMTD, attention_mask, **options)
    B, M, _, _ = key_BMTD.shape
    wide = torch.promote_types(query_BNTD.dtype, torch.float32)
    query_LGTD = query_BNTD.to(wide).reshape(B * M, -1, T, D)
    key_LDT = key_BMTD.to(wide).reshape(B * M, T, D).transpose(1, 2)
    value_LTD = value_BMTD.flatten(0, 1)
    later = torch.full((ROWS, ROWS), -torch.inf).triu_(1)
    nothing, alpha = query_LGTD.new_zeros(1), D**-0.5 if scaling is None else scaling
    out_LGTD = torch.empty(*query_LGTD.shape[:3], value_LTD.shape[2], dtype=value_LTD.dtype)
    with _products_in(query_BNTD.dtype):
        for start in range(0, T, ROWS):
            rows, seen = slice(start, start + ROWS), min(start + ROWS, T)
            query = query_LGTD[:, :, rows].flatten(1, 2)
            scores = torch.baddbmm(nothing, query, key_LDT[..., :seen], beta=0, alpha=alpha)
            scores.unflatten(1, (-1, seen - start))[..., start:] += later[: seen - start, : seen - start]
            shares = scores.softmax(dim=-1).to(value_LTD.dtype)
            out_LGTD[:, :, rows] = (shares @ value_LTD[:, :seen]).unflatten(1, (-1, seen - start))
    return out_LGTD.view(B, -1, T, out_LGTD.shape[-1]).transpose(1, 2), None


@contextmanager
def _products_in(dtype: torch.dtype) -> Iterator[None]:
    """Multiplies float32 values as what they are, bfloat16, where dtype says that; sums stay float32."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16" if dtype == torch.bfloat16 else before
    try:
        yield
    finally:
        settings.fp32_precision = before


AttentionInterface.register(NAME, causal_on_cpu)
AttentionMaskInterface.register(NAME, sdpa_mask)
