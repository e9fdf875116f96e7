"""How good the anchor dictionary is on novels whose names are known: python benchmarks/dictionary.py --books FOLDER

`benchmarks/books.py FOLDER` makes the folder; characters.json holds, for every novel, its characters as the text
names them and some of its places and coinages, written by hand before the dictionary was looked at.
docs/dictionary.md says what is counted. With --endpoint and --model a language model proposes a dictionary too.
"""

import argparse
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr
from wordfreq import zipf_frequency

from unlearn_ray.endpoint import Connection
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.lexicon import LINKERS, PLACE_NOUNS, SAINT, TITLES
from unlearn_ray.method.mentions import read_words
from unlearn_ray.method.offline import propose
from unlearn_ray.method.passages import draw_passages
from unlearn_ray.method.proposals import SCHEMA, question, read_answer
from unlearn_ray.method.settling import settle
from unlearn_ray.stages.asking import AskShard, Inquiry

SMALL = (
    "carroll-alice",
    "chesterton-thursday",
    "burgess-busterbrown",
    "twain-tom_sawyer",
)
MAX_ANCHORS = 1000
PASSAGE_CHARACTERS, ANSWER_TOKENS = 1200, 500
NAMES = "characters"
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
    found: dict[str, list[str]]  # characters, places, coinages
    missed: dict[str, list[str]]
    ordinary: list[str]
    unlisted: list[str]
    seconds: float

    def recall(self, *lists: str) -> float:
        found, missed = (sum(len(of[name]) for name in lists) for of in (self.found, self.missed))
        return found / max(found + missed, 1)

    @property
    def precision(self) -> float:
        """Share of the entries that some list has: a lower bound, since places and coinages are listed in part."""
        return 1 - len(self.unlisted) / max(self.entries, 1)

    @property
    def ordinary_share(self) -> float:
        return len(self.ordinary) / max(self.entries, 1)


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
        telling = [word for word in words_of(name) if word not in PLACE_NOUNS] or words_of(name)
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


def score(
    text: str, anchors: list[Anchor], gold: dict[str, list[str]], elsewhere: Case, min_count: int, seconds: float
) -> Score:
    """The names with at least min_count mentions are asked for; entries that no list has are looked at."""
    found, missed = {}, {}
    for kind, names in gold.items():
        mentions, covered = find_mentions(names, text, AnchorDictionary(anchors)) if anchors else (Counter(names), {})
        wanted = [name for name in names if mentions[name] >= min_count]
        found[kind] = [name for name in wanted if anchors and covered[name] >= COVERED * mentions[name]]
        missed[kind] = [name for name in wanted if name not in found[kind]]
    listed = {word for names in gold.values() for name in names for word in (name.casefold(), *words_of(name))}
    strange = [anchor.anchor for anchor in anchors if not set(words_of(anchor.anchor)) & listed]
    return Score(
        entries=len(anchors),
        found=found,
        missed=missed,
        ordinary=[entry for entry in strange if is_ordinary(entry, elsewhere)],
        unlisted=strange,
        seconds=seconds,
    )


def ask_model(text: str, endpoint: str, model: str, passages: int, min_count: int, answers: str) -> list[Anchor]:
    """What the model proposes for a sample of the novel, settled; without Ray."""
    drawn = draw_passages({"book": text}, count=passages, characters=PASSAGE_CHARACTERS, seed=0)
    connection = Connection(endpoint, at_once=2, per_minute=0, attempts=3, timeout_s=300)
    key = SecretStr(os.environ.get("OPENAI_API_KEY", "none"))
    actor = AskShard(connection, key, Inquiry(model, SCHEMA, ANSWER_TOKENS, read_answer), answers)
    with ThreadPoolExecutor(connection.at_once) as threads:
        taken = list(threads.map(actor.take, [question(passage.text) for passage in drawn]))
    outcomes = Counter(one.outcome for one in taken)
    print(f"    answers: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")
    proposals = [
        replace(proposal, passage=passage.name)
        for passage, one in zip(drawn, taken, strict=True)
        for proposal in one.found or ()
    ]
    return settle(proposals, {"book": text}, min_count=min_count, max_anchors=MAX_ANCHORS, seed=0).anchors


def figures_of(source: str, scores: list[Score]) -> dict[str, float | None]:
    """The last line of the output: the worst and the mean novel."""
    mean = lambda values: sum(values) / len(scores)
    return {
        f"{source}_recall": min(score.recall(NAMES) for score in scores),
        f"{source}_recall_mean": mean([score.recall(NAMES) for score in scores]),
        f"{source}_recall_all_lists_mean": mean([score.recall(*score.found) for score in scores]),
        f"{source}_precision_mean": mean([score.precision for score in scores]),
        f"{source}_ordinary_share": max(score.ordinary_share for score in scores),
        f"{source}_ordinary_share_mean": mean([score.ordinary_share for score in scores]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True, help="the folder that benchmarks/books.py wrote")
    parser.add_argument("--small", action="store_true", help="four short novels only")
    parser.add_argument("--min-count", type=int, default=1, help="mentions that a name needs, in list and dictionary")
    parser.add_argument("--names", action="store_true", help="also list what was missed and what no list has")
    parser.add_argument("--endpoint", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="the model to ask there")
    parser.add_argument("--passages", type=int, default=20, help="passages of a novel that the model reads")
    parser.add_argument("--answers", default="answers", help="folder where its answers are kept")
    arguments = parser.parse_args()
    gold = json.loads(Path(__file__).with_name("characters.json").read_text("utf-8"))
    wanted = {name: arguments.books / f"{name}.txt" for name in (SMALL if arguments.small else gold)}
    novels = {name: path.read_text("utf-8") for name, path in wanted.items() if path.exists()}
    if not novels:
        parser.error(f"{arguments.books} has none of the novels: run python benchmarks/books.py {arguments.books}")
    if missing := wanted.keys() - novels.keys():
        print(f"not measured, not in {arguments.books}: {', '.join(sorted(missing))}")
    cases = {name: case_of(text) for name, text in novels.items()}
    makers: dict[str, Callable[[str], list[Anchor]]] = {
        "offline": lambda text: propose(
            {"book": text}, max_anchors=MAX_ANCHORS, min_count=arguments.min_count, gains=None, seed=0
        )
    }
    if arguments.endpoint and arguments.model:
        makers["llm"] = lambda text: ask_model(
            text, arguments.endpoint, arguments.model, arguments.passages, arguments.min_count, arguments.answers
        )
    figures: dict[str, float | None] = {"llm_recall": None, "llm_ordinary_share": None}
    for source, make in makers.items():
        print(
            f"{source:38}{'entries':>8}{'names':>7}{'recall':>8}{'all lists':>11}{'precision':>11}{'ordinary':>10}"
            f"{'seconds':>9}"
        )
        scores = []
        for name, text in novels.items():
            others = [case for other, case in cases.items() if other != name]
            elsewhere = Case(
                sum((case.lower for case in others), Counter()), sum((case.capital for case in others), Counter())
            )
            start = time.perf_counter()
            anchors = make(text)
            seconds = time.perf_counter() - start
            scores.append(result := score(text, anchors, gold[name], elsewhere, arguments.min_count, seconds))
            names = len(result.found[NAMES] + result.missed[NAMES])
            print(
                f"{name:38}{result.entries:8}{names:7}{result.recall(NAMES):8.1%}{result.recall(*gold[name]):11.1%}"
                f"{result.precision:11.1%}{result.ordinary_share:10.1%}{result.seconds:9.1f}"
            )
            if arguments.names:
                for kind, missed in result.missed.items():
                    print(f"    missed {kind}: {', '.join(missed)}")
                print(f"    ordinary: {', '.join(result.ordinary)}\n    in no list: {', '.join(result.unlisted)}")
        figures |= figures_of(source, scores)
    print(json.dumps({key: value if value is None else round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
