"""Joint forgetting: one model forgets all sets, so what belongs to each set meets here: its labels, and its verdict on
the checkpoints.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.evidence import BEFORE, kept_utility
from unlearn_ray.method.choice import Candidate, choose, pareto_front
from unlearn_ray.stages.blocks import UNION
from unlearn_ray.stages.evaluate import CHOICE


def unite_labels(run: StepRun) -> dict:
    """Inputs: the labels of every set. Writes where they lie: a set's labels are large, and training reads them all."""
    folders = [run.below_root(run.inputs[name]) for name in sorted(run.inputs)]
    storage.write_json(storage.join(run.out, UNION), {"folders": folders})
    return {"rows": {"sets": len(folders)}}


def choose_together(run: StepRun, *, tolerance: float) -> dict:
    """Inputs: the measures of every set. Writes the checkpoint that is best for all of them together."""
    measured = [storage.read_json(storage.join(folder, "metrics.json")) for folder in run.inputs.values()]
    found = together([one["metrics"] for one in measured], [one["choice"] for one in measured], tolerance)
    storage.write_json(storage.join(run.out, CHOICE), found)
    return {"rows": {"sets": len(measured)}, "choice": found["model"]}


def together(
    metrics: list[Mapping[str, Mapping[str, Mapping]]], choices: list[Mapping[str, Any]], tolerance: float
) -> dict[str, Any]:
    """The part of `choice` in metrics.json that one choice for all sets replaces.

    A checkpoint's familiarity is the mean over the sets of the share of the baseline's that is left; its utility is
    that of the set where least of it is left.
    """
    names = [one["model"] for one in choices[0]["candidates"]]

    def familiarity(model: str) -> float:
        shares = [
            of_set["probability_familiarity"][model]["value"] / before
            for of_set in metrics
            if (before := of_set.get("probability_familiarity", {}).get(BEFORE, {}).get("value"))
        ]
        return sum(shares) / len(shares) if shares else 0.0

    def kept(model: str) -> dict[str, float]:
        of_sets = [kept_utility(of_set, model) for of_set in metrics]
        return {measure: min(one[measure] for one in of_sets if measure in one) for measure in of_sets[0]}

    candidates = [Candidate(name, familiarity(name), kept(name)) for name in names]
    chosen = choose(candidates, tolerance)
    return {
        "model": chosen.model,
        "rule": f"the one model that forgets {len(metrics)} sets together: the least probability familiarity (the mean "
        f"over the sets of the share of the baseline's) with at most {100 * tolerance:g}% of any utility lost",
        "within_tolerance": chosen.lost <= tolerance,
        "candidates": [asdict(one) | {"lost": one.lost} for one in candidates],
        "pareto": [one.model for one in pareto_front(candidates)],
    }
