"""People in the loop of the demo with a real Label Studio, on loopback and SQLite: the demo's model, book and settings
on a few pages, projects out, two annotators through its API, answers in, and the next runs. `make long` fetches the
demo and installs the server.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import yaml
from click.testing import CliRunner

from unlearn_ray import pipeline
from unlearn_ray.cli import main
from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.method.metrics import POINTS
from unlearn_ray.review.serve import Running, label_studio
from unlearn_ray.review.tasks import PROJECTS
from unlearn_ray.stages.baseline import open_tokenizer

pytestmark = pytest.mark.long

DEMO = Path(__file__).parents[2] / "data" / "demo"
# What makes the demo short: little text, few prompts. The model, the settings of the method and the files stay.
SHORT = """
anchors: {min_count: 2}
unlearn: {checkpoint_every: 100, retain_blocks: 4, retain_batch: 2}
evaluate: {completions: 8, completion_tokens: 12, probability_prompts: 8, verbatim: 2, perplexity_blocks: 2,
           bootstrap: 200, probes: null, controls: null}
review: {label_probability: 1.0, labels: 8, gold: 0, passages: 3, terms: 8}
resources: {micro_batch: 4}
"""
ANN, BOB = "default_user@localhost", "bob@example.com"
Said = dict[str, dict[str, str]]  # annotator -> field -> value


def both(**values: str) -> Said:
    return dict.fromkeys((ANN, BOB), values)


ON_TERMS = [  # what the two say of the first terms, one after another; all others are right
    both(keep="drop"),
    both(keep="correct", generic="Milton", kind="place"),
    {ANN: {"keep": "drop"}, BOB: {"keep": "right"}},
]
ON_LABELS = [  # of the first labels that begin a word; all others are fluent
    both(fluency="broken"),
    both(fluency="leaks", better="garden"),
    {ANN: {"fluency": "fluent"}, BOB: {"fluency": "broken"}},
]


@pytest.fixture
def demo(tmp_path) -> str:
    """The demo's configuration on the first chapter of its book, and a little of each other text."""

    def beginning(file: str, characters: int) -> str:
        (tmp_path / file).write_text((DEMO / file).read_text()[:characters])
        return str(tmp_path / file)

    chapter = (DEMO / "alice.txt").read_text().index("CHAPTER II.")
    overrides = [
        f"root={tmp_path}/runs",
        f"forget_sets=[{{name: alice, documents: {beginning('alice.txt', chapter)}}}]",
        f"retain={beginning('parents-assistant.txt', 20_000)}",
        f"evaluate.retain={beginning('stories.txt', 20_000)}",
        *(
            f"{section}.{key}={json.dumps(value)}"
            for section, of in yaml.safe_load(SHORT).items()
            for key, value in of.items()
        ),
    ]
    short = load_config("configs/demo.yaml", overrides).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(short))
    return str(tmp_path / "demo.yaml")


@pytest.mark.timeout(2400)
def test_two_annotators_correct_the_demo_and_the_next_runs_redo_what_depends_on_it(
    demo, tmp_path, local_ray, monkeypatch
):
    config, root = load_config(demo), tmp_path / "runs"
    _, folders = run(config)
    review = root / "alice/review"

    with label_studio(str(tmp_path / "label-studio"), 28433) as running:
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", running.token)
        projects = export(running, demo)
        assert export(running, demo) == projects
        assert lets_in(running, running.password) and not lets_in(running, "password")
        expect_another_run_to_have_projects_of_its_own(running, demo, root, projects)

        share = annotate(running, projects["judge"], grades)
        told = call("review", "import", demo, "--server", running.url)
        files = contents(review)
        call("review", "import", demo, "--server", running.url)
        assert contents(review) == files, "importing twice changes nothing"
        assert "1 cancelled annotations were skipped" in told
        agreement = json.loads(files["agreement.json"])["judge"]
        assert (
            agreement["all_equal"] == pytest.approx(1 - share)
            and agreement["open"] == len(rows(review, "open.jsonl")) > 0
        )
        redone, folders = run(config)
        assert redone == {"reviewed_evaluation"}
        expect_score(folders, review)

        annotate(running, projects["labels"], fluencies)
        call("review", "import", demo, "--server", running.url)
        assert to_do(config) == {"reviewed_labels", "unlearned", "evaluation", "reviewed_evaluation"}
        redone, folders = run(config, until="labels")
        assert redone == {"reviewed_labels"}
        assert expect_labels(folders, review) == {"masked": 1, "replaced": 1, "no_longer_there": 0}

    first, before = running, manifests(root)
    with label_studio(str(tmp_path / "label-studio"), 28433) as running:
        assert lets_in(running, running.password) and not lets_in(running, first.password)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", running.token)
        annotate(running, projects["anchors"], keeps)
        call("review", "import", demo, "--server", running.url)
        written = b"".join(contents(review).values()).decode()
        assert running.token not in written and first.token not in written
    redone, folders = run(config)
    assert redone == {
        "reviewed_anchors", "labels", "reviewed_labels", "unlearned", "evaluation", "reviewed_evaluation"
    }  # fmt: skip
    now = manifests(root)
    assert before.items() < now.items(), "nothing else was written again"
    assert len(now) == len(before) + len(redone)
    expect_dictionary(folders, review)
    expect_labels(folders, review)
    assert run(config)[0] == set()
    [page] = pipeline.report(config).values()
    assert "Corrected by people" in Path(page).read_text()


def call(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def export(running: Running, demo: str, *overrides: str) -> dict[str, int]:
    """Project -> its number on the server."""
    lines = [line.split() for line in call("review", "export", demo, "--server", running.url, *overrides).splitlines()]
    assert [line[1] for line in lines[1:]] == list(PROJECTS) and all(int(line[2]) >= 6 for line in lines[1:])
    return {line[1]: int(line[3].rsplit("/", 1)[1]) for line in lines[1:]}


def expect_another_run_to_have_projects_of_its_own(
    running: Running, demo: str, root: Path, projects: Mapping[str, int]
) -> None:
    """A run with a set of the same name in another root, here the same steps."""
    other = root.with_name("other-runs")
    shutil.copytree(root, other, copy_function=os.link, ignore=shutil.ignore_patterns("review", "*.lock"))
    assert not set(export(running, demo, f"root={other}").values()) & set(projects.values())
    answers = CliRunner().invoke(
        main, ["review", "import", demo, "--server", running.url, "--override", f"root={other}"]
    )
    assert answers.exit_code == 2 and "no task has an answer" in answers.stderr


def lets_in(running: Running, password: str) -> bool:
    """Whether a browser that logs in with this password sees more than the login."""
    with requests.Session() as browser:
        page = f"{running.url}/user/login/"
        browser.get(page)
        login = {"email": running.user, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        return browser.post(page, data=login).url != page


def grades(tasks: list) -> list[Said]:
    """They disagree on every fourth completion."""
    return [
        {ANN: {"grade": "3"}, BOB: {"grade": "2"}} if at % 4 == 0 else both(grade=str(at % 4))
        for at in range(len(tasks))
    ]


def fluencies(tasks: list) -> list[Said]:
    special = iter(ON_LABELS)
    return [next(special, both(fluency="fluent")) if " <mark>" in task.data["shown"] else both(fluency="fluent")
            for task in tasks]  # fmt: skip


def keeps(tasks: list) -> list[Said]:
    """On terms; the passages stay as they are marked."""
    special = iter(ON_TERMS)
    return [next(special, both(keep="right")) if task.data["choices"] else {ANN: {}, BOB: {}} for task in tasks]


def annotate(running: Running, project: int, answers) -> float:
    """Every task by both, and one annotation that was cancelled; returns the share of tasks on which they disagree."""
    from label_studio_sdk import LabelStudio

    client = LabelStudio(base_url=running.url, api_key=running.token)
    people = {user.email: user.id for user in client.users.list()}
    if BOB not in people:
        people[BOB] = client.users.create(username=BOB, email=BOB).id
    assert client.projects.get(project).maximum_annotations == 2
    tasks = sorted(client.tasks.list(project=project, fields="all"), key=lambda task: task.id)
    given = answers(tasks)
    for task, said in zip(tasks, given, strict=True):
        filled = [one.dict()["result"] for one in task.predictions or []]
        marks = [mark for of in filled for mark in of if mark["from_name"] == "span"]
        for by, values in said.items():
            client.annotations.create(task.id, result=results(values, marks), completed_by=people[by])
    client.annotations.create(tasks[0].id, result=[], was_cancelled=True, completed_by=people[BOB])
    return sum(said[ANN] != said[BOB] for said in given) / len(given)


def results(values: dict, marks: list[dict]) -> list[dict]:
    texts = ("generic", "better")
    return marks + [
        {"from_name": name, "to_name": to, "id": name, "type": kind, "value": {key: [value]}}
        for name, value in values.items()
        for kind, key in [("textarea", "text") if name in texts else ("choices", "choices")]
        for to in ["text" if name in ("keep", "kind", "generic") else "completion" if name == "grade" else "context"]
    ]


def run(config: RunConfig, **options) -> tuple[set[str], dict[str, Path]]:
    """The stages that ran, and the folders of all."""
    outcomes = pipeline.run(config, **options)
    assert all(outcome.error is None for outcome in outcomes), [outcome.error for outcome in outcomes]
    folders = {one.step.stage: Path(one.folder) for one in outcomes if one.step.forget_set == "alice"}
    folders["baseline"] = next(Path(one.folder) for one in outcomes if one.step.stage == "baseline")
    return {one.step.stage for one in outcomes if one.state == "ran"}, folders


def to_do(config: RunConfig) -> set[str]:
    return {outcome.step.stage for outcome in pipeline.status(config) if outcome.state == "to do"}


def manifests(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in root.glob("*/*/manifest.json")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def expect_dictionary(folders: dict[str, Path], review: Path) -> None:
    """Entry by entry: as proposed, but for the first two terms that were asked about. The third is open."""
    by_doubt = [row["facts"]["term"] for row in rows(review, "asked/anchors.jsonl") if row["facts"]["term"]]
    decided = {row["action"]: row["term"] for row in rows(review, "decisions/anchors.jsonl")}
    assert decided.keys() == {"drop", "correct", "right"} and {decided["drop"], decided["correct"]} < set(by_doubt)
    conflict = next(row for row in rows(review, "open.jsonl") if row["project"] == "anchors")
    assert conflict["answers"] == {ANN: "drop", BOB: "right"}
    old, new = (
        {entry["anchor"]: entry for entry in rows(folders[stage], "dictionary.jsonl")}
        for stage in ("anchors", "reviewed_anchors")
    )
    corrected = new[decided["correct"]]
    assert corrected["generic"] == "Milton" and corrected["sources"][-1].startswith(f"review: {BOB}, {ANN} 20")
    del old[decided["drop"]], old[decided["correct"]], new[decided["correct"]]
    assert new == old and conflict["about"] in new


def expect_labels(folders: dict[str, Path], review: Path) -> dict[str, int]:
    """Position by position: as labelled, but for what was decided and still has the label that people saw."""
    tokenizer = open_tokenizer(str(folders["baseline"]), trust_remote_code=False)
    old, new = (
        pa.concat_tables(pq.read_table(file) for file in sorted(folders[stage].glob("*.parquet")))
        for stage in ("labels", "reviewed_labels")
    )
    decided = {(row["block_id"], row["position"]): row for row in rows(review, "decisions/labels.jsonl")}
    bad = {place: row for place, row in decided.items() if row["judged"] != "fluent"}
    assert {row["judged"]: row["better"] for row in bad.values()} == {"broken": None, "leaks": " garden"}
    same = ["block_id", "document", "index", "input_ids"]
    assert new.select(same) == old.select(same)
    counts, expected, found = dict.fromkeys(("masked", "replaced", "no_longer_there"), 0), {}, {}
    for one, other in zip(old.to_pylist(), new.to_pylist(), strict=True):
        for position, (was, now) in enumerate(zip(one["labels_20"], other["labels_20"], strict=True)):
            place = one["block_id"], position
            if was != now:
                found[place] = now
            if place in bad:
                better = bad[place]["better"]
                what = "masked" if better is None else "replaced"
                if bad[place]["label"] == was:
                    expected[place] = IGNORED if better is None else tokenizer(better)["input_ids"][0]
                counts[what if bad[place]["label"] == was else "no_longer_there"] += 1
    assert found == expected
    assert json.loads((folders["reviewed_labels"] / "manifest.json").read_text())["figures"]["labels"] == counts
    return counts


def expect_score(folders: dict[str, Path], review: Path) -> None:
    """Of the baseline every completion was shown: where the two agree, what they say is the score of its stratum."""
    people = {(row["prompt"], row["completion"]): row["grade"] for row in rows(review, "decisions/judge.jsonl")}
    completions = pq.read_table(folders["evaluation"] / "completions.parquet").to_pylist()
    graded = [row for row in completions if row["kind"] == "familiarity" and row["model"] == "baseline"]
    expected = 0.0
    for grade in {row["grade"] for row in graded}:
        of_grade = [row for row in graded if row["grade"] == grade]
        said = [people[pair] for row in of_grade if (pair := (row["prompt"], row["completion"])) in people]
        expected += sum(POINTS[one] for one in said) / len(said) * len(of_grade) / len(graded)
    found = json.loads((folders["reviewed_evaluation"] / "corrected.json").read_text())["models"]["baseline"]
    assert found["corrected"]["value"] == pytest.approx(expected)
    assert found["corrected"]["low"] <= expected <= found["corrected"]["high"]
