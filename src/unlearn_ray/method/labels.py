"""Generic labels: what a model that never read the forget set would predict next (METHOD.md, "The pipeline", step 3).

Shapes: T positions, V vocabulary, K alphas, S most probable tokens of a soft label, H hidden size, N substitutions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 256  # positions whose logits exist at one time
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
class GenericLabels:
    """Labels of T positions. baseline_prob_T and the soft labels belong to the first alpha.

    The log-probabilities of a soft label are those of the whole distribution, not renormalised over its S tokens: what
    they lack to 1 is the mass of all other tokens.
    """

    labels_KT: np.ndarray  # int32
    baseline_prob_T: np.ndarray  # float32
    topk_ids_TS: np.ndarray  # int32
    topk_logprobs_TS: np.ndarray  # float32


def generic_logits(v_baseline_TV: torch.Tensor, v_reinforced_TV: torch.Tensor, alpha: float) -> torch.Tensor:
    """v_generic = v_baseline - alpha * ReLU(v_reinforced - v_baseline)   (Eldan & Russinovich 2023, equation 1)."""
    return v_baseline_TV - alpha * torch.relu(v_reinforced_TV - v_baseline_TV)


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
    *,
    top_k: int = 0,
    penalised_ids: Sequence[int] | None = None,
    inside_T: np.ndarray | None = None,
    chunk: int = CHUNK,
) -> GenericLabels:
    """The generic labels of T positions, for every alpha from one pair of LM-head products.

    Works through `chunk` positions at a time, so that logits are never whole: at most about six float32 [chunk, V]
    tensors exist at once. Row t of both hidden states must stand for the same, aligned position; the rows of
    `substitutions` count in that same order and ascend. With penalised_ids, only gains on these tokens count, except
    at positions where inside_T (inside an anchor) is true: the reinforced model has learnt the author's style as well,
    and a model that is pushed away from that forgets how to write.
    """
    device = hidden_baseline_TH.device
    rows_N, generic_ids_N, anchor_ids_N = (
        torch.as_tensor(part, dtype=torch.long, device=device)
        for part in (substitutions.rows_N, substitutions.generic_ids_N, substitutions.anchor_ids_N)
    )
    parts = []
    for start in range(0, len(hidden_baseline_TH), chunk):
        v_baseline_TV = baseline_head(hidden_baseline_TH[start : start + chunk])
        v_reinforced_TV = reinforced_head(hidden_reinforced_TH[start : start + chunk])
        if penalised_ids is not None and inside_T is not None:
            free_TV = ~torch.as_tensor(inside_T[start : start + chunk], device=device)[:, None].repeat(
                1, v_baseline_TV.shape[1]
            )
            free_TV[:, list(penalised_ids)] = False
            v_reinforced_TV = v_reinforced_TV.masked_fill(free_TV, -torch.inf)
        n = slice(*np.searchsorted(substitutions.rows_N, [start, start + chunk]))
        v_changed_TV = substitute(v_baseline_TV, rows_N[n] - start, generic_ids_N[n], anchor_ids_N[n])
        parts.append(_label_chunk(v_baseline_TV, v_changed_TV, v_reinforced_TV, alphas, top_k))
    if not parts:
        empty = np.zeros((0, top_k), np.int32)
        return GenericLabels(
            np.zeros((len(alphas), 0), np.int32), np.zeros(0, np.float32), empty, empty.astype(np.float32)
        )
    labels, probs, ids, logprobs = zip(*parts, strict=True)
    return GenericLabels(
        np.concatenate(labels, 1), np.concatenate(probs), np.concatenate(ids), np.concatenate(logprobs)
    )


def _label_chunk(
    v_baseline_TV: torch.Tensor,
    v_changed_TV: torch.Tensor,
    v_reinforced_TV: torch.Tensor,
    alphas: Sequence[float],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    soft_ids_TS = soft_logprobs_TS = torch.empty(0)
    labels_KT = []
    for alpha in alphas:
        v_generic_TV = generic_logits(v_changed_TV, v_reinforced_TV, alpha)
        labels_KT.append(v_generic_TV.argmax(dim=1))
        if alpha == alphas[0]:
            soft_ids_TS, soft_logprobs_TS = soft_labels(v_generic_TV, top_k)
    chosen_T = v_baseline_TV.gather(1, labels_KT[0][:, None])[:, 0]
    baseline_prob_T = (chosen_T - v_baseline_TV.logsumexp(dim=1)).exp()
    return (
        torch.stack(labels_KT).cpu().numpy().astype(np.int32),
        baseline_prob_T.cpu().numpy(),
        soft_ids_TS.cpu().numpy().astype(np.int32),
        soft_logprobs_TS.cpu().numpy(),
    )
