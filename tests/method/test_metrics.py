import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unlearn_ray.method.metrics import Figure, Ranks, compare, estimate, familiarity_items, mean_items, perplexity_items


def bounds(figure: Figure) -> tuple[float, float]:
    assert figure.low is not None and figure.high is not None
    return figure.low, figure.high


def test_familiarity_is_five_times_grade_three_plus_grade_two_over_all_prompts():
    grades = np.array([3, 3, 2, 1, 0, 0, 0, 0])
    assert estimate(familiarity_items(grades), 100, 0).value == pytest.approx((5 * 2 + 1) / 8)


def test_perplexity_weighs_blocks_by_their_tokens():
    items = perplexity_items(np.array([10.0, 900.0]), np.array([10.0, 300.0]))
    assert estimate(items, 100, 0).value == pytest.approx(np.exp(910 / 310))


def test_interval_covers_the_true_mean_about_19_times_in_20():
    rng = np.random.default_rng(7)
    samples = rng.exponential(2.0, size=(400, 60))
    figures = [estimate(mean_items(sample), 400, seed) for seed, sample in enumerate(samples)]
    covered = np.mean([low < 2.0 < high for low, high in map(bounds, figures)])
    assert 0.88 < covered < 0.98


def test_interval_of_a_ratio_is_that_of_a_slow_bootstrap():
    rng = np.random.default_rng(3)
    nll, tokens = rng.uniform(50, 150, 20), rng.uniform(20, 60, 20)
    drawn = np.random.default_rng(11).integers(0, 20, size=(200, 20))
    slow = [np.exp(sum(nll[i] for i in row) / sum(tokens[i] for i in row)) for row in drawn]
    figure = estimate(perplexity_items(nll, tokens), 200, 11)
    assert bounds(figure) == pytest.approx((sorted(slow)[4], sorted(slow)[195]))


def test_paired_change_is_surer_than_the_two_figures_it_compares():
    before = np.random.default_rng(0).uniform(0, 1, 50)
    change = compare(mean_items(before), mean_items(before * 0.25), 500, 0)
    assert change.relative.value == pytest.approx(-0.75)
    assert (change.relative.low, change.relative.high) == pytest.approx((-0.75, -0.75))
    low, high = bounds(estimate(mean_items(before), 500, 0))
    assert high - low > 0.1


def test_change_relative_to_nothing_is_not_defined_but_the_difference_is():
    change = compare(mean_items(np.zeros(5)), mean_items(np.ones(5)), 100, 0)
    assert change.relative.value is None
    assert (change.absolute.value, change.absolute.n) == (1.0, 5)


def test_resamples_without_a_before_widen_the_interval_until_it_is_given_up():
    before = np.array([1.0] * 4 + [0.0] * 36)  # 1.5% of resamples hold none of the four
    change = compare(mean_items(before), mean_items(before / 2), 2000, 0)
    assert bounds(change.relative) == (-0.5, -0.5)
    before[:2] = 0.0  # 13% of them
    assert compare(mean_items(before), mean_items(before / 2), 2000, 0).relative.low is None


def test_one_item_has_a_value_and_no_interval_and_none_has_neither():
    one, none = estimate(mean_items(np.array([0.4])), 100, 0), estimate(mean_items(np.zeros(0)), 100, 0)
    assert (one.value, one.low, one.n) == (0.4, None, 1)
    assert (none.value, none.high, none.n) == (None, None, 0)


def test_different_items_cannot_be_compared():
    with pytest.raises(ValueError, match="5 before, 4 after"):
        compare(mean_items(np.zeros(5)), mean_items(np.zeros(4)), 10, 0)


def test_membership_is_the_area_under_the_curve_with_its_bootstrap_over_both_samples():
    rng = np.random.default_rng(2)
    members, others = rng.normal(0.8, 1, 30).round(1), rng.normal(0, 1, 20).round(1)  # rounded: some are equal
    figure = estimate(Ranks(members, others), 300, 5)
    assert figure.n == 50
    assert figure.value == pytest.approx(roc_auc_score([1] * 30 + [0] * 20, np.concatenate([members, others])))
    drawn = np.random.default_rng(5)
    rows, columns = drawn.integers(0, 30, size=(300, 30)), drawn.integers(0, 20, size=(300, 20))
    slow = [
        roc_auc_score([1] * 30 + [0] * 20, np.concatenate([members[row], others[column]]))
        for row, column in zip(rows, columns, strict=True)
    ]
    assert bounds(figure) == pytest.approx((sorted(slow)[7], sorted(slow)[292]))


def test_membership_needs_texts_of_both_kinds():
    assert estimate(Ranks(np.ones(4), np.zeros(0)), 10, 0).value is None
