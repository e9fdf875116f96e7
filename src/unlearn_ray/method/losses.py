"""The one training loss: cross-entropy against a distribution of which the most probable tokens are known.

Shapes: P trained positions, S tokens of a target, V vocabulary, H hidden size.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from unlearn_ray.method.labels import CPU_ROWS

LOSS_CHUNK = 1024  # positions whose logits exist at one time
LEAST_REST = 1e-6  # the smallest probability of all other tokens together that is told apart from none


def divergence(logits_PV: torch.Tensor, ids_PS: torch.Tensor, probs_PS: torch.Tensor) -> torch.Tensor:
    """KL(target || model) for each of P positions, in nats.

    The target gives probs_PS to the tokens ids_PS and what lacks to 1 to all others together, so the model's tail is
    held to the target's mass instead of being renormalised away. A hard label is the case S = 1, probability 1, where
    this is the ordinary cross-entropy. Entries with probability 0 are padding.
    """
    return _divergence(logits_PV.gather(1, ids_PS) - logits_PV.logsumexp(dim=1, keepdim=True), probs_PS)


def _divergence(logprobs_PS: torch.Tensor, probs_PS: torch.Tensor) -> torch.Tensor:
    used_PS = probs_PS > 0
    rest_P = (1 - probs_PS.sum(dim=1)).clamp(min=0)
    model_rest_P = (1 - torch.where(used_PS, logprobs_PS.exp(), 0).sum(dim=1)).clamp(min=LEAST_REST)
    cross_entropy_P = -(probs_PS * logprobs_PS).sum(dim=1) - rest_P * model_rest_P.log()
    return cross_entropy_P + torch.xlogy(probs_PS, probs_PS).sum(dim=1) + torch.xlogy(rest_P, rest_P)


def divergence_gradient(logprobs_PV: torch.Tensor, ids_PS: torch.Tensor, probs_PS: torch.Tensor) -> torch.Tensor:
    """The derivative of `divergence` by the logits, written over their log-probabilities.

    With q the model's probabilities, p the target's on the tokens s, and r and m the rests of both:
    q_v (sum p_s - r/m sum q_s) for every v, and -p_s + r/m q_s more for the tokens of the target.
    """
    q_PV = logprobs_PV.exp_()
    q_PS = torch.where(probs_PS > 0, q_PV.gather(1, ids_PS), 0)
    rest_P, model_rest_P = (1 - probs_PS.sum(dim=1)).clamp(min=0), 1 - q_PS.sum(dim=1)
    ratio_P1 = torch.where(model_rest_P > LEAST_REST, rest_P / model_rest_P, 0)[:, None]
    q_PV.mul_(probs_PS.sum(dim=1, keepdim=True) - ratio_P1 * q_PS.sum(dim=1, keepdim=True))
    return q_PV.scatter_add_(1, ids_PS, ratio_P1 * q_PS - probs_PS)


@dataclass(frozen=True)
class OutputLayer:
    """What gives logits: z = scale x (hidden @ weight_VH.T + bias_V), and where there is a cap, cap x tanh(z / cap)."""

    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None = None
    scale: float = 1.0
    cap: float | None = None


def linear_divergence(
    hidden_PH: torch.Tensor,
    layer: OutputLayer,
    ids_PS: torch.Tensor,
    probs_PS: torch.Tensor,
    weights_P: torch.Tensor,
    *,
    chunk: int = LOSS_CHUNK,
) -> torch.Tensor:
    """The sum of weights_P x `divergence` over the logits of `layer`, of which no more than `chunk` positions ever
    exist.

    Gradients are computed along with the loss, chunk by chunk, so that the backward pass needs no logits, neither kept
    nor computed again: the idea of Liger's fused linear cross-entropy, here for soft labels as well, and on any
    hardware. Products are in the dtype of autocast where that is on.
    """
    if torch.is_autocast_enabled(hidden_PH.device.type):
        hidden_PH = hidden_PH.to(torch.get_autocast_dtype(hidden_PH.device.type))
    targets = ids_PS, probs_PS, weights_P
    return _LinearDivergence.apply(hidden_PH, layer.weight_VH, layer.bias_V, (layer.scale, layer.cap), targets, chunk)  # type: ignore[return-value]


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_PH, weight_VH, bias_V, shape, targets, chunk):
        wide = torch.promote_types(hidden_PH.dtype, torch.float32)
        used_VH = weight_VH.to(hidden_PH.dtype)
        hidden_grad = torch.empty_like(hidden_PH)
        weight_grad = torch.zeros_like(weight_VH, dtype=wide) if ctx.needs_input_grad[1] else None
        bias_grad = torch.zeros_like(bias_V, dtype=wide) if ctx.needs_input_grad[2] else None
        total = torch.zeros((), dtype=wide, device=hidden_PH.device)
        with torch.autocast(hidden_PH.device.type, enabled=False):
            for start in range(0, len(hidden_PH), chunk):
                part = slice(start, start + chunk)
                logits_PV = hidden_PH[part] @ used_VH.t()
                total += _into_gradient(logits_PV, bias_V, shape, [target[part] for target in targets])
                torch.mm(logits_PV, used_VH, out=hidden_grad[part])
                if weight_grad is not None:
                    weight_grad += logits_PV.t() @ hidden_PH[part]
                if bias_grad is not None:
                    bias_grad += logits_PV.sum(dim=0, dtype=wide)
        ctx.gradients = hidden_grad, weight_grad, bias_grad
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, outer):
        gradients, ctx.gradients = ctx.gradients, None
        return *(None if gradient is None else gradient.mul_(outer) for gradient in gradients), None, None, None


def _into_gradient(logits_PV, bias_V, shape, targets) -> torch.Tensor:
    """The loss of one chunk; its logits, as the product gave them, become their own gradient."""
    scale, cap = shape
    rows = CPU_ROWS if logits_PV.device.type == "cpu" else len(logits_PV)
    total = 0.0
    for product_RV, ids_RS, probs_RS, weights_R in zip(*(x.split(rows) for x in (logits_PV, *targets)), strict=True):
        z_RV = product_RV.to(torch.promote_types(product_RV.dtype, torch.float32), copy=True)
        if bias_V is not None:
            z_RV += bias_V
        z_RV *= scale
        slope = scale * weights_R[:, None]
        if cap is not None:
            bend_RV = torch.tanh(z_RV.div_(cap))
            z_RV = cap * bend_RV
            slope = slope * (1 - bend_RV.square())
        logprobs_RV = z_RV.sub_(z_RV.logsumexp(dim=1, keepdim=True))
        total += (weights_R * _divergence(logprobs_RV.gather(1, ids_RS), probs_RS)).sum()
        product_RV.copy_(divergence_gradient(logprobs_RV, ids_RS, probs_RS).mul_(slope))
    return torch.as_tensor(total)
