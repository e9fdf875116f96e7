"""The report: one page that opens from disk without a network, the same data as JSON, and a short text.

Everything is read from the files that the steps left, so a report can be made again at any time and of any run. All
text from documents and models is untrusted: the template escapes it, and the page's policy forbids every download.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from transformers import PreTrainedTokenizerFast

from unlearn_ray.engine import storage
from unlearn_ray.evidence import BEFORE, REFERENCE, REINFORCED
from unlearn_ray.labelling import alpha_column
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.attacks import attack_table, not_tested, relearnings
from unlearn_ray.stages.blocks import read_parquet
from unlearn_ray.stages.measures import PAPER, measures_of
from unlearn_ray.stages.plots import curve, figure_text, pareto, recovery, signed_percent

DICTIONARY_HEAD = 40
COMPLETIONS_SHOWN = 8


@dataclass(frozen=True)
class ReportData:
    """All that the page shows, in plain JSON types; report.json is this.

    metrics: metrics.json of the evaluation. completions: one a prompt, with both models' texts cut into parts, where
    "named" marks an anchor that the prompt did not give. block: one block's tokens and labels. steps: the manifests.
    audit: audit.json, where the attacks were made. history: history.json of a set that was forgotten in a sequence.
    review: what people corrected, where they did, with their agreement
    by project, and "scores", the familiarity corrected by their grades.
    """

    forget_set: str
    baseline: str
    metrics: dict[str, Any]
    completions: list[dict[str, Any]]
    dictionary: list[dict[str, Any]]
    dictionary_size: int
    block: dict[str, Any] | None
    steps: list[dict[str, Any]]
    audit: dict[str, Any] | None = None
    history: list[dict[str, Any]] | None = None
    review: dict[str, Any] | None = None


def collect(
    folders: Mapping[str, str],
    *,
    forget_set: str,
    baseline: str,
    alpha: float,
    tokenizer: PreTrainedTokenizerFast,
    agreement: Mapping[str, Any] | None = None,
) -> ReportData:
    """Reads what the steps of one forget set left.

    folders: step name -> folder in the order of the run, with at least anchors and evaluation among them; every
    folder's manifest is listed. alpha: whose labels are shown. agreement: of the people who reviewed, by project.
    """
    dictionary = read_dictionary(folders["anchors"])
    entries = sorted(dictionary.anchors, key=lambda entry: -entry.support)[:DICTIONARY_HEAD]
    metrics = storage.read_json(storage.join(folders["evaluation"], "metrics.json"))
    completions = read_parquet(storage.join(folders["evaluation"], "completions.parquet")).to_pylist()
    return ReportData(
        forget_set=forget_set,
        baseline=baseline,
        metrics=metrics,
        completions=_side_by_side(completions, metrics["choice"]["model"], dictionary),
        dictionary=[asdict(entry) | {"sources": list(entry.sources)} for entry in entries],
        dictionary_size=len(dictionary.anchors),
        block=_block(folders["labels"], alpha_column(alpha), tokenizer, dictionary) if "labels" in folders else None,
        audit=storage.read_json(storage.join(folders["audit"], "audit.json")) if "audit" in folders else None,
        history=storage.read_json(storage.join(folders["history"], "history.json")) if "history" in folders else None,
        review=_review(folders, agreement) if agreement else None,
        steps=[
            {"name": name} | storage.read_json(storage.join(folder, "manifest.json"))
            for name, folder in folders.items()
        ],
    )


def _review(folders: Mapping[str, str], agreement: Mapping[str, Any]) -> dict[str, Any]:
    def figures(name: str) -> dict[str, Any]:
        if f"unreviewed_{name}" not in folders:
            return {}
        return storage.read_json(storage.join(folders[name], "manifest.json"))["figures"]

    return {
        "agreement": dict(agreement),
        "terms": figures("anchors").get("actions", {}),
        "labels": figures("labels").get("labels", {}),
        "scores": storage.read_json(storage.join(folders["grades"], "corrected.json")) if "grades" in folders else None,
    }


def write_report(folder: str, data: ReportData) -> str:
    """Writes report.json, report.md and report.html into `folder`; returns the path of the page."""
    storage.write_json(storage.join(folder, "report.json"), asdict(data))
    for name in ("report.md", "report.html"):
        storage.write_atomic(storage.join(folder, name), render(data, name).encode())
    return storage.join(folder, "report.html")


def render(data: ReportData, name: str) -> str:
    """report.html or report.md."""
    environment = Environment(
        loader=PackageLoader("unlearn_ray", "stages"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure_text, "signed_percent": signed_percent, "pretty": _pretty, "line": _line}
    metrics, models = data.metrics["metrics"], data.metrics["models"]
    measures = measures_of(metrics)
    trained = [model for model in models if model not in (REINFORCED, REFERENCE)]
    return environment.get_template(f"{name}.j2").render(
        data=data,
        chosen=data.metrics["choice"]["model"],
        measures=measures,
        trained=trained,
        paper=PAPER,
        curves=[
            curve(measure.curve, metrics[measure.name], trained, measure.digits)
            for measure in measures
            if measure.curve
        ],
        pareto=pareto(data.metrics["choice"]),
        attacks=attack_table(data.audit) if data.audit else None,
        recoveries=[recovery(one) for one in relearnings(data.audit)] if data.audit else [],
        not_tested=not_tested(data.metrics["metrics"], data.audit, data.steps),
        seconds=sum(step["seconds"] for step in data.steps),
        shown=COMPLETIONS_SHOWN,
    )


def _line(value: Any) -> str:
    """Text of a document or a model in a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _side_by_side(rows: list[dict[str, Any]], chosen: str, dictionary: AnchorDictionary) -> list[dict[str, Any]]:
    """One entry a prompt with both models' answers; those in which either model shows something come first."""
    times = {BEFORE: "before", chosen: "after"}
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["model"] not in times:
            continue
        pair = pairs.setdefault(
            (row["kind"], row["prompt"]), {key: row[key] for key in ("kind", "prompt", "reference", "subtlety")}
        )
        pair[times[row["model"]]] = {
            "parts": _parts(row["prompt"], row["completion"], set(row["anchors_named"]), dictionary),
            "grade": row["grade"],
            "rouge_l": row["rouge_l"],
        }
    return sorted(pairs.values(), key=lambda pair: -max(_shown_by(pair[time]) for time in times.values()))


def _shown_by(answer: Mapping[str, Any]) -> float:
    return answer["rouge_l"] or answer["grade"] or 0


def _parts(prompt: str, completion: str, named: set[str], dictionary: AnchorDictionary) -> list[dict[str, Any]]:
    """The completion cut where anchors that it names begin and end."""
    parts, done = [], 0
    for span in dictionary.spans(prompt + completion):
        start, end = max(span.start - len(prompt), 0), span.end - len(prompt)
        if end > 0 and dictionary.anchors[span.anchor].anchor in named:
            parts += [{"text": completion[done:start], "named": False}, {"text": completion[start:end], "named": True}]
            done = end
    return [part for part in [*parts, {"text": completion[done:], "named": False}] if part["text"]]


def _block(
    folder: str, column: str, tokenizer: PreTrainedTokenizerFast, dictionary: AnchorDictionary
) -> dict[str, Any] | None:
    """The block of the first shard in which most labels differ from the text; None where nothing was labelled."""
    shards = [file for file in storage.list_files(folder) if file.endswith(".parquet")]
    rows = read_parquet(shards[0], ["document", "index", "input_ids", column]).to_pylist() if shards else []
    if not rows:
        return None

    def changed(row: dict[str, Any]) -> int:
        return sum(label not in (IGNORED, token) for token, label in zip(row["input_ids"], row[column], strict=True))

    row = max(rows, key=changed)
    texts = token_texts(row["input_ids"], tokenizer)
    spans = dictionary.spans("".join(texts))
    tokens, end = [], 0
    for token, label, text in zip(row["input_ids"], row[column], texts, strict=True):
        start, end = end, end + len(text)
        state = "untrained" if label == IGNORED else "same" if label == token else "changed"
        tokens.append(
            {
                "text": text,
                "label": str(tokenizer.decode([label])) if state == "changed" else "",
                "state": state,
                "anchor": any(span.start < end and start < span.end for span in spans),
            }
        )
    return {"document": row["document"], "index": row["index"], "tokens": tokens}


def token_texts(ids: list[int], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each token adds to the text; a character of several tokens stands with the last of them."""
    texts, done = [], ""
    for end in range(1, len(ids) + 1):
        text = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            texts.append("")
            continue
        texts.append(text[len(done) :])
        done = text
    return texts
