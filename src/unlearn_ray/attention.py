"""Causal attention of whole sequences on CPUs, as products of matrices.

PyTorch's kernel there, without AMX, takes nearly half of a forward pass of 512 tokens in bfloat16, and twice as long as
this (docs/labelling.md). Registered with transformers under NAME.

Shapes: B sequences, N heads, M heads of keys and values, T positions, D size of a head.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
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
    groups = query_BNTD.shape[1] // key_BMTD.shape[1]
    wide = torch.promote_types(query_BNTD.dtype, torch.float32)
    query_BNTD = query_BNTD.to(wide) * (D**-0.5 if scaling is None else scaling)
    key_BNDT = repeat_kv(key_BMTD.to(wide), groups).transpose(2, 3)
    value_BNTD = repeat_kv(value_BMTD, groups)
    later = torch.full((ROWS, ROWS), -torch.inf).triu_(1)
    out_BTND = value_BNTD.new_empty(len(value_BNTD), T, value_BNTD.shape[1], value_BNTD.shape[3])
    for start in range(0, T, ROWS):
        rows, seen = slice(start, start + ROWS), min(start + ROWS, T)
        scores = query_BNTD[:, :, rows] @ key_BNDT[..., :seen]
        scores[..., start:] += later[: seen - start, : seen - start]
        shares = scores.softmax(dim=-1).to(value_BNTD.dtype)
        out_BTND[:, rows] = (shares @ value_BNTD[:, :, :seen]).transpose(1, 2)
    return out_BTND, None


AttentionInterface.register(NAME, causal_on_cpu)
AttentionMaskInterface.register(NAME, sdpa_mask)
