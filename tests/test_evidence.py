import numpy as np
import pytest

from unlearn_ray.config import Evaluate
from unlearn_ray.evidence import completion_rows, kept_utility, next_tokens, summarise
from unlearn_ray.material import Material, TokenPrompt
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.models import load_tokenizer

DICTIONARY = AnchorDictionary([Anchor("Alice", "Susan", "person"), Anchor("Wonderland", "Fairland", "place")])
MATERIAL = Material(
    probability=[TokenPrompt("a", [], "person"), TokenPrompt("b", [], "place"), TokenPrompt("c", [], "person")],
    texts={},
    completion=[
        Prompt("book", "She was called", ("Alice", "a girl"), "person", subtlety=2),
        Prompt("book", "They lived in", ("Wonderland",), "place", subtlety=9),
        Prompt("book", "Nobody saw", ("Alice",), "person"),
    ],
    verbatim=[Prompt("book", "Down, down,", ("down. Would the fall never come to an end?",))],
    probes=[],
    controls=[],
    shown=[TokenPrompt("the", [7])],
    completion_tokens=6,
    themes=frozenset({"teapot"}),
)
SETTINGS = Evaluate(bootstrap=50)


def readings(*, names: list[str], mass: list[float], forget: float, retain: float, control: float = 0.5) -> dict:
    return {
        "completion": np.array(names),
        "verbatim": np.array([" down. Would the fall end"]),
        "specific_mass": np.array(mass),
        "probe": np.zeros(0),
        "control": np.array([control]),
        "forget/nll": np.array([np.log(forget)] * 2),
        "forget/tokens": np.ones(2),
        "forget/extraction": np.array([0.5, 0.1]),
        "forget/min_k": np.array([-1.0, -2.0]),
        "forget/min_k_plus_plus": np.array([0.0, -1.0]),
        "retain/nll": np.array([np.log(retain)] * 2),
        "retain/tokens": np.ones(2),
        "nonmembers/min_k": np.array([-3.0, -1.5]),
        "nonmembers/min_k_plus_plus": np.array([1.0, 2.0]),
        "shown_ids": np.array([[7, 3]]),
        "shown_probabilities": np.array([[mass[0], 0.2]]),
    }


READ = {
    "baseline": readings(names=[" Alice", " Wonderland", " her"], mass=[0.4, 0.1, 0.2], forget=20, retain=30),
    "step-5": readings(names=[" Ann", " Wonderland", " a teapot"], mass=[0.2, 0.1, 0.0], forget=25, retain=31),
    "unlearned": readings(names=[" Ann", " a town", " her"], mass=[0.0, 0.1, 0.0], forget=30, retain=60),
}


@pytest.fixture(scope="module")
def rows(tiny_model_folder: str) -> list[dict]:
    return completion_rows(MATERIAL, READ, DICTIONARY, load_tokenizer(tiny_model_folder))


def test_figures_come_from_the_readings_of_each_model(rows):
    found = summarise(READ, rows, MATERIAL, SETTINGS)
    value = {metric: {name: one["value"] for name, one in of.items()} for metric, of in found["metrics"].items()}
    assert value["completion_familiarity"] == pytest.approx({"baseline": 10 / 3, "step-5": 2, "unlearned": 0})
    assert value["probability_familiarity"] == pytest.approx({"baseline": 0.7 / 3, "step-5": 0.1, "unlearned": 0.1 / 3})
    assert value["perplexity_retain"]["unlearned"] == pytest.approx(60)
    assert value["extraction_strength"]["baseline"] == pytest.approx(0.3)
    # Members -1 and -2 against -3 and -1.5: three of four pairs are the right way round.
    assert value["membership_min_k"]["baseline"] == pytest.approx(0.75)
    assert value["membership_min_k_plus_plus"]["baseline"] == 0.0
    assert "probe_probability" not in value
    assert found["grades"]["step-5"] == {"0": 1, "1": 0, "2": 1, "3": 1}


def test_the_chosen_checkpoint_is_within_the_tolerance_and_what_changes_are_of(rows):
    found = summarise(READ, rows, MATERIAL, SETTINGS)
    assert found["choice"]["model"] == "step-5" and found["choice"]["within_tolerance"]
    assert found["choice"]["pareto"] == ["step-5", "unlearned"]
    assert found["changes"]["perplexity_forget"]["relative"]["value"] == pytest.approx(0.25)
    loose = summarise(READ, rows, MATERIAL, SETTINGS.model_copy(update={"tolerance": 0.5}))
    assert loose["choice"]["model"] == "unlearned"


def test_utility_is_what_is_left_of_text_facts_and_benchmarks():
    def values(before: float, after: float) -> dict:
        return {"baseline": {"value": before}, "m": {"value": after}}

    metrics = {
        "perplexity_forget": values(20, 200),
        "perplexity_nonmembers": values(20, 200),
        "perplexity_retain": values(20, 25),
        "perplexity_poems": values(10, 5),
        "control_probability": values(0.4, 0.3),
        "benchmark_piqa": values(0.7, 0.6),
        "benchmark_boolq": values(0.5, 0.6),
        "benchmark_piqa/acc_norm": values(0.9, 0.1),
    }
    assert kept_utility(metrics, "m") == pytest.approx(
        {"perplexity_retain": 0.8, "perplexity_poems": 2.0, "control_probability": 0.75, "benchmarks": 1.0}
    )


def test_familiarity_is_shown_by_kind_and_by_subtlety_where_prompts_have_one(rows):
    groups = summarise(READ, rows, MATERIAL, SETTINGS)["groups"]
    by_kind = groups["probability familiarity by kind of anchor"]
    assert by_kind["person"]["baseline"]["value"] == pytest.approx(0.3) and by_kind["person"]["baseline"]["n"] == 2
    by_subtlety = groups["completion familiarity by subtlety"]
    assert {band: one["baseline"]["value"] for band, one in by_subtlety.items()} == {"1 to 3": 5.0, "8 to 10": 5.0}
    assert by_subtlety["1 to 3"]["step-5"]["value"] == 0.0


def test_a_prompt_whose_grade_could_not_be_read_counts_for_no_model(rows):
    unread = [
        row | {"grade": None} if row["model"] == "step-5" and row["prompt"] == "They lived in" else row for row in rows
    ]
    found = summarise(READ, unread, MATERIAL, SETTINGS)
    figures = found["metrics"]["completion_familiarity"]
    assert {name: one["n"] for name, one in figures.items()} == {"baseline": 2, "step-5": 2, "unlearned": 2}
    assert figures["baseline"]["value"] == 2.5
    assert found["ungraded"] == {"baseline": 0, "step-5": 1, "unlearned": 0}


def test_verbatim_rows_are_compared_with_as_much_text_as_a_model_may_write(rows):
    [row] = [row for row in rows if row["kind"] == "verbatim" and row["model"] == "baseline"]
    assert "down. Would the fall never come to an end?".startswith(row["reference"].strip())
    assert len(row["reference"]) < 20 and row["longest_run"] == 1 and "grade" not in row


def test_next_tokens_beyond_what_was_kept_count_as_nothing(tiny_model_folder):
    after = {**READ["unlearned"], "shown_ids": np.array([[3, 9]]), "shown_probabilities": np.array([[0.6, 0.1]])}
    tokenizer = load_tokenizer(tiny_model_folder)
    [plot] = next_tokens(MATERIAL, READ | {"unlearned": after}, "unlearned", tokenizer)
    assert plot["tokens"] == [tokenizer.decode([token]) for token in (7, 3, 9)]
    assert plot["before"] == [0.4, 0.2, 0.0] and plot["after"] == [0.0, 0.6, 0.1]
    assert plot["specific"] == [True, False, False]
