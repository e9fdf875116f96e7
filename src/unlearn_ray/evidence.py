"""From readings to evidence: figures with intervals, changes, groups, and the chosen checkpoint. Free of Ray."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from unlearn_ray.config import Evaluate
from unlearn_ray.evaluation import Readings
from unlearn_ray.material import Material
from unlearn_ray.method.choice import Candidate, choose, pareto_front
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import judge
from unlearn_ray.method.memorisation import longest_run, rouge_l
from unlearn_ray.method.metrics import (
    Items,
    Ranks,
    Sample,
    compare,
    estimate,
    familiarity_items,
    mean_items,
    perplexity_items,
)

BEFORE, REINFORCED, REFERENCE, LAST = "baseline", "reinforced", "reference", "unlearned"
UTILITY = ("perplexity_", "control_probability", "benchmark_")
SHOWN_PROMPTS, SHOWN_TOKENS = 6, 6
SUBTLETIES = {"1 to 3": range(1, 4), "4 to 7": range(4, 8), "8 to 10": range(8, 11)}


def completion_rows(
    material: Material,
    readings: Mapping[str, Readings],
    dictionary: AnchorDictionary,
    tokenizer: PreTrainedTokenizerFast,
) -> list[dict]:
    """One row a model and prompt, judged by the dictionary: the completions and the verbatim continuations."""
    rows = []
    for model, found in readings.items():
        for prompt, completion in zip(material.completion, found["completion"].tolist(), strict=True):
            verdict = judge(prompt.text, completion, dictionary, material.themes)
            shown = {"grade": verdict.grade, "anchors_named": list(verdict.anchors), "subtlety": prompt.subtlety}
            reference = " | ".join(prompt.references)
            rows.append({"kind": "familiarity"} | shown | _row(model, prompt.text, reference, completion))
        for prompt, completion in zip(material.verbatim, found["verbatim"].tolist(), strict=True):
            # As many tokens as the model may write: what it had no room for is not held against it.
            [whole] = prompt.references
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"][: material.completion_tokens]
            reference = str(tokenizer.decode(ids))
            shown = {
                "rouge_l": rouge_l(reference, completion),
                "longest_run": longest_run(reference, completion),
                "anchors_named": [],
            }
            rows.append({"kind": "verbatim"} | shown | _row(model, prompt.text, reference, completion))
    return rows


def _row(model: str, prompt: str, reference: str, completion: str) -> dict:
    return {"model": model, "prompt": prompt, "reference": reference, "completion": completion}


def summarise(
    readings: Mapping[str, Readings],
    completions: Sequence[dict],
    material: Material,
    settings: Evaluate,
    chosen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """metrics.json: every figure with n and interval; changes are paired by item, from the baseline to the chosen
    checkpoint and from the reference to it.

    readings: model -> what was measured, in the order of training. completions: rows of `completion_rows`; a grade that
    is None (a judge that could not be read) takes the prompt out of the familiarity of every model, and is counted.
    chosen: what replaces parts of the choice, where it was made for several sets together.
    """
    ungraded = {row["prompt"] for row in completions if row["kind"] == "familiarity" and row["grade"] is None}
    samples = {name: _samples(found, name, completions, ungraded) for name, found in readings.items()}

    def figure(sample: Sample) -> dict:
        return asdict(estimate(sample, settings.bootstrap, settings.seed))

    def changes(before: str, after: str) -> dict[str, dict]:
        shared = [metric for metric in samples[before] if metric in samples[after]]
        pairs = {metric: (samples[before][metric], samples[after][metric]) for metric in shared}
        return {metric: asdict(compare(*pair, settings.bootstrap, settings.seed)) for metric, pair in pairs.items()}

    metrics: dict[str, dict[str, dict]] = {}
    for model, of_model in samples.items():
        for metric, sample in of_model.items():
            metrics.setdefault(metric, {})[model] = figure(sample)
    choice = _choice(metrics, settings.tolerance) | dict(chosen or {})
    graded = Counter((row["model"], str(row["grade"])) for row in completions if row["kind"] == "familiarity")
    return {
        "models": list(metrics["perplexity_forget"]),
        "choice": choice,
        "metrics": metrics,
        "changes": changes(BEFORE, choice["model"]),
        "distance_to_reference": changes(REFERENCE, choice["model"]) if REFERENCE in samples else {},
        "groups": _groups(readings, completions, material, ungraded, [BEFORE, choice["model"]], figure),
        "grades": {name: {grade: graded[name, grade] for grade in "0123"} for name in readings},
        "ungraded": {name: graded[name, "None"] for name in readings},
    }


def _samples(readings: Readings, model: str, completions: Sequence[dict], ungraded: set[str]) -> dict[str, Sample]:
    """The metrics that a model was measured on, by name."""
    rows = [row for row in completions if row["model"] == model]
    grades = [row["grade"] for row in rows if row["kind"] == "familiarity" and row["prompt"] not in ungraded]
    verbatim = [row for row in rows if row["kind"] == "verbatim"]
    found: dict[str, Sample] = {
        "completion_familiarity": familiarity_items(np.array(grades)),
        "probability_familiarity": mean_items(readings["specific_mass"]),
        "probe_probability": mean_items(readings["probe"]),
        "verbatim_rouge_l": mean_items(np.array([row["rouge_l"] for row in verbatim])),
        "verbatim_longest_run": mean_items(np.array([row["longest_run"] for row in verbatim])),
        "extraction_strength": mean_items(readings["forget/extraction"]),
        "control_probability": mean_items(readings["control"]),
    }
    if "nonmembers/min_k" in readings:
        for score in ("min_k", "min_k_plus_plus"):
            found[f"membership_{score}"] = Ranks(readings[f"forget/{score}"], readings[f"nonmembers/{score}"])
    for name, values in readings.items():
        if name.endswith("/nll"):
            text = name.removesuffix("/nll")
            found[f"perplexity_{text}"] = perplexity_items(values, readings[f"{text}/tokens"])
        elif name.startswith("benchmark/"):
            found[f"benchmark_{name.removeprefix('benchmark/')}"] = mean_items(values)
    return {metric: sample for metric, sample in found.items() if sample.n}


def _choice(metrics: Mapping[str, Mapping[str, Mapping]], tolerance: float) -> dict[str, Any]:
    """The chosen checkpoint, and where all of them stand."""
    measured = metrics.get("probability_familiarity", metrics["perplexity_forget"])
    names = [name for name in measured if name not in (BEFORE, REINFORCED, REFERENCE)]
    candidates = [
        Candidate(name, metrics["probability_familiarity"][name]["value"], kept_utility(metrics, name))
        if "probability_familiarity" in metrics
        else Candidate(name, 0.0, {})
        for name in names
    ]
    chosen = choose(candidates, tolerance)
    return {
        "model": chosen.model,
        "rule": "the least probability familiarity with at most "
        f"{100 * tolerance:g}% of any utility lost (perplexity of what is kept, control facts, benchmarks)",
        "within_tolerance": chosen.lost <= tolerance,
        "candidates": [asdict(one) | {"lost": one.lost} for one in candidates],
        "pareto": [one.model for one in pareto_front(candidates)],
    }


def kept_utility(metrics: Mapping[str, Mapping[str, Mapping]], model: str) -> dict[str, float]:
    """The share of the baseline's utility that a model has, by measure: perplexity of each text that is kept, control
    facts, and the mean of the benchmarks' accuracies."""

    def value(metric: str, name: str) -> float:
        return metrics[metric][name]["value"]

    texts = [name for name in metrics if name.startswith("perplexity_")]
    kept = {
        name: value(name, BEFORE) / value(name, model)
        for name in texts
        if name not in ("perplexity_forget", "perplexity_nonmembers")
    }
    if value_before := metrics.get("control_probability", {}).get(BEFORE, {}).get("value"):
        kept["control_probability"] = value("control_probability", model) / value_before
    # Of a task's accuracies the one that is normalised by length is shown, and not counted twice.
    tasks = [name for name in metrics if name.startswith("benchmark_") and "/" not in name]
    if tasks:
        kept["benchmarks"] = sum(value(task, model) for task in tasks) / sum(value(task, BEFORE) for task in tasks)
    return kept


def _groups(
    readings: Mapping[str, Readings],
    completions: Sequence[dict],
    material: Material,
    ungraded: set[str],
    models: Sequence[str],
    figure: Callable[[Items], dict],
) -> dict[str, dict[str, dict[str, dict]]]:
    """Familiarity by kind of the anchor that follows, and by subtlety: grouping -> group -> model -> figure."""
    places = [place for place, prompt in enumerate(material.completion) if prompt.text not in ungraded]
    prompts = [material.completion[place] for place in places]
    kinds = [prompt.kind for prompt in prompts]
    bands = [next((band for band, values in SUBTLETIES.items() if prompt.subtlety in values), "") for prompt in prompts]
    groups: dict[str, dict[str, dict[str, dict]]] = {}
    for model in models:
        rows = [row for row in completions if row["model"] == model and row["kind"] == "familiarity"]
        points_N = familiarity_items(np.array([rows[place]["grade"] for place in places])).values_N
        mass_N = readings[model]["specific_mass"]
        for grouping, values_N, group_of in (
            ("probability familiarity by kind of anchor", mass_N, [prompt.kind for prompt in material.probability]),
            ("completion familiarity by kind of anchor", points_N, kinds),
            ("completion familiarity by subtlety", points_N, bands),
        ):
            for group in sorted(set(group_of) - {""}):
                inside_N = np.array([one == group for one in group_of])
                groups.setdefault(grouping, {}).setdefault(group, {})[model] = figure(mean_items(values_N[inside_N]))
    return groups


def next_tokens(
    material: Material, readings: Mapping[str, Readings], after: str, tokenizer: PreTrainedTokenizerFast
) -> list[dict]:
    """The prompts on which the baseline gives most to specific tokens, with both models' likeliest next tokens.

    A probability beyond a model's SHOWN_TOKENS likeliest (evaluation.py) counts as 0.
    """
    found = {
        model: [
            dict(zip(ids_K.tolist(), probabilities_K.tolist(), strict=True))
            for ids_K, probabilities_K in zip(
                readings[model]["shown_ids"], readings[model]["shown_probabilities"], strict=True
            )
        ]
        for model in (BEFORE, after)
    }
    specific = [set(prompt.specific) for prompt in material.shown]
    mass = [sum(found[BEFORE][row].get(token, 0) for token in of_prompt) for row, of_prompt in enumerate(specific)]
    plots = []
    for row in sorted(range(len(mass)), key=lambda row: -mass[row])[:SHOWN_PROMPTS]:
        before, then = found[BEFORE][row], found[after][row]
        top = {*list(before)[:SHOWN_TOKENS], *list(then)[:SHOWN_TOKENS]}
        tokens = sorted(top, key=lambda token: -before.get(token, 0))
        plots.append(
            {
                "prompt": material.shown[row].text,
                "tokens": [str(tokenizer.decode([token])) for token in tokens],
                "specific": [token in specific[row] for token in tokens],
                "before": [before.get(token, 0.0) for token in tokens],
                "after": [then.get(token, 0.0) for token in tokens],
            }
        )
    return plots
