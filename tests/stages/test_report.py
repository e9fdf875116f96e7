import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.models import load_tokenizer
from unlearn_ray.stages.attacks import attack_table, not_tested, relearnings
from unlearn_ray.stages.evaluate import COMPLETION_SCHEMA
from unlearn_ray.stages.plots import curve, recovery
from unlearn_ray.stages.report import ReportData, collect, render, token_texts, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = '<script>alert("completion")</script>'
VOID = {"meta", "link", "br", "input", "img", "line", "circle", "polyline"}


def figure(value: float | None, n: int = 9) -> dict:
    return {
        "value": value,
        "low": None if value is None else value * 0.8,
        "high": None if value is None else value * 1.2,
        "n": n,
    }


METRICS = {
    "models": ["baseline", "reinforced", "step-4", "step-8", "unlearned"],
    "choice": {
        "model": "unlearned", "rule": "least familiar",
        "within_tolerance": False, "pareto": ["step-8", "unlearned"],
        "candidates": [{"model": "step-4", "familiarity": 0.02, "lost": 0.02},
                       {"model": "step-8", "familiarity": 0.01, "lost": 0.0},
                       {"model": "unlearned", "familiarity": 0.004, "lost": 0.03}],
    },
    "groups": {"familiarity by kind": {"person": {"baseline": figure(0.03), "unlearned": figure(0.01)}}},
    "ungraded": {"baseline": 0, "unlearned": 0},
    "metrics": {
        "completion_familiarity": {"baseline": figure(0.625), "step-4": figure(0.5), "step-8": figure(0.25),
                                   "unlearned": figure(0.0)},
        "probability_familiarity": {"baseline": figure(0.0312), "reinforced": figure(0.25), "step-4": figure(0.02),
                                    "step-8": figure(0.01), "unlearned": figure(0.004)},
        "perplexity_retain": {"baseline": figure(36.31), "step-4": figure(37.0), "step-8": figure(37.2),
                              "unlearned": figure(37.4)},
    },
    "changes": {
        "completion_familiarity": {"absolute": figure(-0.625), "relative": figure(-1.0)},
        "probability_familiarity": {"absolute": figure(-0.0272), "relative": figure(-0.872)},
        "perplexity_retain": {"absolute": figure(1.09), "relative": figure(None)},
    },
    "grades": {"baseline": {"0": 7, "1": 0, "2": 1, "3": 1}, "unlearned": {"0": 9, "1": 0, "2": 0, "3": 0}},
    "next_token": [
        {"prompt": f"the {EVIL}", "tokens": [" Mad", "<b>", "\n"], "specific": [True, False, False],
         "before": [0.5, 0.25, 0.0], "after": [0.001, 0.3, 0.2]},
    ],
    "settings": {"bootstrap": 200, "seed": 1, "judge": {"source": "dictionary"}},
    "dropped": {"verbatim prompts": 3},
}  # fmt: skip


def attack(
    name: str, condition: str, measure: str, *, before: float, after: float, change: float | None = None
) -> dict:
    """The change has an interval of +-0.01."""
    moved = {"value": change, "low": (change or 0) - 0.01, "high": (change or 0) + 0.01, "n": 9}
    return {"attack": name, "condition": condition, "measure": measure, "to_baseline": figure(after - before),
            "figures": {"baseline": figure(before), "unlearned": figure(after)},
            "to_no_attack": {} if change is None else {"baseline": moved, "unlearned": moved}}  # fmt: skip


AUDIT = {
    "title": "Alice",
    "models": ["baseline", "unlearned"],
    "attacks": [
        attack("no attack", "", "probability_familiarity", before=0.03, after=0.004),
        attack("quantisation", "4 bits", "probability_familiarity", before=0.03, after=0.024, change=0.02),
        attack("quantisation", "8 bits", "probability_familiarity", before=0.03, after=0.005, change=0.001),
        attack("relearning", "part, step 0", "probability_familiarity", before=0.03, after=0.004),
        attack("relearning", "part, step 8", "probability_familiarity", before=0.04, after=0.031),
        attack("translation", "own words", "generic_probability", before=0.01, after=0.017),
    ],
    "not_tested": {"languages": "no questions: audit.languages"},
}


def answer(model: str, completion: str, grade: int | None, named: list[str]) -> dict:
    kind, rouge_l = ("verbatim", 0.25) if grade is None else ("familiarity", None)
    return {"kind": kind, "prompt": "They met the Mad", "reference": "Hatter", "subtlety": None, "model": model,
            "completion": completion, "grade": grade, "rouge_l": rouge_l, "anchors_named": named}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, tiny_model_folder: str) -> ReportData:
    tokenizer = load_tokenizer(tiny_model_folder)
    folders = {name: tmp_path / name for name in ("anchors", "labels", "unlearned", "evaluation", "audit")}
    for seconds, (name, folder) in enumerate(folders.items(), start=1):
        folder.mkdir()
        manifest = {"digest": "0123456789", "seconds": float(seconds), "finished": "2026-01-02T03:04:05+00:00",
                    "rows": {"blocks": 12}, "params": {"stage": name}, "figures": {}, "libraries": {}}  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
    anchors = [Anchor("Mad Hatter", "Old Baker", support=7), Anchor("<img src=x>", "Nobody"), Anchor("Alice", "Susan")]
    (folders["anchors"] / "dictionary.jsonl").write_text(AnchorDictionary(anchors).to_jsonl())
    ids = tokenizer("Alice met the Mad Hatter")["input_ids"]
    other = tokenizer(" garden")["input_ids"][0]
    rows = [
        {"document": "dull", "index": 0, "input_ids": ids, "labels_2.5": ids},
        {"document": "book", "index": 4, "input_ids": ids, "labels_2.5": [-100, other, *ids[2:]]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folders["labels"] / "shard-0.parquet")
    (folders["evaluation"] / "metrics.json").write_text(json.dumps(METRICS))
    (folders["audit"] / "audit.json").write_text(json.dumps(AUDIT))
    rows = [
        answer("baseline", " Hatter and Alice, " + EVIL, 3, ["Mad Hatter", "Alice"]),
        answer("unlearned", " dog.", 0, []),
        answer("baseline", " Hatter", None, []),
        answer("unlearned", " dog.", None, []),
    ]
    pq.write_table(pa.Table.from_pylist(rows, COMPLETION_SCHEMA), folders["evaluation"] / "completions.parquet")
    paths = {name: str(folder) for name, folder in folders.items()}
    return collect(paths, forget_set="alice <3", baseline="some/model", alpha=2.5, tokenizer=tokenizer)


class Page(HTMLParser):
    """Collects tags with their attributes and the text, and fails where tags are not closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(data: ReportData, tmp_path: Path) -> Page:
    return Page(Path(write_report(str(tmp_path), data)).read_text(encoding="utf-8"))


def test_text_of_documents_and_models_is_shown_and_never_run(page: Page):
    assert [tag for tag, _ in page.tags].count("script") == 1, "only the page's own"
    assert not [attrs for tag, attrs in page.tags if tag == "img" or "src" in attrs]
    assert EVIL in page.text
    assert "<img src=x>" in page.text


def test_page_asks_the_network_for_nothing(page: Page):
    assert not [attrs for _, attrs in page.tags if {"src", "href"} & attrs.keys()]
    policy = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert "default-src 'none'" in policy


def test_every_figure_stands_with_its_n_and_interval(page: Page):
    assert "0.625 [0.500, 0.750]" in page.text
    assert "36.31 [29.05, 43.57]" in page.text
    assert "−87%" in page.text
    assert re.search(r"Perplexity, other prose.*?\s9\s", page.text, re.DOTALL)
    assert "3 verbatim prompts fewer than asked for" in page.text
    tips = [attrs["data-tip"] for _, attrs in page.tags if "data-tip" in attrs]
    assert "step-4: 0.0200 [0.0160, 0.0240], n = 9" in tips


def test_a_change_without_a_value_is_a_dash(page: Page):
    assert "–" in page.text
    assert "None" not in page.text and "nan" not in page.text


def test_named_anchors_are_marked_also_where_the_prompt_began_them(data: ReportData):
    parts = data.completions[0]["before"]["parts"]
    assert [part["text"] for part in parts if part["named"]] == [" Hatter", "Alice"]
    assert "".join(part["text"] for part in parts) == " Hatter and Alice, " + EVIL


def test_the_block_shown_is_the_one_with_changed_labels(data: ReportData):
    assert data.block is not None and (data.block["document"], data.block["index"]) == ("book", 4)
    tokens = data.block["tokens"]
    assert "".join(token["text"] for token in tokens) == "Alice met the Mad Hatter"
    assert [token["state"] for token in tokens[:3]] == ["untrained", "changed", "same"]
    assert tokens[1]["label"].startswith(" ")
    assert "".join(token["text"] for token in tokens if token["anchor"]) == "Alice Mad Hatter"


def test_tokens_of_one_character_are_shown_as_that_character(tiny_model_folder: str):
    tokenizer = load_tokenizer(tiny_model_folder)
    ids = tokenizer("a🐇 b")["input_ids"]
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids) and "".join(texts) == "a🐇 b"
    assert "🐇" in texts


def test_report_json_holds_the_same_data(data: ReportData, page: Page, tmp_path: Path):
    written = json.loads((tmp_path / "report.json").read_text())
    assert ReportData(**written) == data


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_nothing_of_a_document_or_a_completion_runs_in_a_browser(data: ReportData, tmp_path: Path):
    payload = "\"'><img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>${7*7}"
    hostile = json.dumps(asdict(data)).replace(json.dumps(EVIL)[1:-1], json.dumps(payload)[1:-1])
    page = render(ReportData(**json.loads(hostile)), "report.html")
    assert page.count("document.title=") >= 4
    titles = []
    for name, html in {"report": page, "unescaped": page.replace("</h1>", f"</h1>{payload}", 1)}.items():
        (tmp_path / f"{name}.html").write_text(html)
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        dom = subprocess.run(
            [str(CHROMIUM), *options, "--dump-dom", (tmp_path / f"{name}.html").as_uri()],
            capture_output=True, text=True, timeout=120,
        ).stdout  # fmt: skip
        titles += re.findall("<title>(.*?)</title>", dom)
    assert len(titles) == 2 and titles[0] != "ran" and titles[1] == "ran"  # so the payload runs where it can


def test_a_metric_that_is_nothing_everywhere_still_has_a_plot():
    figures = {name: {"value": 0.0, "low": 0.0, "high": 1e-20, "n": 5} for name in ("baseline", "step-3", "unlearned")}
    plot = curve("probability", figures, list(figures), 3)
    assert {point["y"] for point in plot["points"]} == {plot["bottom"]}
    assert plot["ticks"][-1]["text"] == "0.001"


def test_an_attack_that_brings_something_back_is_marked_and_one_within_noise_is_not(page: Page):
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "span"].count("specific") == 2  # one is the legend
    table = attack_table(AUDIT)
    more = {
        row["condition"]: row["cells"]["probability_familiarity"]["unlearned"]["more"] for row in table["rows"][1:3]
    }
    assert more == {"4 bits": True, "8 bits": False}
    assert [measure["name"] for measure in table["measures"]] == ["probability_familiarity", "generic_probability"]


def test_relearning_is_a_curve_for_each_text_with_the_baseline_beside_it():
    [curve] = relearnings(AUDIT)
    assert curve["steps"] == [0, 8]
    assert [figure["value"] for figure in curve["figures"]["unlearned"]] == [0.004, 0.031]
    plot = recovery(curve)
    assert [point["x"] for point in plot["lines"]["baseline"]] == [column["x"] for column in plot["columns"]]


def test_what_was_not_tested_is_said_with_its_reason(data: ReportData):
    said = " ".join(not_tested(METRICS["metrics"], AUDIT, []))
    for what in ("Languages: no questions", "evaluate.nonmembers", "evaluate.benchmarks", "evaluate.probes"):
        assert what in said
    assert "evaluate.retain" not in said
    assert "Attacks: none was made" in " ".join(not_tested(METRICS["metrics"], None, []))


@pytest.mark.parametrize(
    ("targets", "other_prose", "said"), [("text", "one", True), ("text", "two", False), ("baseline", "one", False)]
)
def test_prose_that_was_trained_on_is_said_to_be_that(targets: str, other_prose: str, said: bool):
    steps = [
        {"name": "retain", "inputs": {"blocks": {"digest": "one"}}},
        {"name": "unlearned", "params": {"retain_targets": targets}},
        {"name": "evaluation", "inputs": {"text-retain": {"digest": other_prose}}},
    ]
    found = not_tested(METRICS["metrics"], None, steps)
    assert any("Prose that was not trained on" in what for what in found) is said


def test_the_text_report_has_the_same_figures_and_whole_tables(page: Page, tmp_path: Path):
    text = (tmp_path / "report.md").read_text()
    assert "| Probability familiarity | 9 | 0.0312 [0.0250, 0.0374] |" in text
    assert "0.0240 +" in text and "- Languages: no questions" in text
    tables = [block.split("\n") for block in re.split(r"\n(?!\|)", text) if block.count("|") > 4]
    for table in tables:
        assert len({row.count("|") for row in table if row.startswith("|")}) == 1


def test_what_people_corrected_stands_with_their_agreement_and_the_judges_errors(data: ReportData):
    asked = {"tasks": 40, "answered": 30, "answers": 60, "alpha": 0.812, "all_equal": 0.9, "open": 3}
    corrected = {"value": 0.25, "low": 0.1, "high": 0.4, "n": 96}
    scores = {"models": {"baseline": {"judged": 0.5, "corrected": corrected, "audited": 20, "not_audited": 3}},
              "confusion": [[17, 0, 1, 0], [0] * 4, [0] * 4, [1, 0, 0, 4]]}  # fmt: skip
    review = {"agreement": {"judge": asked | {"annotators": {"ann": {}, "bob": {}}}}, "terms": {"drop": 2},
              "labels": {"no_longer_there": 1}, "scores": scores}  # fmt: skip
    reviewed = replace(data, review=review)
    page = Page(render(reviewed, "report.html"))
    assert "0.250 [0.100, 0.400]" in page.text and "2 drop" in page.text and "1 no longer there" in page.text
    text = render(reviewed, "report.md")
    assert "| judge | 30 of 40 | 60 | 2 | 0.81 | 3 |" in text and "| 0 | 17 | 0 | 1 | 0 |" in text
    assert "| baseline | 0.500 | 0.250 [0.100, 0.400] | 20 of 96, 3 have grades" in text
    assert "People" not in render(data, "report.md")


def test_a_sequence_is_a_table_of_models_and_sets(data: ReportData):
    row = lambda name, **sets: {
        "after": name, "model": "unlearned", "utility": {"perplexity_retain": 0.97, "control_probability": 1.1},
        "baseline": {"probability_familiarity": figure(0.5)},
        "sets": {one: {"probability_familiarity": figure(value)} for one, value in sets.items()},
    }  # fmt: skip
    history = [row("alice", alice=0.03), row("b<ob", alice=0.04, **{"b<ob": 0.02})]
    shown = replace(data, history=history)
    assert "Sets forgotten one after another" in Page(render(shown, "report.html")).text
    text = render(shown, "report.md")
    lines = [line for line in text.splitlines() if line.startswith(("| (baseline) |", "| alice |", "| b<ob |"))]
    assert [line.count("|") for line in lines] == [5, 5, 5]
    assert "97.0%" in lines[1] and "0.0300" in lines[1] and "0.0400" in lines[2] and "0.0200" in lines[2]
    assert "one after another" not in render(data, "report.html")
