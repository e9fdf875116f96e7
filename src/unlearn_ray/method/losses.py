"""The one training loss: cross-entropy against a distribution of which the most probable tokens are known.

Shapes: P trained positions, S tokens of a target, V vocabulary, H hidden size.
"""

import torch
from torch.utils.checkpoint import checkpoint

from unlearn_ray.method.labels import Head


def divergence(logits_PV: torch.Tensor, ids_PS: torch.Tensor, probs_PS: torch.Tensor) -> torch.Tensor:
    """KL(target || model) for each of P positions, in nats.

    The target gives probs_PS to the tokens ids_PS and what lacks to 1 to all others together, so the model's tail is
    held to the target's mass instead of being renormalised away. A hard label is the case S = 1, probability 1, where
    this is the ordinary cross-entropy. Entries with probability 0 are padding.
    """
    logprobs_PS = logits_PV.gather(1, ids_PS) - logits_PV.logsumexp(dim=1, keepdim=True)
    used_PS = probs_PS > 0
    rest_P = (1 - probs_PS.sum(dim=1)).clamp(min=0)
    model_rest_P = (1 - torch.where(used_PS, logprobs_PS.exp(), 0).sum(dim=1)).clamp(min=1e-6)
    cross_entropy_P = -(probs_PS * logprobs_PS).sum(dim=1) - rest_P * model_rest_P.log()
    return cross_entropy_P + torch.xlogy(probs_PS, probs_PS).sum(dim=1) + torch.xlogy(rest_P, rest_P)


def chunked_divergence(
    hidden_PH: torch.Tensor,
    head: Head,
    ids_PS: torch.Tensor,
    probs_PS: torch.Tensor,
    weights_P: torch.Tensor,
    *,
    chunk: int = 1024,
) -> torch.Tensor:
    """The weighted sum of `divergence`, `chunk` positions at a time; backward computes a chunk's logits again instead
    of keeping them, so that no more than [chunk, V] of them ever exist.
    """

    def one(
        hidden_PH: torch.Tensor, ids_PS: torch.Tensor, probs_PS: torch.Tensor, weights_P: torch.Tensor
    ) -> torch.Tensor:
        return (weights_P * divergence(head(hidden_PH).float(), ids_PS, probs_PS)).sum()

    parts = zip(*(part.split(chunk) for part in (hidden_PH, ids_PS, probs_PS, weights_P)), strict=True)
    sums = [checkpoint(one, *part, use_reentrant=False) for part in parts]
    return (
        torch.stack(sums).sum() if sums else hidden_PH.sum() * 0
    )  # a rank without positions still takes part in backward
