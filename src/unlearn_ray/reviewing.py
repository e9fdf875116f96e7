"""The commands of review: what people are asked about a run, and what becomes of their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_ray.config import RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import Step
from unlearn_ray.errors import InputError
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.pipeline import done_folders, steps_of
from unlearn_ray.review.answers import Answer, named, read_answers
from unlearn_ray.review.corrections import corrected_entries, effective
from unlearn_ray.review.decisions import Decided, decide, latest
from unlearn_ray.review.server import Server
from unlearn_ray.review.store import Store
from unlearn_ray.review.tasks import PROJECTS, Task, interface, to_label_studio
from unlearn_ray.review.terms import UNTRANSLATED, open_term
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.origins import absolute
from unlearn_ray.stages.review import NEEDED, tasks_of


@dataclass(frozen=True)
class Exported:
    """One project: its tasks, and where they went, or why there are none."""

    forget_set: str
    project: str
    tasks: int
    where: str


@dataclass(frozen=True)
class Imported:
    """What is known of one project after an import. new: answers that were not there before."""

    forget_set: str
    project: str
    new: int
    decided: Decided
    changes: int


def export_review(
    config: RunConfig,
    *,
    forget_sets: Sequence[str],
    projects: Sequence[str] = PROJECTS,
    folder: str | None = None,
    server: Server | None = None,
) -> list[Exported]:
    """Writes the tasks of each project to FOLDER/FORGET_SET/PROJECT/tasks.json, beside interface.xml, or creates the
    projects on a server. A project whose steps are not done is left out, and told. Raises InputError where all are.
    """
    root, steps_of_set, done = absolute(config.root), steps_of(config), []
    for name in forget_sets:
        store, steps = Store(root, name), steps_of_set[name]
        for project in projects:
            wanted = {step: _before_review(steps, step) for step in NEEDED[project]}
            folders = done_folders(root, wanted)
            if missing := [step for step in wanted if step not in folders]:
                done.append(Exported(name, project, 0, f"not yet: {' and '.join(missing)} to do"))
                continue
            tasks = tasks_of(
                project,
                folders,
                forget_set=name,
                settings=config.review,
                alpha=config.unlearn_alpha,
                seed=config.seed,
                trust_remote_code=config.trust_remote_code,
                wanting=[row["about"] for row in store.open() if row["why"] == UNTRANSLATED],
            )
            if not tasks:
                done.append(Exported(name, project, 0, "nothing to ask"))
                continue
            store.add_tasks(project, tasks)  # before anybody can answer them
            if server is None:
                where = _write_files(tasks, project, storage.join(folder or "review", name, project))
            else:
                address, added = server.create(
                    name, project, tasks, root=config.root, mark=store.make_mark(), overlap=config.review.overlap
                )
                where = f"{address} ({added} new)"
            done.append(Exported(name, project, len(tasks), where))
    if not any(one.tasks for one in done):
        told = "; ".join(f"{one.forget_set} {one.project}: {one.where}" for one in done)
        raise InputError(f"no tasks to export ({told}); `unlearn-ray run` does the steps")
    return done


def _write_files(tasks: Sequence[Task], project: str, into: str) -> str:
    storage.write_atomic(storage.join(into, "interface.xml"), interface(project).encode())
    path = storage.join(into, "tasks.json")
    storage.write_json(path, [to_label_studio(task) for task in tasks])
    return path


def fetch_answers(config: RunConfig, server: Server) -> list[tuple[str, str, Mapping[int, str]]]:
    """The answers on a server as import_review takes them. Raises InputError where it has no project of this run."""
    found = []
    for one in config.forget_sets:
        mark = Store(absolute(config.root), one.name).mark()
        for project in PROJECTS:
            if mark and (answers := server.answers(mark, project)):
                found.append((f"{server.url}, {one.name}, {project}", *answers))
    if not found:
        raise InputError(f"{server.url} has no project of this run; `unlearn-ray review export --server` makes them")
    return found


def import_review(
    config: RunConfig, sources: Sequence[tuple[str, str, Mapping[int, str]]]
) -> tuple[list[Imported], int]:
    """Reads the answers, adds them to those of earlier imports, and decides anew; returns what is known of each project
    with answers, and how many annotations were cancelled.

    sources: (name, JSON, names of annotators by number). Raises InputError for a source with anything wrong in it; then
    nothing is written of any.
    """
    root = absolute(config.root)
    stores = {one.name: Store(root, one.name) for one in config.forget_sets}
    asked = {(name, project): store.tasks(project) for name, store in stores.items() for project in PROJECTS}
    by_key = {key: task for tasks in asked.values() for key, task in tasks.items()}
    place_of = {key: place for place, tasks in asked.items() for key in tasks}
    if not by_key:
        raise InputError(f"{config.root}: nothing was asked yet; `unlearn-ray review export` does that")
    given: list[Answer] = []
    cancelled = 0
    for name, text, people in sources:
        found, skipped = read_answers(text, name, by_key, people)
        given, cancelled = given + found, cancelled + skipped
    if not given and not cancelled:
        raise InputError(f"{', '.join(name for name, *_ in sources)}: no task has an answer")
    known = {place: stores[place[0]].answers(place[1]) for place in asked}
    new: dict[tuple[str, str], list[Answer]] = {}
    for answer in given:
        new.setdefault(place_of[answer.key], []).append(answer)
    touched = {name for name, _ in new}
    imported, steps = [], steps_of(config) if touched else {}
    for name in sorted(touched):
        entries = _entries(root, steps[name])
        for project in PROJECTS:
            place = name, project
            answers = latest(named([*known[place], *new.get(place, [])]))
            if answers:
                decided = decide(project, answers, asked[place], config.review, entries)
                if project == "anchors":
                    decided = _without_unsound(decided, entries)
                fresh = len(set(map(_identity, answers)) - set(map(_identity, known[place])))
                changes = len(effective(project, decided.decisions))
                imported.append(Imported(name, project, fresh, decided, changes))
                known[place] = answers
    for name in sorted(touched):
        _write(stores[name], [one for one in imported if one.forget_set == name], known)
    return imported, cancelled


def _before_review(steps: Mapping[str, Step], name: str) -> Step:
    return steps.get(f"unreviewed_{name}", steps[name])


def _entries(root: str, steps: Mapping[str, Step]) -> dict[str, Anchor]:
    """The dictionary as it was before review, by term; none where that step is to be done anew."""
    folders = done_folders(root, {"anchors": _before_review(steps, "anchors")})
    return {entry.anchor: entry for entry in read_dictionary(folders["anchors"]).anchors} if folders else {}


def _without_unsound(decided: Decided, entries: Mapping[str, Anchor]) -> Decided:
    """Decisions that would make the dictionary unusable are open. Raises InputError where they leave no dictionary."""
    if not entries:
        return decided
    wanted = effective("anchors", decided.decisions)
    kept, refused = corrected_entries(list(entries.values()), wanted)
    AnchorDictionary(kept, "the dictionary as these answers would make it")
    unfit = {row["term"] for row in refused}
    problems = [open_term(row["term"], row["why"], dict.fromkeys(row["by"], str(row["action"]))) for row in refused]
    return Decided(
        [row for row in decided.decisions if row["term"] not in unfit], [*decided.open, *problems], decided.agreement
    )


def _identity(answer: Answer) -> tuple[Any, ...]:
    return answer.key, answer.by, answer.at, repr(sorted(answer.values.items()))


def _write(store: Store, imported: Sequence[Imported], known: Mapping[tuple[str, str], list[Answer]]) -> None:
    """Answers first: from them all else can be made again by importing once more."""
    for one in imported:
        store.write_answers(one.project, known[one.forget_set, one.project])
    for one in imported:
        store.write_decisions(one.project, one.decided.decisions)
    store.write_open([row for one in imported for row in one.decided.open])
    store.write_agreement({one.project: one.decided.agreement | {"open": len(one.decided.open)} for one in imported})
