import pytest

from unlearn_ray.review.voting import dawid_skene, equal_share, krippendorff_alpha, majority, settle, squared


def test_alpha_of_a_small_table_worked_out_by_hand():
    # 3 questions, 2 annotators: values a a, b b, a b. Of 6 answers 3 are a, 3 are b.
    # observed 2 x 1 / (2 - 1) = 2 of 6; expected 2 x 3 x 3 / (6 - 1) = 3.6 of 6; alpha = 1 - 2 / 3.6.
    votes = {"x": {"ann": "a", "bob": "a"}, "y": {"ann": "b", "bob": "b"}, "z": {"ann": "a", "bob": "b"}}
    assert krippendorff_alpha(votes) == pytest.approx(1 - 2 / 3.6)
    assert equal_share(votes) == pytest.approx(2 / 3)


@pytest.mark.parametrize("distance", [None, squared])
def test_alpha_is_that_of_an_independent_implementation_also_with_gaps(distance):
    crowdkit, pandas = pytest.importorskip("crowdkit.metrics.data"), pytest.importorskip("pandas")
    table = ["012", "00-", "33-", "3-2", "111", "-10", "2-2", "313"]
    votes = {
        str(at): {by: grade for by, grade in zip(("ann", "bob", "eve"), row, strict=True) if grade != "-"}
        for at, row in enumerate(table)
    }
    rows = [(question, by, label) for question, of in votes.items() for by, label in of.items()]
    frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    options = [distance] if distance else []
    assert krippendorff_alpha(votes, *options) == pytest.approx(crowdkit.alpha_krippendorff(frame, *options))


def test_alpha_of_single_answers_or_of_one_label_alone_says_nothing():
    assert krippendorff_alpha({"x": {"ann": "a"}}) is None
    assert krippendorff_alpha({"x": {"ann": "a", "bob": "a"}}) is None


def test_a_tie_is_nobodys_answer():
    assert majority({"ann": "a", "bob": "b"}) is None
    assert majority({"ann": "a", "bob": "b", "eve": "b"}) == "b"
    assert majority({"ann": "a"}) == "a"
    assert majority({"ann": "a", "bob": "b", "eve": "c"}) is None


def test_dawid_skene_believes_those_who_agree_with_the_others():
    pytest.importorskip("crowdkit")
    votes = {f"q{at}": {"ann": "ab"[at % 2], "bob": "ab"[at % 2], "eve": "a"} for at in range(12)}
    votes["tie"] = {"ann": "b", "eve": "a"}
    assert majority(votes["tie"]) is None
    assert dawid_skene(votes, 0.8)["tie"] == "b"
    assert settle(votes, "dawid-skene", 0.8) == dawid_skene(votes, 0.8)


def test_dawid_skene_leaves_open_what_it_cannot_tell():
    pytest.importorskip("crowdkit")
    votes = {"x": {"ann": "a", "bob": "b"}, "y": {"ann": "b", "bob": "a"}}
    assert set(dawid_skene(votes, 0.8).values()) == {None}
