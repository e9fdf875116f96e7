"""Generic labels: what a model that never read the forget set would predict next (METHOD.md, "The pipeline", step 3).

Shapes: T positions, V vocabulary, K alphas, S tokens of a soft label, H hidden size, N substitutions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

CHUNK = 256  # positions whose logits exist at one time
CPU_ROWS = 32  # of them, how many a CPU works on at one time: in the cache, not in memory
NAMEABLE = 0.005  # the baseline's probability of all anchor tokens together from which on an anchor could be named
LEAST_LOGPROB = -80.0  # of a token in a soft label: a probability of 0 in float32 would be none
IGNORED = -100  # the label of a position that is not trained, by the transformers convention

Head = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Substitutions:
    """Changes to v_baseline for anchors that have already occurred: one entry a position, anchor and written form.

    rows_N: the position; generic_ids_N: first token of the generic translation; anchor_ids_N: the anchor's own first
    token in the same form, or -1 where nothing is given back (`consistency: paper`).
    """

    rows_N: np.ndarray
    generic_ids_N: np.ndarray
    anchor_ids_N: np.ndarray


@dataclass(frozen=True)
class AnchorTokens:
    """Where anchors are named, at T positions, and the J tokens that can begin one.

    ids_J: the tokens; allowed_from_J: the position from which each may be predicted; next_T: the positions whose next
    token belongs to an anchor; inside_T: those of them that are inside it.
    """

    ids_J: np.ndarray
    allowed_from_J: np.ndarray
    next_T: np.ndarray
    inside_T: np.ndarray


@dataclass(frozen=True)
class GenericLabels:
    """Labels of T positions, on the device that computed them. baseline_prob_T and the soft labels belong to the first
    alpha.

    A soft label has the label's best token and those most probable to either model, S in all, the most probable of the
    label first. So it also names what it takes away: a token that was left to the mass of all others could keep a part
    of that mass. The log-probabilities are those of the whole distribution, not renormalised: what they lack to 1 is
    the mass of all other tokens.
    """

    labels_KT: torch.Tensor  # int32
    baseline_prob_T: torch.Tensor  # float32
    topk_ids_TS: torch.Tensor  # int32
    topk_logprobs_TS: torch.Tensor  # float32


def gains(v_reinforced_TV: torch.Tensor, v_baseline_TV: torch.Tensor) -> torch.Tensor:
    """ReLU(v_reinforced - v_baseline)."""
    return torch.sub(v_reinforced_TV, v_baseline_TV).relu_()


def generic_logits(v_baseline_TV: torch.Tensor, gains_TV: torch.Tensor, alpha: float) -> torch.Tensor:
    """v_generic = v_baseline - alpha * ReLU(v_reinforced - v_baseline)   (Eldan & Russinovich 2023, equation 1)."""
    return torch.sub(v_baseline_TV, gains_TV, alpha=alpha)


def substitute(
    v_baseline_TV: torch.Tensor, rows_N: torch.Tensor, generic_ids_N: torch.Tensor, anchor_ids_N: torch.Tensor
) -> torch.Tensor:
    """v_baseline after anchors have occurred: the generic translation's token falls to the position's mean logit, and
    what it had goes back to the anchor's token, if that is more than the anchor had (anchor_ids -1: is not given back).

    All values are read before any is written, so that the order of the anchors does not matter; where several go back
    to one token the largest counts. Returns a new tensor.
    """
    out_TV = v_baseline_TV.clone()
    out_TV[rows_N, generic_ids_N] = v_baseline_TV.mean(dim=1)[rows_N]
    # What is not given back goes nowhere as the largest of what is there and -inf: to pick it out, a GPU would have to
    # be waited for.
    back = anchor_ids_N >= 0
    to_N = torch.where(back, anchor_ids_N, generic_ids_N)
    moved_N = torch.maximum(v_baseline_TV[rows_N, generic_ids_N], v_baseline_TV[rows_N, to_N])
    moved_N = moved_N.masked_fill(~back, -torch.inf)
    out_TV.view(-1).scatter_reduce_(0, rows_N * out_TV.shape[1] + to_N, moved_N, reduce="amax")
    return out_TV


def forbid_(v_TV: torch.Tensor, ids_J: torch.Tensor, allowed_TJ: torch.Tensor) -> None:
    """The tokens ids_J fall to the position's mean logit where they are not allowed, in place."""
    v_TV[:, ids_J] = torch.where(allowed_TJ, v_TV[:, ids_J], v_TV.mean(dim=1, keepdim=True))


def soft_labels(v_TV: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids, int32, and log-probabilities [T, S] of the top_k most probable tokens."""
    top_TS, ids_TS = v_TV.topk(top_k, dim=1)
    return ids_TS.int(), top_TS - v_TV.logsumexp(dim=1, keepdim=True)


def told_labels(
    larger_TV: torch.Tensor,
    v_changed_TV: torch.Tensor,
    v_reinforced_TV: torch.Tensor,
    labels_T: torch.Tensor,
    logsumexp_T: torch.Tensor,
    alpha: float,
    top_k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft labels: the label itself, and the largest of both models' logits, larger_TV, which is written over.
    logsumexp_T: of the generic logits.
    """
    ids_TS = larger_TV.scatter_(1, labels_T[:, None].long(), torch.inf).topk(top_k, dim=1).indices
    changed_TS, reinforced_TS = v_changed_TV.gather(1, ids_TS), v_reinforced_TV.gather(1, ids_TS)
    logits_TS = generic_logits(changed_TS, gains(reinforced_TS, changed_TS), alpha)
    return sorted_labels(ids_TS, logits_TS - logsumexp_T[:, None])


def sorted_labels(ids_TS: torch.Tensor, logprobs_TS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of soft labels and their log-probabilities, the most probable first."""
    logprobs_TS, order_TS = logprobs_TS.clamp(min=LEAST_LOGPROB).sort(dim=1, descending=True, stable=True)
    return ids_TS.gather(1, order_TS).int(), logprobs_TS


def best_labels(
    v_baseline_TV: torch.Tensor,
    v_changed_TV: torch.Tensor,
    v_reinforced_TV: torch.Tensor,
    alphas: Sequence[float],
    top_k: int,
) -> GenericLabels:
    """The labels of some positions from their logits: v_baseline as the model gave it, and as `substitute` and
    `forbid_` left it. What fused.best_labels computes in one pass on a GPU, operation by operation.
    """
    gains_TV = gains(v_reinforced_TV, v_changed_TV)
    labels_KT, (topk_ids_TS, topk_logprobs_TS) = [], no_soft_labels(v_changed_TV)
    for alpha in alphas:
        v_generic_TV = generic_logits(v_changed_TV, gains_TV, alpha)
        labels_KT.append(v_generic_TV.argmax(dim=1))
        if alpha == alphas[0] and top_k:
            larger_TV = torch.maximum(v_changed_TV, v_reinforced_TV)
            topk_ids_TS, topk_logprobs_TS = told_labels(
                larger_TV, v_changed_TV, v_reinforced_TV, labels_KT[0], v_generic_TV.logsumexp(dim=1), alpha, top_k
            )
    baseline_prob_T = v_baseline_TV.softmax(dim=1).gather(1, labels_KT[0][:, None])[:, 0]
    return GenericLabels(torch.stack(labels_KT).int(), baseline_prob_T, topk_ids_TS, topk_logprobs_TS)


def cap_own_token(labels: GenericLabels, own_T: torch.Tensor, cap: float) -> GenericLabels:
    """Soft labels that give own_T, the text's own next tokens, a probability of at most `cap`; what a token loses all
    others gain in proportion, those that the label does not name too. Hard labels are left as they are.
    """
    logprobs_TS, own_TS = labels.topk_logprobs_TS, labels.topk_ids_TS == own_T[:, None]
    probs_TS = logprobs_TS.exp()
    own_prob_T1 = (probs_TS * own_TS).sum(dim=1, keepdim=True)
    others_T1 = torch.maximum(1 - own_prob_T1, (probs_TS * ~own_TS).sum(dim=1, keepdim=True))
    shared_TS = torch.where(own_TS, math.log(cap), logprobs_TS + math.log1p(-cap) - others_T1.log())
    ids_TS, logprobs_TS = sorted_labels(labels.topk_ids_TS, torch.where(own_prob_T1 > cap, shared_TS, logprobs_TS))
    return replace(labels, topk_ids_TS=ids_TS, topk_logprobs_TS=logprobs_TS)


def no_soft_labels(v_TV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft labels of no tokens."""
    return v_TV.new_empty((len(v_TV), 0), dtype=torch.int32), v_TV.new_empty((len(v_TV), 0))


def on_device(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values as a tensor there, without waiting for the work that a GPU has been given before."""
    tensor = torch.as_tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@torch.no_grad()
def label_positions(
    hidden_baseline_TH: torch.Tensor,
    hidden_reinforced_TH: torch.Tensor,
    baseline_head: Head,
    reinforced_head: Head,
    alphas: Sequence[float],
    substitutions: Substitutions,
    anchors: AnchorTokens,
    *,
    hidden_original_TH: torch.Tensor | None = None,
    anchor_head: Head | None = None,
    top_k: int = 0,
    chunk: int = CHUNK,
) -> GenericLabels:
    """The generic labels of T positions, for every alpha from the same logits.

    hidden_baseline_TH: the baseline on the translated text (inside an anchor, on the original), row t aligned with row
    t of the reinforced model; the rows of `substitutions` count likewise and ascend. Works through `chunk` positions
    at a time, so that logits are never whole: at most about four float32 [chunk, V] tensors exist at once.

    With hidden_original_TH (the baseline on the original text) and anchor_head (the columns ids_J of the reinforced
    head) everything happens at the anchors alone: positions where none can be named keep the baseline's prediction on
    the original text, and outside anchors only the gains of ids_J are penalised. The rest of what the reinforced model
    gains is the author's style, and a model that is pushed away from that forgets how to write.
    """
    device = hidden_baseline_TH.device
    if device.type == "cuda":
        from unlearn_ray.method.fused import best_labels as best  # Triton comes with PyTorch for GPUs alone

        rows_at_once = chunk
    else:
        best, rows_at_once = best_labels, CPU_ROWS
    rows_N, generic_ids_N, anchor_ids_N = (
        on_device(np.asarray(part, np.int64), device)
        for part in (substitutions.rows_N, substitutions.generic_ids_N, substitutions.anchor_ids_N)
    )
    ids_J, allowed_from_J = on_device(anchors.ids_J, device), on_device(anchors.allowed_from_J, device)
    next_T, inside_T = on_device(anchors.next_T, device), on_device(anchors.inside_T, device)

    def label_chunk(start: int) -> list[GenericLabels]:
        rows = slice(start, start + chunk)
        n = slice(*np.searchsorted(substitutions.rows_N, [start, start + chunk]))
        changes = (rows_N[n] - start, generic_ids_N[n], anchor_ids_N[n])
        if hidden_original_TH is None:
            v_baseline_TV = baseline_head(hidden_baseline_TH[rows])
        else:
            v_baseline_TV = baseline_head(hidden_original_TH[rows])
            nameable_T = _probability(v_baseline_TV, ids_J) >= NAMEABLE
            changed_T = next_T[rows] | nameable_T
            v_baseline_TV[changed_T] = baseline_head(hidden_baseline_TH[rows][changed_T])
            applies_N = changed_T[changes[0]]
            changes = tuple(part[applies_N] for part in changes)
        v_changed_TV = substitute(v_baseline_TV, *changes)
        if anchors.allowed_from_J.any():
            allowed_TJ = torch.arange(start, start + len(v_changed_TV), device=device)[:, None] >= allowed_from_J
            forbid_(v_changed_TV, ids_J, allowed_TJ)
        reinforced_TH = hidden_reinforced_TH[rows]
        if anchor_head is None:
            v_reinforced_TV = reinforced_head(reinforced_TH)
        else:
            v_reinforced_TV = v_changed_TV.clone()  # no gain, but for
            v_reinforced_TV[:, ids_J] = anchor_head(reinforced_TH)
            inside = inside_T[rows]
            v_reinforced_TV[inside] = reinforced_head(reinforced_TH[inside])
        parts = zip(*(v_TV.split(rows_at_once) for v_TV in (v_baseline_TV, v_changed_TV, v_reinforced_TV)), strict=True)
        return [best(baseline, changed, reinforced, alphas, top_k) for baseline, changed, reinforced in parts]

    # A function of its own, so that the logits of one chunk are gone before those of the next are made.
    parts = [part for start in range(0, len(hidden_baseline_TH), chunk) for part in label_chunk(start)]
    if not parts:
        nothing_T = hidden_baseline_TH.new_empty(0, dtype=torch.float32)
        nothing_TS = nothing_T.new_empty((0, top_k))
        return GenericLabels(nothing_T.new_empty((len(alphas), 0)).int(), nothing_T, nothing_TS.int(), nothing_TS)
    return GenericLabels(
        torch.cat([part.labels_KT for part in parts], dim=1),
        torch.cat([part.baseline_prob_T for part in parts]),
        torch.cat([part.topk_ids_TS for part in parts]),
        torch.cat([part.topk_logprobs_TS for part in parts]),
    )


def _probability(v_TV: torch.Tensor, ids_J: torch.Tensor) -> torch.Tensor:
    return (v_TV[:, ids_J].logsumexp(dim=1) - v_TV.logsumexp(dim=1)).exp()
