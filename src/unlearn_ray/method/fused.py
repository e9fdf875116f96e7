"""labels.best_labels in one pass over the logits, as a Triton kernel: three tensors [T, V] are read and none is
written, but for the one that soft labels are picked from. Imported where there is a GPU.

A row is one program with one order of additions, so that its results do not depend on the rows beside it.
"""

from collections.abc import Sequence

import numpy as np
import torch
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

from unlearn_ray.method.labels import GenericLabels, no_soft_labels, on_device, told_labels

BLOCK = 4096  # tokens of the vocabulary at one time


def best_labels(
    v_baseline_TV: torch.Tensor,
    v_changed_TV: torch.Tensor,
    v_reinforced_TV: torch.Tensor,
    alphas: Sequence[float],
    top_k: int,
) -> GenericLabels:
    """See labels.best_labels; float32 logits, rows without gaps. Log-probabilities are equal up to rounding."""
    positions, vocabulary = v_baseline_TV.shape
    labels_KT = v_baseline_TV.new_empty((len(alphas), positions), dtype=torch.int32)
    baseline_prob_T, logsumexp_T = v_baseline_TV.new_empty(positions), v_baseline_TV.new_empty(positions)
    larger_TV = torch.empty_like(v_changed_TV) if top_k else v_changed_TV
    with torch.cuda.device_of(v_baseline_TV):
        _best_labels[(positions, len(alphas))](  # type: ignore[index]
            v_baseline_TV,
            v_changed_TV,
            v_reinforced_TV,
            on_device(np.array(alphas, np.float32), v_baseline_TV.device),
            labels_KT,
            baseline_prob_T,
            larger_TV,
            logsumexp_T,
            VOCABULARY=vocabulary,
            SOFT=top_k > 0,
            BLOCK=BLOCK,
        )
    if not top_k:
        return GenericLabels(labels_KT, baseline_prob_T, *no_soft_labels(v_changed_TV))
    soft = told_labels(larger_TV, v_changed_TV, v_reinforced_TV, labels_KT[0], logsumexp_T, alphas[0], top_k)
    return GenericLabels(labels_KT, baseline_prob_T, *soft)


@triton.jit
def _best_labels(
    v_baseline,
    v_changed,
    v_reinforced,
    alphas,
    labels,
    baseline_prob,
    larger,
    logsumexp,
    VOCABULARY: tl.constexpr,
    SOFT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The label of one position (grid axis 0) for one alpha (axis 1); the first alpha has the rest to do too."""
    row, k = tl.program_id(0), tl.program_id(1)
    first = row.to(tl.int64) * VOCABULARY
    alpha = tl.load(alphas + k)
    best, best_at = float("-inf"), 0
    baseline_top, baseline_sum = float("-inf"), 0.0
    generic_top, generic_sum = float("-inf"), 0.0
    for start in range(0, VOCABULARY, BLOCK):
        at = start + tl.arange(0, BLOCK)
        there = at < VOCABULARY
        changed = tl.load(v_changed + first + at, mask=there, other=0.0)
        reinforced = tl.load(v_reinforced + first + at, mask=there, other=0.0)
        generic = tl.where(there, changed - alpha * tl.maximum(reinforced - changed, 0.0), float("-inf"))
        here, here_at = tl.max(generic, axis=0, return_indices=True)
        best_at = tl.where(here > best, start + here_at, best_at)
        best = tl.maximum(best, here)
        if k == 0:
            baseline = tl.load(v_baseline + first + at, mask=there, other=float("-inf"))
            top = tl.maximum(baseline_top, tl.max(baseline, axis=0))
            baseline_sum = baseline_sum * tl.exp(baseline_top - top) + tl.sum(tl.exp(baseline - top), axis=0)
            baseline_top = top
            if SOFT:
                tl.store(larger + first + at, tl.maximum(changed, reinforced), mask=there)
                generic_sum = generic_sum * tl.exp(generic_top - best) + tl.sum(tl.exp(generic - best), axis=0)
                generic_top = best
    tl.store(labels + k * tl.num_programs(0) + row, best_at)
    if k == 0:
        chosen = tl.load(v_baseline + first + best_at)
        tl.store(baseline_prob + row, tl.exp(chosen - baseline_top) / baseline_sum)
        if SOFT:
            tl.store(logsumexp + row, best + tl.log(generic_sum))
