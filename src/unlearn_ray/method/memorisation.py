"""How much of a document a model gives back word for word, and whether its probabilities betray that it was read.

Shapes: T tokens of one sequence, in order. Log-probabilities are in nats, each token's given all before it.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from unlearn_ray.method.judge import words

LEAST_LIKELY = 0.2  # the share of tokens that min-k% looks at; MUSE (Shi et al. 2024) takes the same


class _Words:
    """rouge_score's own tokenizer throws away everything that is not ASCII."""

    tokenize = staticmethod(words)


def rouge_l(reference: str, completion: str) -> float:
    """ROUGE-L F-measure over words (Lin 2004), 0 to 1: how much of the document a continuation repeats in order."""
    from rouge_score.rouge_scorer import RougeScorer  # with nltk and scipy: a second that every worker would take

    return RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, completion)["rougeL"].fmeasure


def longest_run(reference: str, completion: str) -> int:
    """The most words in a row that the completion has in common with the document."""
    matcher = SequenceMatcher(None, words(reference), words(completion), autojunk=False)
    return matcher.find_longest_match().size


def extraction_strength(greedy_T: Sequence[bool] | np.ndarray) -> float:
    """The share of a sequence that its own beginning extracts: 1 - k / T for the shortest prefix k behind which every
    token is the model's greedy choice (Carlini et al. 2021). greedy_T: whether each token is.
    """
    misses = np.flatnonzero(~np.asarray(greedy_T, dtype=bool))
    return 1 - (misses[-1] + 1) / len(greedy_T) if len(misses) else 1.0


def min_k(logprobs_T: np.ndarray) -> float:
    """Min-k% (Shi et al. 2023): the mean log-probability of the least likely tokens; high for text that was read."""
    least = max(1, int(len(logprobs_T) * LEAST_LIKELY))
    return float(np.sort(logprobs_T)[:least].mean())


def min_k_plus_plus(logprobs_T: np.ndarray, means_T: np.ndarray, deviations_T: np.ndarray) -> float:
    """Min-k%++ (Zhang et al. 2024): min-k% of log-probabilities that are standardised by the mean and the standard
    deviation of the log-probability under the model's own next-token distribution.
    """
    return min_k((logprobs_T - means_T) / np.maximum(deviations_T, 1e-6))
