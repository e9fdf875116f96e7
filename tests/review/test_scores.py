import numpy as np
import pytest

from unlearn_ray.review.scores import corrected_scores


def row(model: str, number: int, grade: int | None, subtlety: int | None = None) -> dict:
    return {"kind": "familiarity", "model": model, "prompt": f"p{number}", "completion": f"{model} {number}",
            "grade": grade, "subtlety": subtlety}  # fmt: skip


def by_people(model: str, number: int, grade: int) -> dict:
    return {"prompt": f"p{number}", "completion": f"{model} {number}", "grade": grade}


def scores(rows, graded):
    return corrected_scores(rows, graded, resamples=4000, seed=1)


def test_the_corrected_score_is_that_of_a_small_table_worked_out_by_hand():
    # The judge gives 3 to four of ten completions: familiarity 5 x 4 / 10 = 2. People looked at two of them and gave 3
    # and 0: each 3 is worth 2.5. They looked at two of the six 0 and gave 0 and 2: each 0 is worth 0.5.
    rows = [row("m", number, 3 if number < 4 else 0) for number in range(10)]
    graded = [by_people("m", *pair) for pair in ((0, 3), (1, 0), (4, 0), (5, 2))]
    found = scores(rows, graded)
    figures = found["models"]["m"]
    assert figures["judged"] == 2.0
    assert figures["corrected"]["value"] == pytest.approx(0.4 * 2.5 + 0.6 * 0.5)
    assert found["confusion"] == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert (figures["audited"], figures["not_audited"], found["equal"]) == (4, 0, 0.5)


def test_a_sample_that_takes_rare_grades_more_often_is_no_bias():
    rng = np.random.default_rng(0)
    truth = {number: int(rng.choice([0, 3], p=[0.8, 0.2])) for number in range(2000)}
    rows = [row("m", number, 3 if grade == 3 and number % 4 else 0) for number, grade in truth.items()]
    audited = [one for one in rows if one["grade"] == 3][:100] + [one for one in rows if one["grade"] == 0][:100]
    graded = [{**one, "grade": truth[int(one["prompt"][1:])]} for one in audited]
    figure = scores(rows, graded)["models"]["m"]["corrected"]
    true = 5 * np.mean([grade == 3 for grade in truth.values()])
    assert figure["low"] < true < figure["high"]
    assert abs(figure["value"] - true) < 0.25 < abs(5 * np.mean([one["grade"] == 3 for one in rows]) - true)


def test_a_few_answers_that_all_agree_are_no_certainty():
    rows = [row("m", number, 0) for number in range(50)]
    few = scores(rows, [by_people("m", number, 0) for number in range(5)])["models"]["m"]["corrected"]
    many = scores(rows, [by_people("m", number, 0) for number in range(50)])["models"]["m"]["corrected"]
    assert few["value"] == many["value"] == 0 == few["low"]
    assert few["high"] > 3 * many["high"] > 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    for _ in range(60):
        grades = rng.choice([0, 0, 0, 3], size=60)
        rows = [row("m", number, int(grade)) for number, grade in enumerate(grades)]
        people = np.where(rng.random(60) < 0.2, 2, grades)
        graded = [by_people("m", number, int(people[number])) for number in range(30)]
        figure = corrected_scores(rows, graded, resamples=500, seed=1)["models"]["m"]["corrected"]
        held += figure["low"] <= 0.25 * 0.8 * 5 + 0.2 * 1 <= figure["high"]
    assert held >= 52  # of 60; 57 are expected


def test_what_nobody_graded_takes_from_other_models_and_then_from_the_judge_and_is_counted():
    rows = [row("before", number, 3) for number in range(4)] + [row("after", number, grade) for number, grade in
                                                               enumerate((3, 3, 2, 2))]  # fmt: skip
    figures = scores(rows, [by_people("before", 0, 0), by_people("before", 1, 0)])["models"]
    assert figures["after"]["corrected"]["value"] == pytest.approx(0.5 * 0 + 0.5 * 1)
    assert (figures["after"]["audited"], figures["after"]["not_audited"]) == (0, 2)


def test_prompts_without_a_grade_are_left_out_for_every_model():
    rows = [row("before", 0, None), row("before", 1, 3), row("after", 0, 3), row("after", 1, 0)]
    figures = scores(rows, [by_people("before", 1, 3)])["models"]
    assert figures["after"]["corrected"]["n"] == 1 and figures["after"]["judged"] == 0
