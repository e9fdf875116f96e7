from unlearn_ray.method.choice import Candidate, choose, pareto_front


def candidate(model: str, familiarity: float, **kept: float) -> Candidate:
    return Candidate(model, familiarity, kept)


STEPS = [
    candidate("step-10", 0.30, facts=1.00, prose=1.02),
    candidate("step-20", 0.10, facts=0.97, prose=0.93),
    candidate("step-30", 0.10, facts=0.91, prose=0.99),
    candidate("unlearned", 0.01, facts=0.99, prose=0.70),
]


def test_the_least_familiar_is_chosen_of_those_that_kept_enough():
    assert choose(STEPS, 0.5).model == "unlearned"
    assert choose(STEPS, 0.08).model == "step-20"
    assert choose(STEPS, 0.1).model == "step-30"  # of equals the later
    assert choose(STEPS, 0.0).model == "step-10"


def test_where_none_kept_enough_the_one_that_lost_least_is_chosen():
    assert choose(STEPS[1:], 0.01).model == "step-20"


def test_what_suffered_most_counts_and_a_gain_elsewhere_does_not_make_up_for_it():
    assert [round(one.lost, 2) for one in STEPS] == [0.0, 0.07, 0.09, 0.3]


def test_the_pareto_front_leaves_out_what_another_beats():
    assert [one.model for one in pareto_front(STEPS)] == ["step-10", "step-20", "unlearned"]
    twins = [candidate("a", 0.1, facts=1.0), candidate("b", 0.1, facts=1.0)]
    assert pareto_front(twins) == twins
