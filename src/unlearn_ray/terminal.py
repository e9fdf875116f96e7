"""What the command prints, as text. Imports nothing heavy."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING

from unlearn_ray.errors import InputError, StepFailed

if TYPE_CHECKING:
    from unlearn_ray.engine.cleaning import Superfluous
    from unlearn_ray.engine.overview import Overview
    from unlearn_ray.engine.steps import Outcome
    from unlearn_ray.method.findings import Finding
    from unlearn_ray.method.translation import Translation
    from unlearn_ray.reviewing import Exported, Imported
    from unlearn_ray.stages.plan import Plan
    from unlearn_ray.stages.proposals import Estimate

# All but the tab and the line feed, and what turns the direction of writing.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
EXAMPLES_SHOWN = 12
STATES = ("done", "ran", "running", "failed", "skipped", "to do")
COMPLETIONS_SHOWN = 5
PASSAGE_CHARACTERS = 400
CONFLICTS_SHOWN = 20


def one_line(error: BaseException) -> str:
    """An error as one line. Those that wrap a worker's traceback say what went wrong in its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines and "Traceback (most recent call last):" in str(error) else " ".join(lines)
    if isinstance(error, (InputError, StepFailed)):
        return printable(text)
    return printable(f"{type(error).__name__}: {text} (--debug shows where)")


def printable(text: str) -> str:
    """Text of documents and models for a terminal, which would take orders from its control characters."""
    return CONTROL.sub("\ufffd", text)


def progress(outcome: "Outcome") -> str:
    """A line about a step that starts or ends."""
    step = f"{outcome.step.stage}-{outcome.step.digest}"
    return f"{datetime.now():%H:%M:%S}  {outcome.step.forget_set}  {step}  {_state(outcome)}"


def table(outcomes: Sequence["Outcome"]) -> str:
    """Forget sets down, stages across, with states and times."""
    stages = list(dict.fromkeys(outcome.step.stage for outcome in outcomes))
    rows = [["forget set", *stages]]
    for forget_set in dict.fromkeys(outcome.step.forget_set for outcome in outcomes):
        of_set = [outcome for outcome in outcomes if outcome.step.forget_set == forget_set]
        rows.append([forget_set, *(_cell(of_set, stage) for stage in stages)])
    return "\n".join(_in_columns(rows))


def overview(found: "Overview") -> str:
    """How many sets and steps stand where, and what needs a look: failed (by the caller), slow and late ones."""
    states = [state for state in STATES if any(state in counts for counts in found.steps.values())]
    rows = [["step", *states]]
    rows += [[stage, *(str(counts.get(state, "")) for state in states)] for stage, counts in found.steps.items()]
    lines = [f"{sum(found.sets.values())} forget sets: {_counted(found.sets)}", "", *_in_columns(rows), ""]
    for outcome, usual in found.slow[:EXAMPLES_SHOWN]:
        step = f"{outcome.step.forget_set} {outcome.step.stage}"
        lines.append(f"slow: {step} runs for {_time(outcome.seconds)}, usual is {_time(usual)}")
    if found.late:
        more = f" and {len(found.late) - EXAMPLES_SHOWN} more" if len(found.late) > EXAMPLES_SHOWN else ""
        lines.append(f"past their deadline: {', '.join(found.late[:EXAMPLES_SHOWN])}{more}")
    if found.running and found.seconds_left is not None:
        lines.append(f"about {_time(found.seconds_left)} left, with {len(found.running)} steps at a time as now")
    return "\n".join(lines).rstrip()


def superfluous(found: Sequence["Superfluous"]) -> str:
    """A line a folder with its size, and what it comes to."""
    rows = [[_gb(one.bytes) if one.bytes >= 1e8 else f"{one.bytes / 1e6:.1f} MB", one.path, one.why] for one in found]
    total = sum(one.bytes for one in found)
    return "\n".join([*(_in_columns(rows) if rows else []), f"{len(found)} folders, {_gb(total)}"])


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)


def estimates(of_sets: Mapping[str, "Estimate"], price: tuple[float, float] | None) -> str:
    """What asking costs at most, a line a forget set and their sum; price: dollars for a million tokens in and out."""
    named = [(name, astuple(one)) for name, one in of_sets.items()]
    if len(named) > 1:
        named.append(("all", tuple(map(sum, zip(*(counts for _, counts in named), strict=True)))))
    rows = [["forget set", "passages", "requests", "tokens in", "tokens out", *(["dollars"] if price else [])]]
    for name, (passages, requests, tokens_in, tokens_out) in named:
        cost = [f"{(tokens_in * price[0] + tokens_out * price[1]) / 1e6:.2f}"] if price else []
        rows.append([name, *map(str, (passages, requests, tokens_in, tokens_out)), *cost])
    return "\n".join(
        [
            *_in_columns(rows),
            "at most: answers of full length; four characters counted as a token; kept answers are not asked for again",
        ]
    )


def plan(planned: "Plan") -> str:
    """What a run will need: a line a stage, then the layouts of training."""
    shape, work, device = planned.shape, planned.workload, planned.device
    counted = "characters / 4, as the tokenizer cannot be loaded" if work.estimated else "the baseline's tokenizer"
    number, kept = len(work.blocks), f", {work.retain_blocks} of retain text" if work.retain_blocks else ""
    sets = f"{number} forget set{'s' if number > 1 else ''}"
    rows = [["", "needs", "has", "host memory", "steps", "time"]]
    for one in planned.stages:
        host = _gb(one.host) if one.host else ""
        time = _time(planned.seconds[one.stage]) if one.stage in planned.seconds else ""
        fits = _gb(device.memory) + (" TOO LITTLE" if one.refusal else "")
        rows.append([one.stage, _gb(one.memory), fits, host, planned.steps[one.stage], time])
    times = (
        f"times: measured on {planned.timed_on}; without starting and loading{', one set after another' * (number > 1)}"
        if planned.timed_on
        else "times: not estimated; --probe measures on this machine"
    )
    return "\n".join(
        [
            f"model: {shape.parameters / 1e9:.3g} billion parameters, {shape.layers} layers",
            f"text: {sum(work.blocks.values())} blocks of {planned.block_tokens} tokens in {sets}{kept} (by {counted})",
            f"device: {device.name}, {_gb(device.memory)}, {'bfloat16' if device.bf16 else 'float32'}",
            "",
            *_in_columns(rows),
            times,
            "host memory: of the first worker, when it saves" + (", part of what is needed" if device.is_host else ""),
            "",
            *_layouts(planned),
        ]
    )


def _layouts(planned: "Plan") -> list[str]:
    trained = [one for one in planned.stages if one.layouts]
    rows = [["a device needs", *(f"{one.stage}{also}" for one in trained for also in ("", ", checkpointing"))]]
    for layout in trained[0].layouts:
        rows.append([layout, *(_gb(needed) for one in trained for needed in one.layouts[layout])])
    return _in_columns(rows)


def comparison(data: dict) -> str:
    """The figures of one forget set (report.json) before and after, and some prompts with both completions."""
    rows = [["", "before", "after", "change", "n"]]
    chosen = data["metrics"]["choice"]["model"]
    for name, change in data["metrics"]["changes"].items():
        figures = data["metrics"]["metrics"][name]
        before, after = (_figure(figures[model]["value"]) for model in ("baseline", chosen))
        share = change["relative"]["value"]
        moved = "" if share is None else f"{share:+.0%}"
        rows.append([name.replace("_", " "), before, after, moved, str(figures[chosen]["n"])])
    lines = _in_columns(rows)
    for pair in [one for one in data["completions"] if one["kind"] == "familiarity"][:COMPLETIONS_SHOWN]:
        lines += ["", *textwrap.wrap(pair["prompt"], 100)]
        for time in ("before", "after"):
            text = "".join(part["text"] for part in pair[time]["parts"])
            lines += textwrap.wrap(text, 100, initial_indent=f"    {time}: ", subsequent_indent="    ")
    return printable("\n".join(lines))


def findings(found: Sequence["Finding"], width: int) -> str:
    """Findings with the first of their examples, wrapped."""
    lines = []
    for finding in found:
        lines += textwrap.wrap(f"{finding.level}: {finding.name}: {finding.message}", width)
        more = len(finding.examples) - EXAMPLES_SHOWN
        examples = [*finding.examples[:EXAMPLES_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        lines += textwrap.wrap("; ".join(examples), width, initial_indent="    ", subsequent_indent="    ")
    return printable("\n".join(lines))


def passage(text: str, start: int, end: int) -> tuple[int, int]:
    """The surroundings of text[start:end], from one space to another."""
    first, last = max(start - PASSAGE_CHARACTERS, 0), end + PASSAGE_CHARACTERS
    if first:
        first = text.find(" ", first, start) + 1 or start
    if last < len(text):
        last = max(text.rfind(" ", end, last), end)
    return first, min(last, len(text))


def side_by_side(text: str, translation: "Translation", width: int) -> str:
    """Two columns, paragraph beside paragraph; what was replaced, and by what, stands in [brackets]."""
    column = max((width - 3) // 2, 20)
    left = _marked(text, [(segment.start, segment.end) for segment in translation.segments])
    right = _marked(translation.text, [(segment.out_start, segment.out_end) for segment in translation.segments])
    lines = []
    for one, other in zip_longest(left.split("\n\n"), right.split("\n\n"), fillvalue=""):
        pairs = zip_longest(textwrap.wrap(one, column), textwrap.wrap(other, column), fillvalue="")
        lines += [f"{a:<{column}} | {b}".rstrip() for a, b in pairs]
        lines.append(f"{'':<{column}} |")
    return printable("\n".join(lines[:-1]))


def exported(projects: Sequence["Exported"]) -> str:
    """A line a project: how many tasks, and where they are."""
    rows = [["forget set", "project", "tasks", "where"]]
    rows += [[one.forget_set, one.project, str(one.tasks), one.where] for one in projects]
    return "\n".join(_in_columns(rows))


def imported(projects: Sequence["Imported"], cancelled: int) -> str:
    """What is known of each project, who answered gold tasks how, and every conflict that stays open."""
    rows = [["forget set", "project", "answers", "new", "answered", "people", "alpha", "decided", "changes", "open"]]
    notes, conflicts = [], []
    for one in projects:
        found = one.decided.agreement
        alpha = "" if found["alpha"] is None else f"{found['alpha']:.2f}"
        counts = [found["answers"], one.new, f"{found['answered']}/{found['tasks']}", len(found["annotators"])]
        results = [len(one.decided.decisions), one.changes, len(one.decided.open)]
        rows.append([one.forget_set, one.project, *map(str, counts), alpha, *map(str, results)])
        for name, person in found["annotators"].items():
            if person["gold_right"] < person["gold"]:
                notes.append(f"{one.project}: {name} has {person['gold_right']} of {person['gold']} gold tasks right")
        for row in one.decided.open:
            said = ", ".join(f"{name}: {answer}" for name, answer in row["answers"].items())
            conflicts.append(f"open: {one.project}: {row['about']}: {row['why']} ({said})")
    more = len(conflicts) - CONFLICTS_SHOWN
    if more > 0:
        conflicts = [*conflicts[:CONFLICTS_SHOWN], f"and {more} more in ROOT/FORGET_SET/review/open.jsonl"]
    told = [f"{cancelled} cancelled annotations were skipped"] if cancelled else []
    return printable("\n".join([*_in_columns(rows), *told, *notes, *conflicts]))


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _gb(memory: float) -> str:
    return f"{memory / 1e9:.1f} GB"


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _marked(text: str, places: Sequence[tuple[int, int]]) -> str:
    pieces, done = [], 0
    for start, end in places:
        pieces += [text[done:start], "[", text[start:end], "]"]
        done = end
    return "".join([*pieces, text[done:]])


def _cell(outcomes: Sequence["Outcome"], stage: str) -> str:
    return ", ".join(_state(outcome) for outcome in outcomes if outcome.step.stage == stage)


def _state(outcome: "Outcome") -> str:
    if outcome.progress:
        at = outcome.progress
        return f"{outcome.state} {at['step']}/{at['steps']}, {_time(at['seconds_left'])} left"
    return f"{outcome.state} {_time(outcome.seconds)}" if outcome.seconds else outcome.state


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
