"""What changes in a block once an anchor has occurred."""

import numpy as np
import torch

from unlearn_ray.method.alignment import Occurrence
from unlearn_ray.method.consistency import first_token_forms, repeat_starts, substitutions
from unlearn_ray.method.labels import gains, generic_logits, substitute

HARRY, JON = 0, 1


def test_only_second_and_later_occurrences_are_repeats():
    occurrences = [
        Occurrence(0, 3, 4, True),
        Occurrence(1, 6, 6, True),
        Occurrence(0, 9, 9, True),
        Occurrence(0, 12, 13, True),
    ]
    assert repeat_starts(occurrences) == [8, 11]


def test_an_anchor_has_occurred_from_its_last_token_on():
    found = substitutions([Occurrence(0, 3, 5, True)], np.array([2, 4, 5, 8]), {0: [(70, 7)]}, "restore")
    assert found.rows_N.tolist() == [2, 3]  # positions 5 and 8
    assert found.generic_ids_N.tolist() == [70, 70] and found.anchor_ids_N.tolist() == [7, 7]
    assert substitutions([Occurrence(0, 3, 5, True)], np.array([8]), {0: [(70, 7)]}, "paper").anchor_ids_N.tolist() == [
        -1
    ]


def substituted(logits, pairs):
    rows, generics, anchors = (torch.tensor(part) for part in zip(*pairs, strict=True))
    return substitute(torch.tensor([logits]), rows, generics, anchors)[0].tolist()


def test_restore_gives_the_translations_logit_back_to_the_anchor():
    assert substituted([1.0, 9.0, 2.0, 0.0], [(0, JON, HARRY)]) == [9.0, 3.0, 2.0, 0.0]


def test_restore_never_takes_from_an_anchor_that_had_more():
    assert substituted([8.0, 4.0, 0.0, 0.0], [(0, JON, HARRY)]) == [8.0, 3.0, 0.0, 0.0]


def test_paper_only_lowers_the_translation_to_the_mean():
    assert substituted([1.0, 9.0, 2.0, 0.0], [(0, JON, -1)]) == [1.0, 3.0, 2.0, 0.0]


def test_the_order_of_anchors_does_not_matter_when_one_token_serves_two():
    pairs = [(0, 1, 0), (0, 3, 0), (0, 2, 1)]
    assert (
        substituted([1.0, 5.0, 7.0, 6.0], pairs)
        == substituted([1.0, 5.0, 7.0, 6.0], pairs[::-1])
        == [6.0, 7.0, 4.75, 4.75]
    )


def test_generic_logits_penalise_gainsonly():
    v_baseline = torch.tensor([[1.0, 2.0, 3.0]])
    got = generic_logits(v_baseline, gains(torch.tensor([[2.0, 1.0, 3.0]]), v_baseline), 5.0)
    assert got.tolist() == [[-4.0, 2.0, 3.0]]


def test_forms_pair_the_token_after_a_space_with_the_token_after_a_space(tiny_model_folder):
    from unlearn_ray.models import load_tokenizer

    tokenizer = load_tokenizer(tiny_model_folder)
    forms = first_token_forms(tokenizer, "Alice", "Queen")
    shown = {(tokenizer.decode([generic]), tokenizer.decode([anchor])) for generic, anchor in forms}
    assert shown
    for generic, anchor in shown:
        assert generic.startswith(" ") == anchor.startswith(" ")
        assert "Queen".startswith(generic.strip()) and "Alice".startswith(anchor.strip())
