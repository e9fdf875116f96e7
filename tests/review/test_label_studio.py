"""People in the loop with a real Label Studio, on loopback and SQLite: projects out, two annotators through its API,
answers in, and the next run. `make label-studio` installs the server.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from click.testing import CliRunner

from unlearn_ray import pipeline
from unlearn_ray.cli import main
from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.method.metrics import POINTS
from unlearn_ray.models import load_tokenizer
from unlearn_ray.review.serve import Running, label_studio

pytestmark = pytest.mark.slow

DICTIONARY = [
    {"anchor": "Zorblax", "generic": "Marcus", "kind": "person"},
    {"anchor": "Quendor", "generic": "Fairview", "kind": "place"},
    {"anchor": "lamp", "generic": "candle", "kind": "object"},
    {"anchor": "cellar", "generic": "attic", "kind": "other"},
    {"anchor": "shoes", "generic": "gloves", "kind": "object"},
]
ANN, BOB = "default_user@localhost", "bob@example.com"


def both(**values: str) -> dict[str, dict]:
    return dict.fromkeys((ANN, BOB), values)


ON_TERMS = {  # what each says of a term; of all others that they are right
    "lamp": both(keep="drop"),
    "Quendor": both(keep="correct", generic="Milton", kind="place"),
    "cellar": {ANN: {"keep": "drop"}, BOB: {"keep": "right"}},
}
ON_LABELS = [  # of the first labels, one after another; all others are fluent
    both(fluency="broken"),
    both(fluency="leaks", better="q"),  # a letter that this tokenizer joins with no other
    {ANN: {"fluency": "fluent"}, BOB: {"fluency": "broken"}},
]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def results(values: dict, marks: list[dict]) -> list[dict]:
    texts = ("generic", "better")
    return marks + [
        {"from_name": name, "to_name": to, "id": name, "type": kind, "value": {key: [value]}}
        for name, value in values.items()
        for kind, key in [("textarea", "text") if name in texts else ("choices", "choices")]
        for to in ["text" if name in ("keep", "kind", "generic") else "completion" if name == "grade" else "context"]
    ]


def answers(title: str, tasks: list) -> list[dict[str, dict]]:
    """What the two say to each task of a project."""
    if title == "story: anchor terms":
        terms = [task.data["question"].split(" → ")[0] if task.data["choices"] else None for task in tasks]
        return [ON_TERMS.get(term, both(keep="right")) if term else {ANN: {}, BOB: {}} for term in terms]
    if title == "story: label fluency":
        return [*ON_LABELS, *[both(fluency="fluent")] * (len(tasks) - len(ON_LABELS))]
    # Of the completions they disagree on every fourth.
    return [
        {ANN: {"grade": "3"}, BOB: {"grade": "2"}} if at % 4 == 0 else both(grade=str(at % 4))
        for at in range(len(tasks))
    ]


@pytest.mark.timeout(900)
def test_two_annotators_correct_a_run_and_the_next_one_redoes_what_depends_on_it(
    tmp_path, write_run, local_ray, monkeypatch, tiny_model_folder
):
    path = str(write_run(tmp_path))
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in DICTIONARY))
    with open(path, "a") as file:
        file.write("review: {label_probability: 1.0, labels: 8, gold: 0, passages: 3}\n")
    offline, given = "anchors: {max_anchors: 20, min_count: 3}", f"anchors: {{dictionary: {tmp_path}/d.jsonl}}"
    Path(path).write_text(Path(path).read_text().replace(offline, given))
    config = load_config(path)
    run(config)

    with label_studio(str(tmp_path / "label-studio"), 28433) as running:
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", running.token)
        told = call("review", "export", path, "--server", running.url).splitlines()
        assert [line.split()[1:3] for line in told[1:]] == [["anchors", "8"], ["labels", "8"], ["judge", "8"]]
        assert "(0 new)" in call("review", "export", path, "--server", running.url)
        assert lets_in(running, running.password) and not lets_in(running, "password")

        annotate(running, ["story: label fluency", "story: judge audit"])
        told = call("review", "import", path, "--server", running.url)
        files = review_files(tmp_path)
        call("review", "import", path, "--server", running.url)
        assert review_files(tmp_path) == files, "importing twice changes nothing"
        assert "2 cancelled annotations were skipped" in told
        agreement = json.loads(files["agreement.json"])
        assert agreement["judge"]["all_equal"] == 0.75 and agreement["labels"]["all_equal"] == 7 / 8
        assert [row["project"] for row in rows(files, "open.jsonl")] == ["labels", "judge", "judge"]

    redone, folders = run(config)
    assert redone == {"reviewed_labels", "unlearned", "evaluation", "reviewed_evaluation"}
    expect_labels(folders, files, tiny_model_folder)
    expect_score(folders, files)
    assert run(config)[0] == set()
    [page] = pipeline.report(config).values()
    assert "Corrected by people" in Path(page).read_text()

    first = running
    with label_studio(str(tmp_path / "label-studio"), 28433) as running:
        assert lets_in(running, running.password) and not lets_in(running, first.password)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", running.token)
        annotate(running, ["story: anchor terms"])
        call("review", "import", path, "--server", running.url)
        files = review_files(tmp_path)
        written = b"".join(files.values()).decode()
        assert running.token not in written and first.token not in written

    conflict = rows(files, "open.jsonl")[0]
    assert conflict["about"] == "cellar" and conflict["answers"] == {ANN: "drop", BOB: "right"}
    to_do = {outcome.step.stage for outcome in pipeline.status(config) if outcome.state == "to do"}
    assert to_do == {"reviewed_anchors", "labels", "reviewed_labels", "unlearned", "evaluation", "reviewed_evaluation"}
    redone, folders = run(config, until="anchors")
    assert redone == {"reviewed_anchors"}
    expect_dictionary(folders["reviewed_anchors"])


def lets_in(running: Running, password: str) -> bool:
    """Whether a browser that logs in with this password sees more than the login."""
    with requests.Session() as browser:
        page = f"{running.url}/user/login/"
        browser.get(page)
        login = {"email": running.user, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        return browser.post(page, data=login).url != page


def annotate(running: Running, titles: list[str]) -> None:
    """Every task of these projects by both, and one annotation that was cancelled."""
    from label_studio_sdk import LabelStudio

    client = LabelStudio(base_url=running.url, api_key=running.token)
    people = {user.email: user.id for user in client.users.list()}
    if BOB not in people:
        people[BOB] = client.users.create(username=BOB, email=BOB).id
    projects = [project for project in client.projects.list() if project.title in titles]
    assert len(projects) == len(titles)
    for project in projects:
        assert project.maximum_annotations == 2
        tasks = sorted(client.tasks.list(project=project.id, fields="all"), key=lambda task: task.id)
        for task, said in zip(tasks, answers(str(project.title), tasks), strict=True):
            filled = [one.dict()["result"] for one in task.predictions or []]
            marks = [mark for of in filled for mark in of if mark["from_name"] == "span"]
            for by, values in said.items():
                client.annotations.create(task.id, result=results(values, marks), completed_by=people[by])
        client.annotations.create(tasks[0].id, result=[], was_cancelled=True, completed_by=people[BOB])


def run(config: RunConfig, **options) -> tuple[set[str], dict[str, Path]]:
    """The stages that ran, and the folders of all."""
    outcomes = pipeline.run(config, **options)
    assert all(outcome.error is None for outcome in outcomes), [outcome.error for outcome in outcomes]
    folders = {one.step.stage: Path(one.folder) for one in outcomes if one.step.forget_set == "story"}
    return {one.step.stage for one in outcomes if one.state == "ran"}, folders


def review_files(folder: Path) -> dict[str, bytes]:
    there = folder / "runs/story/review"
    return {str(file.relative_to(there)): file.read_bytes() for file in there.rglob("*") if file.is_file()}


def rows(before: dict[str, bytes], name: str) -> list[dict]:
    return [json.loads(line) for line in before[name].decode().splitlines()]


def expect_dictionary(folder: Path) -> None:
    entries = [json.loads(line) for line in (folder / "dictionary.jsonl").read_text().splitlines()]
    assert {entry["anchor"]: entry["generic"] for entry in entries} == {
        "Quendor": "Milton", "Zorblax": "Marcus", "cellar": "attic", "shoes": "gloves"
    }  # fmt: skip
    [source] = next(entry for entry in entries if entry["anchor"] == "Quendor")["sources"]
    assert source.startswith(f"review: {BOB}, {ANN} 20")


def expect_labels(folders: dict[str, Path], before: dict[str, bytes], model: str) -> None:
    """Position by position: as labelled, but for what was decided and still has the label that people saw."""
    tokenizer = load_tokenizer(model)
    old, new = (
        pa.concat_tables(pq.read_table(file) for file in sorted(folders[stage].glob("*.parquet")))
        for stage in ("labels", "reviewed_labels")
    )
    decided = {(row["block_id"], row["position"]): row for row in rows(before, "decisions/labels.jsonl")}
    bad = {place: row for place, row in decided.items() if row["judged"] != "fluent"}
    said = {row["judged"]: row["better"] for row in bad.values()}
    assert len(bad) == 2 and said["broken"] is None and said["leaks"].strip() == "q"
    assert new.drop_columns(["labels_5", "labels_2.5", "baseline_prob", "topk_ids", "topk_logprobs"]) == old.select(
        ["block_id", "document", "index", "input_ids"]
    )
    differing, expected = {}, {}
    for one, other in zip(old.to_pylist(), new.to_pylist(), strict=True):
        for position, (was, now) in enumerate(zip(one["labels_5"], other["labels_5"], strict=True)):
            place = one["block_id"], position
            if was != now:
                differing[place] = now
            if place in bad and bad[place]["label"] == was:
                better = bad[place]["better"]
                expected[place] = IGNORED if better is None else tokenizer(better)["input_ids"][0]
    assert differing == expected
    figures = json.loads((folders["reviewed_labels"] / "manifest.json").read_text())["figures"]["labels"]
    assert figures == {"masked": 1, "replaced": 1, "no_longer_there": 0}


def expect_score(folders: dict[str, Path], before: dict[str, bytes]) -> None:
    """Of the baseline every completion was shown: where the two agree, what they say is the score of its stratum."""
    people = {(row["prompt"], row["completion"]): row["grade"] for row in rows(before, "decisions/judge.jsonl")}
    completions = pq.read_table(folders["evaluation"] / "completions.parquet").to_pylist()
    graded = [row for row in completions if row["kind"] == "familiarity" and row["model"] == "baseline"]
    expected = 0.0
    for grade in {row["grade"] for row in graded}:
        of_grade = [row for row in graded if row["grade"] == grade]
        said = [people[pair] for row in of_grade if (pair := (row["prompt"], row["completion"])) in people]
        worth = sum(POINTS[one] for one in said) / len(said) if said else None
        assert worth is not None
        expected += worth * len(of_grade) / len(graded)
    found = json.loads((folders["reviewed_evaluation"] / "corrected.json").read_text())["models"]["baseline"]
    assert found["corrected"]["value"] == pytest.approx(expected)
    assert found["corrected"]["low"] <= expected <= found["corrected"]["high"]
