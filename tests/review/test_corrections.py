import pyarrow as pa
import pytest

from unlearn_ray.method.blocks import tokenise
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.models import load_tokenizer
from unlearn_ray.review.corrections import continuation_ids, correct_labels, corrected_entries
from unlearn_ray.training.examples import hard_example, soft_example

ENTRIES = [Anchor("Hatter", "Pilot", "person", 3, ("gain",)), Anchor("Soup", "Stew"), Anchor("Alice", "Jane", "person")]
WHO = {"by": ["ann", "bob"], "at": "2026-11-22T10:00:00Z"}


def test_entries_are_corrected_dropped_added_and_made_alike_and_say_by_whom():
    decisions = [
        {"term": "Hatter", "action": "correct", "generic": "Baker", **WHO},
        {"term": "Soup", "action": "drop", **WHO},
        {"term": "Mad Hatter", "action": "add", "generic": "Old Baker", "kind": "person", **WHO},
        {"term": "Al", "action": "alias", "alias_of": "Alice", **WHO},
    ]
    entries, refused = corrected_entries(ENTRIES, decisions)
    assert not refused
    found = {entry.anchor: entry for entry in entries}
    assert found["Hatter"] == Anchor(
        "Hatter", "Baker", "person", 3, ("gain", "review: ann, bob 2026-11-22"), "reviewed"
    )
    assert found["Alice"] == ENTRIES[2], "what nobody touched is as it was"
    assert (found["Al"].generic, found["Al"].kind) == ("Jane", "person")
    assert "Soup" not in found and found["Mad Hatter"].sources == ("review: ann, bob 2026-11-22",)


def test_a_decision_that_does_not_go_with_the_rest_is_refused_alone():
    decisions = [
        {"term": "Soup", "action": "correct", "generic": "Alice's dish", **WHO},
        {"term": "Hatter", "action": "correct", "generic": "Baker", **WHO},
        {"term": "Dodo", "action": "alias", "alias_of": "Nobody", **WHO},
    ]
    entries, refused = corrected_entries(ENTRIES, decisions)
    assert {row["term"]: row["why"].split(":")[0] for row in refused} == {
        "Soup": "the translation is or contains an anchor",
        "Dodo": "Nobody is no other term of the dictionary",
    }
    assert {entry.anchor: entry.generic for entry in entries} == {"Hatter": "Baker", "Soup": "Stew", "Alice": "Jane"}


def table() -> pa.Table:
    """Two blocks of five tokens; position 0 has no label."""
    row = {"input_ids": [1, 2, 3, 4, 5], "labels_5": [IGNORED, 2, 9, 4, 5], "labels_2.5": [IGNORED, 2, 3, 4, 5],
           "baseline_prob": [0, 0.5, 0.25, 0.5, 0.5], "topk_ids": [[], [2, 7], [9, 7], [4, 7], [5, 7]],
           "topk_logprobs": [[], *[[-0.5, -1.0]] * 4]}  # fmt: skip
    ids, floats = pa.list_(pa.int32()), pa.list_(pa.float32())
    schema = {"block_id": pa.int64(), "input_ids": ids, "labels_5": ids, "labels_2.5": ids, "baseline_prob": floats,
              "topk_ids": pa.list_(ids), "topk_logprobs": pa.list_(floats)}  # fmt: skip
    return pa.Table.from_pylist([{"block_id": 10, **row}, {"block_id": 20, **row}], pa.schema(schema))


def corrected(better: str | None, tokens: list[int], label: int = 9, block: int = 20):
    decision = {"block_id": block, "position": 2, "label": label, "better": better}
    found, counts = correct_labels(table(), [decision], column="labels_5", continue_with=lambda before, text: tokens)
    return found, found.to_pylist()[1], dict(counts)


def test_a_masked_label_is_trained_neither_hard_nor_soft_and_nothing_else_changes():
    found, row, counts = corrected(None, [])
    assert found.schema == table().schema and found.slice(0, 1) == table().slice(0, 1)
    assert row["labels_5"] == [IGNORED, 2, IGNORED, 4, 5] and row["topk_ids"] == [[], [2, 7], [], [4, 7], [5, 7]]
    assert row["labels_2.5"] == [IGNORED, 2, 3, 4, 5], "there the label is another one, which nobody judged"
    assert counts == {"masked": 1}
    assert hard_example(row, "labels_5").positions_P.tolist() == soft_example(row).positions_P.tolist() == [1, 3, 4]


def test_a_better_token_replaces_the_label_with_certainty():
    _, row, counts = corrected(" cat", [8])
    example = soft_example(row)
    assert row["labels_5"] == [IGNORED, 2, 8, 4, 5] and counts == {"replaced": 1}
    at = example.positions_P.tolist().index(2)
    assert example.ids_PS[at].tolist()[0] == 8 and example.probs_PS[at].tolist() == [1.0, 0.0]


def test_a_longer_continuation_goes_on_only_while_it_is_the_text_itself():
    assert corrected(" x", [3, 6])[1]["labels_5"] == [IGNORED, 2, 3, 6, 5]
    assert corrected(" x", [8, 6])[1]["labels_5"] == [IGNORED, 2, 8, 4, 5]
    assert corrected(" x", [3, 4, 7, 7, 7])[1]["labels_5"] == [IGNORED, 2, 3, 4, 7]


def test_a_label_that_is_another_one_by_now_stays_and_is_counted():
    assert corrected(None, [], label=3)[2] == {"no_longer_there": 1}
    found, _, counts = corrected(None, [], block=30)
    assert found == table() and counts == {}


@pytest.mark.parametrize("text", [" Alice", " the White Rabbit", ","])
def test_continuations_have_the_tokens_of_running_text(tiny_model_folder, text):
    tokenizer = load_tokenizer(tiny_model_folder)
    [before, whole] = tokenise(tokenizer, ["the Queen", f"the Queen{text}"])
    assert continuation_ids(tokenizer, int(before.ids_T[-1]), text) == whole.ids_T[len(before.ids_T) :].tolist()
