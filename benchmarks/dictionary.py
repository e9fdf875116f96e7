"""How good the anchor dictionary is on novels whose characters are known: python benchmarks/dictionary.py --books
FOLDER

`benchmarks/books.py FOLDER` makes the folder; characters.json holds, for every novel, its characters as the text
names them and some of its places and coinages, written by hand before the dictionary was looked at.
docs/dictionary.md says what is counted.
"""

import argparse
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wordfreq import zipf_frequency

from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.lexicon import LINKERS, SAINT, TITLES
from unlearn_ray.method.mentions import read_words
from unlearn_ray.method.offline import propose

SMALL = (
    "carroll-alice",
    "chesterton-thursday",
    "burgess-busterbrown",
    "twain-tom_sawyer",
)
MAX_ANCHORS, MIN_COUNT = 400, 3
KNOWN_WORD = 3.0  # on the Zipf scale: once in a million words
COVERED = 0.9  # of a name's mentions
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
UNCOUNTED = LINKERS | TITLES | SAINT | {"the"}


@dataclass(frozen=True)
class Case:
    """How often words stand in lower case and capitalised where a sentence cannot begin."""

    lower: Counter[str]
    capital: Counter[str]

    def mostly_lower(self, word: str) -> bool:
        return self.lower[word] > self.capital[word]


@dataclass(frozen=True)
class Score:
    entries: int
    found: list[str]  # names, of which found_often with at least MIN_COUNT mentions
    found_often: int
    missed: list[str]
    missed_rare: list[str]
    ordinary: list[str]
    unlisted: list[str]
    seconds: float

    @property
    def recall(self) -> float:
        """Share of the characters' names that the book mentions at least MIN_COUNT times."""
        return self.found_often / (self.found_often + len(self.missed))

    @property
    def recall_of_all(self) -> float:
        return len(self.found) / (len(self.found) + len(self.missed) + len(self.missed_rare))

    @property
    def ordinary_share(self) -> float:
        return len(self.ordinary) / self.entries


def words_of(name: str) -> list[str]:
    """The words of a name that tell it from others: "Lady Catherine de Bourgh" -> catherine, bourgh."""
    words = [word.strip(".").casefold() for word in name.replace("’", "'").split()]
    return [word for word in words if word not in UNCOUNTED] or words


def find_mentions(names: list[str], text: str, dictionary: AnchorDictionary) -> tuple[Counter[str], Counter[str]]:
    """How often each name stands in the text, and how often the dictionary's entries cover the words that tell it from
    others."""
    covered = bytearray(len(text))
    for span in dictionary.spans(text):
        covered[span.start : span.end] = b"\1" * (span.end - span.start)
    mentions, found = Counter[str](), Counter[str]()
    for name in names:
        telling = words_of(name)
        pattern = r"(?<!\w)" + r"\s+".join(re.escape(part) for part in name.split()) + r"(?!\w)"
        for mention in re.finditer(pattern, text):
            words = [word for word in WORD.finditer(mention.group()) if word.group().casefold().strip("'’") in telling]
            mentions[name] += 1
            found[name] += all(covered[mention.start() + word.start()] for word in words)
    return mentions, found


def case_of(text: str) -> Case:
    case = Case(Counter(), Counter())
    for word in read_words(text):
        if not word.opens and not word.shouted:
            (case.capital if word.capital else case.lower)[word.fold] += 1
    return case


def is_ordinary(entry: str, elsewhere: Case) -> bool:
    """Whether the entry is a word that belongs to English: it is in lower case itself, or one known word that the other
    novels mostly write in lower case. Capitalised entries of several words are names ("Daily Reformer")."""
    if entry.islower():
        return True
    telling = words_of(entry)
    return len(telling) == 1 and zipf_frequency(telling[0], "en") >= KNOWN_WORD and elsewhere.mostly_lower(telling[0])


def score(text: str, gold: dict[str, list[str]], elsewhere: Case) -> Score:
    start = time.perf_counter()
    anchors = propose({"book": text}, max_anchors=MAX_ANCHORS, min_count=MIN_COUNT, gains=None, seed=0)
    seconds = time.perf_counter() - start
    mentions, covered = find_mentions(gold["characters"], text, AnchorDictionary(anchors))
    found = [name for name, count in mentions.items() if covered[name] >= COVERED * count]
    missed = [name for name in mentions if name not in found]
    listed = {word for names in gold.values() for name in names for word in (name.casefold(), *words_of(name))}
    strange = [anchor.anchor for anchor in anchors if not set(words_of(anchor.anchor)) & listed]
    return Score(
        entries=len(anchors),
        found=found,
        found_often=sum(mentions[name] >= MIN_COUNT for name in found),
        missed=[name for name in missed if mentions[name] >= MIN_COUNT],
        missed_rare=[name for name in missed if mentions[name] < MIN_COUNT],
        ordinary=[entry for entry in strange if is_ordinary(entry, elsewhere)],
        unlisted=strange,
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--books",
        type=Path,
        required=True,
        help="the folder that benchmarks/books.py wrote",
    )
    parser.add_argument("--small", action="store_true", help="four short novels only")
    parser.add_argument(
        "--names",
        action="store_true",
        help="also list what was missed and what no list has",
    )
    arguments = parser.parse_args()
    gold = json.loads(Path(__file__).with_name("characters.json").read_text("utf-8"))
    wanted = {name: arguments.books / f"{name}.txt" for name in (SMALL if arguments.small else gold)}
    novels = {name: path.read_text("utf-8") for name, path in wanted.items() if path.exists()}
    if not novels:
        parser.error(f"{arguments.books} has none of the novels: run python benchmarks/books.py {arguments.books}")
    if missing := wanted.keys() - novels.keys():
        print(f"not measured, not in {arguments.books}: {', '.join(sorted(missing))}")
    cases = {name: case_of(text) for name, text in novels.items()}
    print(f"{'novel':38}{'entries':>8}{'names':>7}{'recall':>8}{'of all':>8}{'ordinary':>10}{'share':>7}{'seconds':>9}")
    scores = []
    for name, text in novels.items():
        others = [case for other, case in cases.items() if other != name]
        elsewhere = Case(
            sum((case.lower for case in others), Counter()),
            sum((case.capital for case in others), Counter()),
        )
        scores.append(result := score(text, gold[name], elsewhere))
        print(
            f"{name:38}{result.entries:8}{result.found_often + len(result.missed):7}{result.recall:8.1%}"
            f"{result.recall_of_all:8.1%}{len(result.ordinary):10}{result.ordinary_share:7.1%}{result.seconds:9.1f}"
        )
        if arguments.names:
            print(f"    missed: {', '.join(result.missed)}\n    missed, rare: {', '.join(result.missed_rare)}")
            print(f"    ordinary: {', '.join(result.ordinary)}\n    in no list: {', '.join(result.unlisted)}")
    entries, ordinary = (
        sum(s.entries for s in scores),
        sum(len(s.ordinary) for s in scores),
    )
    figures = {
        "offline_recall": min(s.recall for s in scores),
        "offline_recall_mean": sum(s.recall for s in scores) / len(scores),
        "offline_recall_of_all_mean": sum(s.recall_of_all for s in scores) / len(scores),
        "offline_ordinary_share": max(s.ordinary_share for s in scores),
        "offline_ordinary_share_mean": ordinary / entries,
        "llm_recall": None,
        "llm_ordinary_share": None,
    }
    print(json.dumps({key: value if value is None else round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
