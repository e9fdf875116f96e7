"""Every finding of `anchors check`, each on a dictionary that has it."""

from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.method.findings import Finding, check

TEXT = """Alice saw the White Rabbit. "Come, Alice!" cried the Rabbit to Bert. Nobody else came, and she went on.
Then she met Bert, who had a wand. She asked Bert, politely, for the wand. At home in London a Cat slept; the cat, a
cat."""


def found(entries: list[tuple[str, str]], texts: tuple[str, ...] = (TEXT,)) -> dict[str, Finding]:
    findings = check([Anchor(*entry) for entry in entries], texts)
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_errors_are_found_in_raw_entries_all_at_once():
    entries = [("Alice", "ALICE"), ("Ron", "Tom"), ("Ron", "Bob"), ("Fred", "George"), ("George", "Paul"), ("", "x")]
    findings = found(entries)
    assert findings["identity"].examples == ("Alice -> ALICE",)
    assert findings["duplicate"].examples == ("Ron -> Tom | Bob",)
    assert findings["chain"].examples == ("Fred -> George (has George)",)
    assert findings["empty"].examples == (" -> x",)
    assert {finding.level for finding in findings.values()} == {"error"}


def test_a_dictionary_without_entries_is_an_error():
    assert [(finding.level, finding.name) for finding in check([], [TEXT])] == [("error", "no entries")]


def test_what_concerns_the_texts_is_left_out_while_there_are_errors():
    findings = found([("Alice", "Alice"), ("kitchen", "room"), ("White", "Grey"), ("White Rabbit", "Hare")])
    assert findings.keys() == {"identity", "ordinary words", "prefixes"}


def test_ordinary_words_are_lower_case_and_frequent():
    findings = found([("wand", "stick"), ("parents", "elders"), ("butterbeer", "cider"), ("Rose", "Ann")])
    assert findings["ordinary words"].level == "warning"
    assert findings["ordinary words"].examples == ("wand", "parents")


def test_translations_of_several_anchors_and_entries_of_one_passage_are_named():
    entries = [Anchor("Alice", "Mary", support=1), Anchor("Bert", "mary", support=2), Anchor("Rabbit", "Fox")]
    findings = {finding.name: finding for finding in check(entries, (TEXT,))}
    assert findings["shared translations"].examples == ("mary <- Alice | Bert",)
    assert findings["single passage"].examples == ("Alice",)


def test_prefixes_are_whole_words_of_a_longer_anchor():
    findings = found([("White", "Grey"), ("White Rabbit", "Grey Hare"), ("Whi", "Foo")])
    assert findings["prefixes"].examples == ("White < White Rabbit",)


def test_entries_that_never_or_once_occur_are_named():
    findings = found([("Alice", "Clara"), ("White Rabbit", "Hare"), ("Gryphon", "Wyvern")])
    assert findings["unused"].level == "warning"
    assert findings["unused"].examples == ("Gryphon",)
    assert findings["single occurrence"].examples == ("White Rabbit",)


def test_coverage_counts_words_and_sentences():
    text = "Alice ran. Nobody saw Alice's cat, or the White Rabbit! Was it late? It was."
    findings = found([("Alice", "Clara"), ("White Rabbit", "Hare")], (text, "No name here."))
    assert findings["coverage"].message == "anchors make 22.2% of 18 words and are in 40.0% of 5 sentences"


def test_capitalised_words_within_sentences_that_no_anchor_covers_are_listed_by_frequency():
    findings = found([("Alice", "Clara"), ("White Rabbit", "Hare")])
    # Not "Nobody" or "Then", which begin sentences, nor "Cat", which is more often lower-case.
    assert findings["not in the dictionary"].examples == ("Bert (3)", "Rabbit (1)", "London (1)")
