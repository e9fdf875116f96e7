"""What translating costs beside tokenising: python benchmarks/translate.py --books FOLDER --tokenizer FOLDER

Translating and aligning run on CPUs ahead of the models; they are as good as free where they cost no more than the
tokenizer beside them. Measured on one core, on the blocks of real novels, with a dictionary of 1,600 entries made of
their own names and words. `benchmarks/books.py FOLDER` makes the folder of novels; the tokenizer is any model's.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unlearn_ray.method.alignment import align
from unlearn_ray.method.blocks import cut_blocks, tokenise
from unlearn_ray.method.counterparts import assign, folded_words
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.keyness import candidates
from unlearn_ray.method.translation import translate
from unlearn_ray.models import load_tokenizer

ENTRIES, BLOCK_TOKENS = 1600, 512
BLOCKS, SMALL_BLOCKS, LOOP_BLOCKS = 600, 100, 20
ROUNDS = 3  # of which the fastest counts


def dictionary_of(novels: dict[str, str]) -> AnchorDictionary:
    """The most key names and words of the novels, with counterparts."""
    found = [one for one in candidates(novels, min_count=1) if one.certain or one.count > 1][:ENTRIES]
    generic = assign(found, words=folded_words(novels), seed=0)
    return AnchorDictionary([Anchor(one.anchor, generic[one.anchor]) for one in found])


def fastest(work: Callable[[], list]) -> tuple[float, Any]:
    """Seconds of the fastest round, and what it gave."""
    seconds, result = [], None
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True, help="the folder that benchmarks/books.py wrote")
    parser.add_argument("--tokenizer", required=True, help="a model's folder or hub id")
    parser.add_argument("--small", action="store_true", help=f"{SMALL_BLOCKS} blocks instead of {BLOCKS}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    novels = {path.stem: path.read_text("utf-8") for path in sorted(arguments.books.glob("*.txt"))}
    if not novels:
        parser.error(f"{arguments.books} has no novels: run python benchmarks/books.py {arguments.books}")
    tokenizer = load_tokenizer(arguments.tokenizer)
    dictionary = dictionary_of(novels)
    every = [b for name, text in novels.items() for b in cut_blocks(name, text, tokenizer, BLOCK_TOKENS).to_pylist()]
    count = min(SMALL_BLOCKS if arguments.small else BLOCKS, len(every))
    blocks = [every[at * len(every) // count] for at in range(count)]  # evenly from all novels

    tokenising, _ = fastest(lambda: [tokenise(tokenizer, [b["text"]]) for b in blocks])
    translating, translated = fastest(
        lambda: [translate(b["text"], dictionary, b["before"], b["after"]) for b in blocks]
    )
    tokenising_translated, tokens = fastest(lambda: [tokenise(tokenizer, [one.text])[0] for one in translated])
    aligning, _ = fastest(
        lambda: [
            align(b["starts"], b["ends"], one, t.starts_T, t.ends_T)
            for b, one, t in zip(blocks, translated, tokens, strict=True)
        ]
    )
    patterns = [re.compile(rf"(?<!\w){re.escape(entry.anchor)}(?!\w)") for entry in dictionary.anchors]
    some = blocks[:LOOP_BLOCKS]
    matching, _ = fastest(lambda: [dictionary.spans(b["text"]) for b in some])
    looping, _ = fastest(lambda: [[p.span() for one in patterns for p in one.finditer(b["text"])] for b in some])

    print(f"{count} blocks of {BLOCK_TOKENS} tokens from {len(novels)} novels, on one core")
    found = sum(len(one.segments) for one in translated) / count
    print(f"{len(dictionary.anchors)} entries, {found:.1f} replacements a block\n")
    for name, seconds, of in (
        ("tokenise the text", tokenising, count),
        ("translate", translating, count),
        ("tokenise the translation", tokenising_translated, count),
        ("align", aligning, count),
        ("find the anchors (part of translate)", matching, len(some)),
        ("find them by a loop over the entries", looping, len(some)),
    ):
        print(f"{name:40}{1000 * seconds / of:9.3f} ms a block")
    figures = {
        "cost_over_tokenise": (translating + tokenising_translated + aligning) / tokenising,
        "translate_and_align_alone_over_tokenise": (translating + aligning) / tokenising,
        "speedup_over_loop": looping / matching,
        "entries": len(dictionary.anchors),
    }
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
