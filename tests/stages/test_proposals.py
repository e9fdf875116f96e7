"""A dictionary from a language model: real Ray, a real HTTP server, answers as bad as they come."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from chat_server import Reply, chat_server
from click.testing import CliRunner
from conftest import STORY
from pydantic import SecretStr

from unlearn_ray import pipeline
from unlearn_ray.cli import main
from unlearn_ray.config import load_config
from unlearn_ray.endpoint import Connection
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.method.dictionary import read_entries
from unlearn_ray.method.proposals import SCHEMA, question, read_answer
from unlearn_ray.stages.asking import AskShard, Inquiry, Taken
from unlearn_ray.stages.proposals import read_proposals

NAMES = {"Zorblax": ("Bob", "person"), "Millikin": ("Anna", "person"), "Quendor": ("Wenham", "place")}


def entries_for(passage: str) -> list[dict]:
    return [
        {"anchor": anchor, "generic": generic, "kind": kind}
        for anchor, (generic, kind) in NAMES.items()
        if anchor in passage
    ]


def good(body: dict, number: int) -> Reply:
    return Reply(json.dumps({"anchors": entries_for(body["messages"][1]["content"])}), hang=0.05)


@pytest.fixture(scope="module")
def run_yaml(tmp_path_factory, write_run) -> Path:
    path = write_run(tmp_path_factory.mktemp("run"))
    (path.parent / "story.txt").write_text("".join(f"This is tale {number}. {STORY}" for number in range(14)))
    return path


@pytest.fixture
def config(run_yaml, local_ray, monkeypatch, request):
    """config(server, key=value, ...): a run with its dictionary from this server, 10 passages; each test asks a model
    of its own, so that none finds the answers of another."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")

    def load(server, **anchors):
        asked = {"source": "openai", "model": request.node.name, "passages": 10, "passage_characters": 600} | anchors
        endpoint = {"base_url": server.base_url, "attempts": 2, "timeout_s": 10, "requests_at_once": 3}
        return load_config(
            str(run_yaml), [f"anchors={json.dumps(asked)}", f"resources.endpoint={json.dumps(endpoint)}"]
        )

    return load


def build(settings) -> dict[str, Path]:
    """The folders of the steps, by stage."""
    outcomes = pipeline.run(settings, until="anchors")
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return {outcome.step.stage: Path(outcome.folder) for outcome in outcomes}


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def dictionary(folder: Path) -> dict[str, str]:
    text = (folder / "dictionary.jsonl").read_text()
    return {entry.anchor: entry.generic for entry in read_entries(text, "it")}


def test_every_passage_is_asked_about_once_and_the_answers_are_settled(config, run_yaml):
    with chat_server(good) as server:
        folders = build(config(server))
    assert dictionary(folders["anchors"]) == {anchor: generic for anchor, (generic, _) in NAMES.items()}
    assert Counter(server.passages).most_common(1)[0][1] == 1 and len(server.requests) == 10
    assert 1 < server.most_at_once <= 3
    figures = manifest(folders["proposals"])["figures"]
    assert figures["usage"] == {"questions": 10, "kept": 0, "prompt_tokens": 1000, "completion_tokens": 100}
    assert figures["outcomes"] == {"read": 10}
    assert server.keys == {"Bearer sk-secret-of-the-test"}
    written = [path for path in run_yaml.parent.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in path.read_bytes() for path in written)


def test_more_passages_cost_what_they_add_and_another_root_all(config):
    with chat_server(good) as server:
        build(config(server, passages=6))
        build(config(server, passages=10))
        assert len(server.requests) == 10
        build(config(server, passages=10, max_anchors=2))  # settling alone
        assert len(server.requests) == 10


def test_a_dry_run_tells_what_is_left_to_ask_and_asks_nothing(config, run_yaml, request):
    with chat_server(good) as server:
        build(config(server, passages=4))
        asked = json.dumps({"source": "openai", "model": request.node.name, "passages": 10, "passage_characters": 600})
        told = CliRunner().invoke(
            main, ["anchors", "build", str(run_yaml), f"anchors={asked}", "--dry-run", "--price", "100", "1000"]
        )
        assert len(server.requests) == 4
    row = told.output.splitlines()[1].split()
    assert row[:3] == ["story", "10", "6"] and row[4] == str(6 * 1500)
    assert float(row[5]) == pytest.approx((int(row[3]) * 100 + 9000 * 1000) / 1e6, abs=0.01)


def test_a_finished_dictionary_needs_neither_the_endpoint_nor_a_key(config, monkeypatch):
    with chat_server(good) as server:
        build(config(server))
    monkeypatch.delenv("OPENAI_API_KEY")
    build(config(server, max_anchors=2))


def test_a_run_that_died_asks_for_the_rest(config):
    """The 7th question and all after it fail: what was answered before is not asked again."""

    def reply(body, number):
        return Reply(status=401) if number >= 6 else good(body, number)

    with chat_server(reply) as server, pytest.raises(InputError, match="refuses the key"):
        build(config(server))
    answered = server.passages[:6]
    with chat_server(good) as server:
        build(config(server))
    assert len(server.requests) == 4 and not set(answered) & set(server.passages)


TROUBLES = {
    "prose": lambda entries: Reply(f"Certainly! Here you are:\n```json\n{json.dumps({'anchors': entries})}\n```"),
    "cut": lambda entries: Reply(json.dumps({"anchors": [*entries, {"anchor": "Zor"}]})[:-9], finish="length"),
    "wrong keys": lambda entries: Reply(json.dumps({"terms": ["Zorblax"]})),
    "nothing": lambda entries: Reply('{"anchors": []}'),
    "refusal": lambda entries: Reply(refusal="I cannot help with that."),
    "no JSON": lambda entries: Reply("The names are Zorblax and Millikin."),
}
OUTCOMES = {
    "prose": ("read", 1),
    "cut": ("partly read", 2),
    "wrong keys": ("unreadable", 2),
    "nothing": ("read", 1),
    "refusal": ("refused", 1),
    "no JSON": ("unreadable", 2),
}


def ask(server, folder: Path, passages: list[str], **connection) -> list[Taken]:
    """The answers of an actor, which here is in this process."""
    settings = {"at_once": 2, "per_minute": 0, "attempts": 2, "timeout_s": 10} | connection
    inquiry = Inquiry("m", SCHEMA, 100, read_answer)
    actor = AskShard(Connection(server.base_url, **settings), SecretStr("k"), inquiry, str(folder))
    shard = [(number, question(passage)) for number, passage in enumerate(passages)]
    rows = actor(pa.table({"shard": [json.dumps(shard)]})).to_pylist()
    assert [row["number"] for row in rows] == list(range(len(passages)))
    return [Taken(**json.loads(row["taken"])) for row in rows]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_answer_in_trouble_is_asked_for_once_more_then_counted_and_kept(tmp_path, trouble):
    with chat_server(lambda body, number: TROUBLES[trouble](entries_for("Zorblax and Quendor"))) as server:
        [taken] = ask(server, tmp_path, ["Zorblax and Quendor"])
    outcome, times = OUTCOMES[trouble]
    assert (taken.outcome, len(server.requests), taken.questions) == (outcome, times, times)
    read = trouble in ("prose", "cut")
    assert [one["anchor"] for one in taken.found or []] == (["Zorblax", "Quendor"] if read else [])
    assert taken.answer


def test_an_answer_that_is_better_the_second_time_counts_as_repaired(tmp_path):
    def reply(body, number):
        return good(body, number) if len(body["messages"]) > 2 else Reply("Names: Zorblax")

    with chat_server(reply) as server:
        [taken] = ask(server, tmp_path, ["Zorblax came"])
    assert (taken.outcome, taken.questions) == ("read when asked again", 2)
    assert [one["generic"] for one in taken.found or []] == ["Bob"]


def test_a_passage_without_an_answer_does_not_stop_the_others(tmp_path):
    def reply(body, number):
        return Reply(status=500) if "Zorblax" in body["messages"][1]["content"] else good(body, number)

    with chat_server(reply) as server:
        taken = ask(server, tmp_path, ["Quendor was far", "Zorblax came", "Millikin went"])
    assert [one.outcome for one in taken] == ["read", "unanswered", "read"]
    assert "HTTP 500" in taken[1].answer


def test_a_dead_endpoint_is_given_up_after_some_questions(tmp_path):
    failed = pytest.raises(StepFailed, match="10 questions in a row had no answer")
    with chat_server(lambda body, number: Reply(status=503)) as server, failed:
        ask(server, tmp_path, [f"passage {number}" for number in range(100)], attempts=1)
    assert len(server.requests) < 50


def test_an_answer_that_cannot_be_kept_stops_the_asking_at_once(tmp_path):
    (tmp_path / "file").write_text("where the folder of answers should be")
    failed = pytest.raises(StepFailed, match="cannot write")
    with chat_server(good) as server, failed:
        ask(server, tmp_path / "file", [f"passage {number}" for number in range(100)], at_once=1)
    assert len(server.requests) < 50


def test_a_step_with_an_unanswered_passage_fails_and_the_next_run_asks_for_it_alone(config):
    failed = pytest.raises(StepFailed, match=r"of 10 passages have no answer .* run again to ask for these alone")
    some = lambda body, number: Reply(status=500) if number % 10 > 3 else good(body, number)
    with chat_server(some) as server, failed:
        build(config(server))
    answered = {passage for passage, n in Counter(server.passages).items() if n == 1}
    with chat_server(good) as server:
        build(config(server))
    assert 0 < len(server.requests) < 10 and not answered & set(server.passages)


PLANTED = [  # one of each thing that went wrong in a real dictionary
    ("Zorblax", "Bob", "person"), ("Zorblax", "Rob", "person"), ("Zorblax", "Rob", "person"),  # a conflict
    ("Millikin", "Zorblax", "person"), ("Quendor", "quendor", "place"),  # a translation that is an anchor, an identity
    ("wizard", "baker", "person"), ("morning", "evening", "other"), ("stones", "bricks", "object"),  # ordinary words
    ("Gandalf", "Walter", "person"), ("...", "x", "other"),  # unused, no term
]  # fmt: skip


def test_no_planted_fault_survives_a_build_from_a_file_of_proposals(run_yaml, local_ray, tmp_path):
    raw, checked = tmp_path / "raw.jsonl", tmp_path / "dictionary.jsonl"
    lines = [{"anchor": anchor, "generic": generic, "kind": kind} for anchor, generic, kind in PLANTED]
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines))
    documents = ["--documents", str(run_yaml.parent / "story.txt")]
    before = CliRunner().invoke(main, ["anchors", "check", str(raw), *documents])
    assert before.exit_code == 1 and "identity" in before.output and "chain" in before.output
    folder = build(load_config(str(run_yaml), [f"anchors={{proposals: {raw}}}"]))["anchors"]
    assert dictionary(folder)["Zorblax"] == "Rob" and dictionary(folder).keys() == NAMES.keys()
    checked.write_text((folder / "dictionary.jsonl").read_text())
    after = CliRunner().invoke(
        main, ["anchors", "check", str(checked), "--documents", str(run_yaml.parent / "story.txt")]
    )
    assert after.exit_code == 0, after.output
    assert not any(line.startswith(("error", "warning")) for line in after.output.splitlines()), after.output
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert {one["anchor"] for one in dropped} == {"wizard", "morning", "stones", "gandalf", "..."}


def test_raw_proposals_of_others_are_settled(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text('{"anchor": "Zorblax", "generic": "Bob", "kind": "wizard"}\n\n{"anchor": "Q", "generic": "R"}\n')
    assert [(one.anchor, one.kind, one.passage) for one in read_proposals(str(path))] == [
        ("Zorblax", "other", "line 1"),
        ("Q", "other", "line 3"),
    ]
    path.write_text('{"anchor": "Zorblax"}\n')
    with pytest.raises(InputError, match="line 1: expected an object"):
        read_proposals(str(path))
