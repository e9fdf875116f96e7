import numpy as np
import pytest

from unlearn_ray.method.memorisation import extraction_strength, longest_run, min_k, min_k_plus_plus, rouge_l


def test_rouge_l_is_the_f_measure_of_the_longest_common_run_of_words_in_order():
    # common subsequence "the cat on mat": 4 of 6 reference words, 4 of 5 words of the completion
    assert rouge_l("the cat sat on the mat", "The cat, on a mat!") == pytest.approx(
        2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5)
    )


def test_rouge_l_reads_other_scripts_than_latin():
    assert rouge_l("Анна пошла домой", "анна ушла домой") == pytest.approx(2 / 3)
    assert rouge_l("爱丽丝很累", "爱丽丝不累") == pytest.approx(4 / 5)


def test_the_longest_run_is_counted_in_words_that_follow_each_other():
    assert longest_run("the cat sat on the mat", "He said: the cat sat, on a mat on the mat") == 4
    assert longest_run("one two", "three") == longest_run("", "") == 0


def test_extraction_strength_is_the_share_behind_the_shortest_prefix_that_brings_the_rest():
    assert extraction_strength([False, True, False, True, True, True, True, True]) == pytest.approx(5 / 8)
    assert extraction_strength([True] * 4) == 1.0
    assert extraction_strength([True, True, False]) == 0.0


def test_min_k_is_the_mean_of_the_least_likely_fifth():
    logprobs = np.log([0.9, 0.5, 0.01, 0.3, 0.7, 0.02, 0.4, 0.6, 0.8, 0.2])
    assert min_k(logprobs) == pytest.approx((np.log(0.01) + np.log(0.02)) / 2)
    assert min_k(logprobs[:3]) == pytest.approx(np.log(0.01))


def test_min_k_plus_plus_measures_each_token_against_what_the_model_expects_there():
    # Token 0 is the least likely, but where every token is unlikely; token 1 is two deviations under its mean.
    logprobs, means, deviations = np.array([-6.0, -3.0, -1.0]), np.array([-6.0, -1.0, -1.0]), np.array([1.0, 1.0, 0.0])
    assert min_k_plus_plus(logprobs, means, deviations) == pytest.approx(-2.0)
