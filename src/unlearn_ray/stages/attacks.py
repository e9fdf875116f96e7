"""The audit as the report shows it: a table of attacks, curves of relearning, and what was not tested."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from unlearn_ray.stages.plots import figure_text

MEASURES = {
    "probability_familiarity": ("Probability familiarity", 4),
    "completion_familiarity": ("Completion familiarity", 3),
    "probe_probability": ("Probes", 3),
    "accuracy": ("Entity told from hidden states", 3),
    "generic_probability": ("Probability of the generic names", 4),
}
RELEARNING = re.compile(r"(?P<text>.+), step (?P<step>\d+)")
ALWAYS_UNTESTED = (
    "Knowledge in other words than the dictionary's: a paraphrase that names nothing passes the judge unseen.",
    "Attackers who see gradients or search for prompts (optimised suffixes), and merging with other models.",
)
UNTESTED_METRICS = {
    "perplexity_retain": "Perplexity on other prose: no text to keep (retain, evaluate.retain).",
    "probe_probability": "Knowledge questions: evaluate.probes is not given.",
    "control_probability": "Facts that must survive: evaluate.controls is not given.",
    "membership_min_k": "Membership inference: no text that no model read (evaluate.nonmembers).",
    "benchmark_": "Benchmarks: evaluate.benchmarks.tasks is empty.",
}


def attack_table(audit: Mapping[str, Any]) -> dict[str, Any]:
    """One row an attack and condition, one cell a measure and model; `more`: where an attack gives the unlearned model
    more than it shows without, by an interval that leaves out 0."""
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for found in audit["attacks"]:
        _, digits = MEASURES[found["measure"]]
        change = found["to_no_attack"].get("unlearned")
        cells = {
            model: {
                "text": f"{figure['value']:.{digits}f}",
                "tip": f"{figure_text(figure, digits)}, n = {figure['n']}",
                "more": model == "unlearned" and change is not None and change["low"] is not None and change["low"] > 0,
            }
            for model, figure in found["figures"].items()
        }
        shown.setdefault((found["attack"], found["condition"]), {})[found["measure"]] = cells
    used = {found["measure"] for found in audit["attacks"]}
    return {
        "models": audit["models"],
        "measures": [{"name": name, "title": MEASURES[name][0]} for name in MEASURES if name in used],
        "rows": [
            {"attack": attack, "condition": condition, "cells": cells} for (attack, condition), cells in shown.items()
        ],
    }


def relearnings(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each text that was relearnt the probability familiarity and the probes by step: model -> figures."""
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for found in audit["attacks"]:
        match = RELEARNING.fullmatch(found["condition"])
        if found["attack"] != "relearning" or not match or found["measure"] == "completion_familiarity":
            continue
        title, _ = MEASURES[found["measure"]]
        curve = curves.setdefault(
            (match["text"], found["measure"]),
            {"title": f"{title}, relearning from {match['text']}", "steps": [], "figures": {}},
        )
        curve["steps"].append(int(match["step"]))
        for model, figure in found["figures"].items():
            curve["figures"].setdefault(model, []).append(figure)
    return list(curves.values())


def not_tested(
    metrics: Mapping[str, Any], audit: Mapping[str, Any] | None, steps: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What this report says nothing about, and why. steps: the manifests of the run, each with its "name"."""
    missing = [why for name, why in UNTESTED_METRICS.items() if not any(metric.startswith(name) for metric in metrics)]
    if _trained_on_other_prose({step["name"]: step for step in steps}):
        missing.append("Prose that was not trained on: retain_targets is text, and evaluate.retain is not given.")
    if audit is None:
        missing.append("Attacks: none was made (`unlearn-ray run CONFIG --audit` makes them).")
    else:
        missing += [f"{attack[0].upper()}{attack[1:]}: {why}." for attack, why in audit["not_tested"].items()]
    return [*missing, *ALWAYS_UNTESTED]


def _trained_on_other_prose(steps: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the perplexity on other prose is that of text which the unlearned model was trained on."""
    if not {"retain", "unlearned"} <= steps.keys() or steps["unlearned"]["params"]["retain_targets"] != "text":
        return False
    return steps["retain"]["inputs"]["blocks"] == steps["evaluation"]["inputs"].get("text-retain")
