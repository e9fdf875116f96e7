import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from unlearn_ray.config import Evaluate
from unlearn_ray.material import (
    curated_prompt,
    documents_of,
    prepare,
    shortages,
    specific_tokens,
    theme_words,
    token_prompt,
)
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import load_tokenizer

BOOK = "\n\n".join(
    f"Chapter {n}. In the {n}th year nobody in the house could say on which day they had all sat down to tea, until "
    f"somebody called for {('Alice', 'the Hatter', 'a Dormouse')[n % 3]}, who came late and went away again."
    for n in range(30)
)
DICTIONARY = AnchorDictionary([Anchor("Alice", "Susan"), Anchor("Hatter", "Baker"), Anchor("Dormouse", "Squirrel")])


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: str) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_model_folder)


def test_specific_tokens_leave_out_what_tells_nothing_of_the_anchor(tokenizer):
    anchors = [Anchor("Alice", "Susan"), Anchor("The Queen", "A Ruler"), Anchor("Zq", "Xx")]
    alice, queen, letters = specific_tokens(tokenizer, AnchorDictionary(anchors))
    assert {tokenizer.decode([token]) for token in alice} <= {" Alice", "Alice", "Al", " Ali", "Ali"}
    assert tokenizer("see Alice")["input_ids"][-1] in alice
    assert queen == letters == set()


def test_tokens_of_given_anchors_are_not_specific_to_a_prompt():
    dictionary = AnchorDictionary(
        [Anchor(name, f"Other{name[0]}") for name in ("Alice", "Hatter", "White King", "White Rabbit")]
    )
    tokens_of = [{1}, {2}, {3, 4}, {3, 5}]
    assert token_prompt("Alice met", tokens_of, dictionary).specific == [2, 3, 4, 5]
    assert token_prompt("the White Rabbit met", tokens_of, dictionary).specific == [1, 2, 4]
    assert token_prompt("they met", tokens_of, dictionary).specific == [1, 2, 3, 4, 5]


def blocks_of(tokenizer: PreTrainedTokenizerFast) -> pa.Table:
    tables = [cut_blocks(name, BOOK, tokenizer, 32) for name in ("second", "first")]
    return pa.concat_tables(reversed(tables)).sort_by("block_id")


def test_documents_are_put_together_from_blocks_in_any_order(tokenizer):
    assert documents_of(blocks_of(tokenizer)) == {"first": BOOK, "second": BOOK}


def test_material_holds_what_was_asked_for_and_says_what_is_missing(tokenizer):
    settings = Evaluate(completions=5, probability_prompts=7, verbatim=3, perplexity_blocks=8)
    blocks = blocks_of(tokenizer)
    material = prepare(
        settings,
        blocks=blocks,
        other_texts={"retain": blocks.slice(0, 2)},
        probes=[],
        controls=[],
        dictionary=DICTIONARY,
        tokenizer=tokenizer,
    )
    ids = blocks["input_ids"].to_pylist()
    assert [len(part) for part in (material.completion, material.probability, material.verbatim)] == [5, 7, 3]
    assert len(material.texts["forget"]) == 8 and all(block in ids for block in material.texts["forget"])
    assert shortages(material, settings) == {"blocks, retain": 6}
    assert material.shown == material.probability


def test_theme_words_are_rare_lower_case_words_of_the_text_that_are_no_anchors():
    text = "She took the hookah and the teapot to the garden. Then the teapot and a hookah fell on the path. " * 8
    dictionary = AnchorDictionary([Anchor("hookah", "pipe")])
    assert theme_words({"book": text}, dictionary) >= {"teapot"}
    assert not theme_words({"book": text}, dictionary) & {"hookah", "garden", "the"}


def test_a_curated_prompt_has_the_first_tokens_of_its_words_as_they_stand_behind_it(tokenizer):
    prompt = curated_prompt("the Mad", [" Hatter", " Queen of Hearts", "ness"], tokenizer)
    expected = {tokenizer("the Mad" + word)["input_ids"][len(tokenizer("the Mad")["input_ids"])] for word in
                (" Hatter", " Queen of Hearts", "ness")}  # fmt: skip
    assert set(prompt.specific) == expected and len(expected) == 3
