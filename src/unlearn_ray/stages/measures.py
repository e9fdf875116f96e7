"""The names of what is measured, and how each is shown."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a metric is shown. wanted: what unlearning should do to it; curve: its name over the plot by checkpoint."""

    name: str
    title: str
    meaning: str
    wanted: str
    digits: int
    curve: str = ""


FORGETTING = (
    Measure(
        "completion_familiarity",
        "Completion familiarity",
        "From 0 to 5: a completion that names something of the forget set counts 5, one with a typical theme 1.",
        "down",
        3,
    ),
    Measure(
        "probability_familiarity",
        "Probability familiarity",
        "Probability that the next token begins a name of the forget set that the prompt does not give.",
        "down",
        4,
        "Familiarity: probability of its names",
    ),
    Measure(
        "probe_probability", "Probes", "Probability of the right answers to questions about the forget set.", "down", 3
    ),
    Measure(
        "verbatim_rouge_l",
        "Verbatim continuation",
        "ROUGE-L of greedy continuations of the documents with the documents themselves.",
        "down",
        3,
    ),
    Measure(
        "verbatim_longest_run",
        "Longest verbatim run",
        "Words in a row that such a continuation has in common with the document.",
        "down",
        2,
    ),
    Measure(
        "extraction_strength",
        "Extraction strength",
        "Share of a block that its own beginning brings out, greedily (Carlini et al. 2021).",
        "down",
        4,
    ),
    Measure(
        "membership_min_k",
        "Membership, min-k%",
        "AUC of telling blocks of the forget set from text that no model read; 0.5 is a guess (Shi et al. 2023).",
        "towards that of a model that never read it",
        3,
    ),
    Measure(
        "membership_min_k_plus_plus",
        "Membership, min-k%++",
        "The same with log-probabilities that are standardised at each token (Zhang et al. 2024).",
        "towards that of a model that never read it",
        3,
    ),
    Measure(
        "perplexity_forget",
        "Perplexity, forget set",
        "On blocks of the documents themselves.",
        "may rise",
        2,
        "Perplexity on the forget set",
    ),
)
KEEPING = (
    Measure(
        "perplexity_retain",
        "Perplexity, other prose",
        "On held-out text that is to be kept.",
        "the same",
        2,
        "Utility: perplexity on other prose",
    ),
    Measure(
        "control_probability",
        "Control facts",
        "Probability of the right answers to questions about other things.",
        "the same",
        3,
    ),
)
PAPER = {
    "completion_familiarity": (0.290, 0.007),
    "probability_familiarity": (0.244, 0.006),
    "benchmark_arc_challenge": (0.440, 0.414),
    "benchmark_arc_easy": (0.744, 0.724),
    "benchmark_boolq": (0.807, 0.796),
    "benchmark_hellaswag": (0.577, 0.557),
    "benchmark_piqa": (0.767, 0.760),
    "benchmark_winogrande": (0.663, 0.657),
}
"""What the paper reports before and after 120 steps: Llama 2 7B and seven novels, other prompts, another judge."""

BENCHMARK, PERPLEXITY = "benchmark_", "perplexity_"
BENCHMARK_TITLES = {
    "arc_challenge": "ARC-challenge",
    "arc_easy": "ARC-easy",
    "boolq": "BoolQ",
    "hellaswag": "HellaSwag",
    "openbookqa": "OpenBookQA",
    "piqa": "PIQA",
    "winogrande": "WinoGrande",
}


def measures_of(metrics: Iterable[str]) -> list[Measure]:
    """What was measured, in the order of the report: first what is to be forgotten."""
    names = list(metrics)
    known = {measure.name for measure in (*FORGETTING, *KEEPING)}
    return [
        *(measure for measure in (*FORGETTING, *KEEPING) if measure.name in names),
        *(_unlisted(name) for name in names if name not in known),
    ]


def _unlisted(name: str) -> Measure:
    """A text or a benchmark that the run names."""
    if name.startswith(PERPLEXITY):
        text = name.removeprefix(PERPLEXITY)
        meaning = "On text that no model read." if text == "nonmembers" else "On text of a neighbouring domain."
        return Measure(name, f"Perplexity, {text}", meaning, "the same", 2)
    task, _, normalised = name.removeprefix(BENCHMARK).partition("/")
    how = "greatest probability per character" if normalised else "greatest probability"
    title = BENCHMARK_TITLES[task] + (", normalised" if normalised else "")
    return Measure(name, title, f"Share of right answers, zero-shot: the choice of the {how}.", "the same", 3)
