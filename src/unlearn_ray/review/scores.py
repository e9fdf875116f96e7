"""What people's grades make of the judge's: its confusion table, and the familiarity corrected by it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlearn_ray.method.metrics import POINTS
from unlearn_ray.review.judge import stratum

PRIOR = 0.25
"""Pseudo-answers to each grade in a stratum (Perks' prior): a few answers that all agree are no certainty."""


def corrected_scores(
    rows: Sequence[Mapping[str, Any]], graded: Sequence[Mapping[str, Any]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """{"models": model -> figures, "confusion": [judge's grade][people's grade], "audited", "equal"}.

    rows: completions.parquet; graded: {"prompt", "completion", "grade"} by people. The corrected familiarity of a model
    is the mean over its prompts of what people's grades in the prompt's stratum (judge's grade and subtlety) are worth,
    so that a sample that takes rare grades more often is no bias. Where nobody graded a stratum of a model, people's
    grades of the same stratum of other models stand in, then those of the same grade; then the judge's own, and
    "not_audited" counts those prompts.
    """
    rows = [row for row in rows if row["kind"] == "familiarity"]
    ungraded = {row["prompt"] for row in rows if row["grade"] is None}
    rows = [row for row in rows if row["prompt"] not in ungraded]
    of_people = {(row["prompt"], row["completion"]): row["grade"] for row in graded}
    counts: dict[tuple, np.ndarray] = {}  # model and stratum, stratum, or grade -> people's grades there
    confusion, seen = np.zeros((4, 4), int), set()
    for row in rows:
        pair = row["prompt"], row["completion"]
        if (grade := of_people.get(pair)) is None:
            continue
        counts.setdefault((row["model"], *stratum(row)), np.zeros(4, int))[grade] += 1
        if (*pair, row["grade"]) not in seen:
            seen.add((*pair, row["grade"]))
            confusion[row["grade"], grade] += 1
            for place in (stratum(row), stratum(row)[:1]):
                counts.setdefault(place, np.zeros(4, int))[grade] += 1
    models = {
        model: _figures([row for row in rows if row["model"] == model], counts, of_people, resamples, seed)
        for model in dict.fromkeys(row["model"] for row in rows)
    }
    audited = int(confusion.sum())
    return {
        "models": models,
        "confusion": confusion.tolist(),
        "audited": audited,
        "equal": float(np.trace(confusion)) / audited if audited else None,
    }


def _figures(
    rows: Sequence[Mapping],
    counts: Mapping[tuple, np.ndarray],
    of_people: Mapping[tuple, int],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """judged, corrected: value and 95% interval over draws of the prompts and of what people would say of a stratum."""
    n = len(rows)
    sizes = Counter(stratum(row) for row in rows)
    rng = np.random.default_rng(seed)
    names = sorted(sizes)
    shares_S = np.array([sizes[name] for name in names]) / n
    shares_RS = rng.multinomial(n, shares_S, size=resamples) / n
    values_S, values_RS, not_audited = np.zeros(len(names)), np.zeros((resamples, len(names))), 0
    for at, name in enumerate(names):
        places = ((rows[0]["model"], *name), name, name[:1])
        found = next((counts[place] for place in places if place in counts), None)
        if found is None:
            values_S[at] = values_RS[:, at] = POINTS[name[0]]
            not_audited += sizes[name]
        else:
            values_S[at] = found @ POINTS / found.sum()
            values_RS[:, at] = rng.dirichlet(found + PRIOR, size=resamples) @ POINTS
    value, value_R = float(shares_S @ values_S), (shares_RS * values_RS).sum(1)
    low, high = np.percentile(value_R, [2.5, 97.5])
    return {
        "judged": float(np.mean([POINTS[row["grade"]] for row in rows])),
        "corrected": {"value": value, "low": min(float(low), value), "high": max(float(high), value), "n": n},
        "audited": sum((row["prompt"], row["completion"]) in of_people for row in rows),
        "not_audited": not_audited,
    }
