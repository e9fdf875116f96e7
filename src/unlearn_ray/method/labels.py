"""Generic labels: what a model that never read the forget set would predict next (METHOD.md, "The pipeline", step 3).

Shapes: T positions, V vocabulary, K alphas, S most probable tokens of a soft label, H hidden size, N substitutions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 256  # positions whose logits exist at one time
CPU_ROWS = 32  # of them, how many a CPU works on at one time: in the cache, not in memory
NAMEABLE = 0.005  # the baseline's probability of all anchor tokens together from which on an anchor could be named
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
    """Labels of T positions. baseline_prob_T and the soft labels belong to the first alpha.

    The log-probabilities of a soft label are those of the whole distribution, not renormalised over its S tokens: what
    they lack to 1 is the mass of all other tokens.
    """

    labels_KT: np.ndarray  # int32
    baseline_prob_T: np.ndarray  # float32
    topk_ids_TS: np.ndarray  # int32
    topk_logprobs_TS: np.ndarray  # float32


def gains_(v_reinforced_TV: torch.Tensor, v_baseline_TV: torch.Tensor) -> torch.Tensor:
    """ReLU(v_reinforced - v_baseline), in the place of v_reinforced: a [T, V] tensor more would cost as much again."""
    return v_reinforced_TV.sub_(v_baseline_TV).relu_()


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
    back = anchor_ids_N >= 0
    rows, anchors, generics = rows_N[back], anchor_ids_N[back], generic_ids_N[back]
    cells = rows * out_TV.shape[1] + anchors
    moved = torch.maximum(v_baseline_TV[rows, generics], v_baseline_TV[rows, anchors])
    out_TV.view(-1).scatter_reduce_(0, cells, moved, reduce="amax")
    return out_TV


def forbid_(v_TV: torch.Tensor, ids_J: torch.Tensor, allowed_TJ: torch.Tensor) -> None:
    """The tokens ids_J fall to the position's mean logit where they are not allowed, in place."""
    v_TV[:, ids_J] = torch.where(allowed_TJ, v_TV[:, ids_J], v_TV.mean(dim=1, keepdim=True))


def soft_labels(v_TV: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids and log-probabilities [T, S] of the top_k most probable tokens."""
    top_TS, ids_TS = v_TV.topk(top_k, dim=1)
    return ids_TS, top_TS - v_TV.logsumexp(dim=1, keepdim=True)


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
    rows_N, generic_ids_N, anchor_ids_N = (
        torch.as_tensor(part, dtype=torch.long, device=device)
        for part in (substitutions.rows_N, substitutions.generic_ids_N, substitutions.anchor_ids_N)
    )
    ids_J = torch.as_tensor(anchors.ids_J, dtype=torch.long, device=device)
    next_T, inside_T = (torch.as_tensor(part, device=device) for part in (anchors.next_T, anchors.inside_T))
    rows_at_once = CPU_ROWS if device.type == "cpu" else chunk

    def label_chunk(start: int) -> list[tuple[np.ndarray, ...]]:
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
            allowed_TJ = np.arange(start, start + len(v_changed_TV))[:, None] >= anchors.allowed_from_J
            forbid_(v_changed_TV, ids_J, torch.as_tensor(allowed_TJ, device=device))
        reinforced_TH = hidden_reinforced_TH[rows]
        if anchor_head is None:
            gains_TV = gains_(reinforced_head(reinforced_TH), v_changed_TV)
        else:
            inside = inside_T[rows]
            gains_TV = torch.zeros_like(v_changed_TV)
            gains_TV[:, ids_J] = gains_(anchor_head(reinforced_TH), v_changed_TV[:, ids_J])
            gains_TV[inside] = gains_(reinforced_head(reinforced_TH[inside]), v_changed_TV[inside])
        split = (v_TV.split(rows_at_once) for v_TV in (v_baseline_TV, v_changed_TV, gains_TV))
        return [_label_rows(*some_RV, alphas=alphas, top_k=top_k) for some_RV in zip(*split, strict=True)]

    # A function of its own, so that the logits of one chunk are gone before those of the next are made.
    parts = [part for start in range(0, len(hidden_baseline_TH), chunk) for part in label_chunk(start)]
    if not parts:
        empty = np.zeros((0, top_k), np.int32)
        return GenericLabels(
            np.zeros((len(alphas), 0), np.int32), np.zeros(0, np.float32), empty, empty.astype(np.float32)
        )
    labels, probs, ids, logprobs = zip(*parts, strict=True)
    return GenericLabels(
        np.concatenate(labels, 1), np.concatenate(probs), np.concatenate(ids), np.concatenate(logprobs)
    )


def _probability(v_TV: torch.Tensor, ids_J: torch.Tensor) -> torch.Tensor:
    return (v_TV[:, ids_J].logsumexp(dim=1) - v_TV.logsumexp(dim=1)).exp()


def _label_rows(
    v_baseline_TV: torch.Tensor,
    v_changed_TV: torch.Tensor,
    gains_TV: torch.Tensor,
    *,
    alphas: Sequence[float],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    soft_ids_TS = soft_logprobs_TS = torch.empty((len(v_baseline_TV), 0))
    labels_KT = []
    for alpha in alphas:
        v_generic_TV = generic_logits(v_changed_TV, gains_TV, alpha)
        labels_KT.append(v_generic_TV.argmax(dim=1))
        if alpha == alphas[0] and top_k:
            soft_ids_TS, soft_logprobs_TS = soft_labels(v_generic_TV, top_k)
    chosen_T = v_baseline_TV.gather(1, labels_KT[0][:, None])[:, 0]
    baseline_prob_T = (chosen_T - v_baseline_TV.logsumexp(dim=1)).exp()
    return (
        torch.stack(labels_KT).cpu().numpy().astype(np.int32),
        baseline_prob_T.cpu().numpy(),
        soft_ids_TS.cpu().numpy().astype(np.int32),
        soft_logprobs_TS.cpu().numpy(),
    )
