"""What every model of a comparison is measured on: prompts, questions and blocks, prepared once. Free of Ray.

What is drawn at random depends on the seed and the forget set alone, so that all models, also those of other runs, are
compared item by item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast
from wordfreq import zipf_frequency

from unlearn_ray.config import Evaluate
from unlearn_ray.method.consistency import first_tokens
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import given_anchors
from unlearn_ray.method.keyness import candidates
from unlearn_ray.method.prompts import Prompt, anchor_prompts, verbatim_prompts

ORDINARY_ZIPF = 5.6  # words met more than about 400 times in a million: "the", "old", "Mr", but not "white" or "queen"
THEME_COUNT = 3
SHOWN_CANDIDATES = 24


@dataclass(frozen=True)
class Question:
    """A prompt with the answer whose probability is asked for, leading space included: ("the Mad", " Hatter");
    language: where it matters."""

    prompt: str
    answer: str
    language: str = ""


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt with the ids of the next tokens that would begin something specific to the forget set; kind: of the
    anchor that follows in the document, where the prompt was cut from one."""

    text: str
    specific: list[int]
    kind: str = ""


@dataclass(frozen=True)
class Material:
    """What every model of a comparison is measured on.

    texts: name -> blocks of token ids without leading ids; "forget" is the forget set, "retain" other prose,
    "nonmembers" text like the forget set that no model has read, all others neighbouring domains. `shown` are the
    prompts of which the likeliest next tokens are kept, for plots; `themes` the lower-case words typical of the forget
    set and no anchors, for the judge's grade 2.
    """

    probability: list[TokenPrompt]
    texts: dict[str, list[list[int]]]
    completion: list[Prompt]
    verbatim: list[Prompt]
    probes: list[Question]
    controls: list[Question]
    shown: list[TokenPrompt]
    completion_tokens: int
    themes: frozenset[str]


def prepare(
    settings: Evaluate,
    *,
    blocks: pa.Table,
    other_texts: Mapping[str, pa.Table],
    probes: list[Question],
    controls: list[Question],
    written: list[Prompt] | None = None,
    curated: Sequence[tuple[str, Sequence[str]]] | None = None,
    dictionary: AnchorDictionary,
    tokenizer: PreTrainedTokenizerFast,
) -> Material:
    """Draws the material. blocks, other_texts: tables of blocks.BLOCK_SCHEMA, the forget set whole and what else is
    read, by the names of Material.texts. written, curated: prompts that someone wrote, for completion and (with the
    words that would show knowledge) for the probability familiarity, instead of pieces of the documents.
    """
    documents = documents_of(blocks)
    tokens_of = specific_tokens(tokenizer, dictionary)
    if curated is None:
        drawn = anchor_prompts(documents, dictionary, settings.probability_prompts, settings.seed)
        probability = [replace(token_prompt(one.text, tokens_of, dictionary), kind=one.kind) for one in drawn]
    else:
        probability = [curated_prompt(text, next_words, tokenizer) for text, next_words in curated]
    asked = [token_prompt(question.prompt, tokens_of, dictionary) for question in probes]
    if written is None:
        # Another seed, so that the two familiarities do not stand on one draw of places.
        written = anchor_prompts(documents, dictionary, settings.completions, settings.seed + 1)
    return Material(
        probability=probability,
        texts={
            name: sample_blocks(text, settings.perplexity_blocks, settings.seed)
            for name, text in {"forget": blocks, **other_texts}.items()
        },
        completion=written,
        verbatim=verbatim_prompts(documents, settings.verbatim, settings.seed),
        probes=probes,
        controls=controls,
        shown=(asked + probability)[:SHOWN_CANDIDATES],
        completion_tokens=settings.completion_tokens,
        themes=theme_words(documents, dictionary),
    )


def shortages(material: Material, settings: Evaluate) -> dict[str, int]:
    """How many items fewer than were asked for the texts had room for, by kind; only the kinds that lack some."""
    wanted = len(material.probability) if settings.token_prompts else settings.probability_prompts
    lacking = {
        "probability prompts": wanted - len(material.probability),
        "completion prompts": settings.completions - len(material.completion),
        "verbatim prompts": settings.verbatim - len(material.verbatim),
    } | {f"blocks, {text}": settings.perplexity_blocks - len(blocks) for text, blocks in material.texts.items()}
    return {kind: count for kind, count in lacking.items() if count}


def documents_of(blocks: pa.Table) -> dict[str, str]:
    """The documents that were cut into these blocks, put together again: name -> text."""
    texts: dict[str, list[str]] = {}
    for row in (
        blocks.select(["document", "index", "text"])
        .sort_by([("document", "ascending"), ("index", "ascending")])
        .to_pylist()
    ):
        texts.setdefault(row["document"], []).append(row["text"])
    return {name: "".join(parts) for name, parts in texts.items()}


def theme_words(documents: Mapping[str, str], dictionary: AnchorDictionary) -> frozenset[str]:
    """The documents' idiosyncratic lower-case words (see keyness.py) that are no anchors, casefolded."""
    words = [found.anchor for found in candidates(documents, min_count=THEME_COUNT) if not found.anchor[0].isupper()]
    return frozenset(word.casefold() for word in words if not dictionary.spans(word))


def specific_tokens(tokenizer: PreTrainedTokenizerFast, dictionary: AnchorDictionary) -> list[set[int]]:
    """For each anchor, in the dictionary's order, the ids of the telling tokens it can begin with."""
    return telling_first_tokens(tokenizer, [anchor.anchor for anchor in dictionary.anchors])


def telling_first_tokens(tokenizer: PreTrainedTokenizerFast, names: Sequence[str]) -> list[set[int]]:
    """For each name the ids of the tokens it can begin with.

    Tokens that tell nothing of the name are left out, and a name may keep none: tokens of under 3 bytes of text (one or
    two Latin letters), and ordinary words (the "The" of "The Queen").
    """

    def telling(piece: str, name: str) -> bool:
        long_enough = len(piece.encode()) >= 3
        return name.startswith(piece) and long_enough and zipf_frequency(piece, "en") < ORDINARY_ZIPF

    def text(token: int) -> str:
        return str(tokenizer.decode([token])).strip()

    return [{token for token in first_tokens(tokenizer, name) if telling(text(token), name)} for name in names]


def token_prompt(text: str, tokens_of: Sequence[set[int]], dictionary: AnchorDictionary) -> TokenPrompt:
    """A prompt with the specific tokens of the anchors that it does not give away; tokens_of: from specific_tokens."""
    given = given_anchors(text, dictionary)
    new = set().union(*(tokens for anchor, tokens in enumerate(tokens_of) if anchor not in given))
    return TokenPrompt(text, sorted(new.difference(*(tokens_of[anchor] for anchor in given))))


def curated_prompt(text: str, next_words: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> TokenPrompt:
    """A prompt with the first tokens of `next_words`, each as it is tokenised right behind the prompt."""
    specific = set()
    for word in next_words:
        encoded = tokenizer(text + word, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        specific.add(next(token for token, (_, end) in pairs if end > len(text)))
    return TokenPrompt(text, sorted(specific))


def sample_blocks(blocks: pa.Table, count: int, seed: int) -> list[list[int]]:
    """The ids of at most `count` blocks of two tokens or more, drawn one from each of `count` equal stretches of the
    text."""
    ordered = blocks.sort_by([("document", "ascending"), ("index", "ascending")])["input_ids"]
    rng = np.random.default_rng(seed)
    rows = [row for row, ids in enumerate(ordered) if len(ids) > 1]
    stretches = np.array_split(rows, min(count, len(rows)) or 1)
    return [ordered[int(rng.choice(stretch))].as_py() for stretch in stretches if len(stretch)]
