"""Prompts from a language model: real Ray, a real HTTP server, answers as bad as they come."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from chat_server import Reply, chat_server
from conftest import STORY

from unlearn_ray import pipeline
from unlearn_ray.config import load_config
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.method.written_prompts import LEAK, NO_OBJECT, NO_SUBTLETY, WrittenPrompt
from unlearn_ray.stages.written_prompts import TWICE, read_prompts

TALES = 40


def entry_for(body: dict) -> dict:
    """A prompt that tells the passages apart by the tales in them."""
    tales = re.findall(r"tale (\d+)", body["messages"][1]["content"])
    return {"prompt": f"After the tales {' '.join(tales)} came", "references": ["Zorblax", "Quendor"], "subtlety": 6}


def good(body: dict, number: int) -> Reply:
    return Reply(json.dumps(entry_for(body)), hang=0.05)


@pytest.fixture(scope="module")
def run_yaml(tmp_path_factory, write_run) -> Path:
    path = write_run(tmp_path_factory.mktemp("run"))
    (path.parent / "story.txt").write_text("".join(f"This is tale {number}. {STORY}" for number in range(TALES)))
    return path


@pytest.fixture
def config(run_yaml, local_ray, monkeypatch, request):
    """config(server, key=value, ...): a run with ten prompts from this server; each test asks a model of its own."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def load(server, completions=10, **prompts):
        asked = {"source": "openai", "model": request.node.name, "passage_characters": 600} | prompts
        endpoint = {"base_url": server.base_url, "attempts": 1, "timeout_s": 3, "requests_at_once": 3}
        return load_config(
            str(run_yaml),
            [
                f"evaluate.completions={completions}",
                f"evaluate.prompts={json.dumps(asked)}",
                f"resources.endpoint={json.dumps(endpoint)}",
            ],
        )

    return load


def write(settings) -> Path:
    """The folder of the step."""
    outcomes = pipeline.run(settings, until="prompts")
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return Path(outcomes[-1].folder)


def figures(folder: Path) -> dict:
    manifest = json.loads((folder / "manifest.json").read_text())
    return {"rows": manifest["rows"]} | manifest["figures"]


def test_each_passage_gives_one_prompt_and_is_asked_about_once(config):
    with chat_server(good) as server:
        folder = write(config(server))
        assert len(server.requests) == 10 == len(set(server.passages))
        found = read_prompts(str(folder / "prompts.jsonl"))
        more = read_prompts(str(write(config(server, completions=14)) / "prompts.jsonl"))
        assert len(server.requests) == 14
    assert {one.document for one in found} == {"story.txt"} and len({one.prompt for one in found}) == 10
    assert found[0].references == ("Zorblax", "Quendor") and found[0].subtlety == 6
    assert more[:10] == found
    assert figures(folder) == {
        "rows": {"passages": 10, "prompts": 10},
        "outcomes": {"read": 10},
        "usage": {"questions": 10, "kept": 0, "prompt_tokens": 1000, "completion_tokens": 100},
        "dropped": {},
    }


def test_what_cannot_be_used_is_asked_for_once_more_then_dropped_and_counted_by_reason(config):
    """Of ten passages one is answered well, nine in some other way, by the order in which they first come."""
    numbers: dict[str, int] = {}

    def reply(body, _):
        entry, passage = entry_for(body), body["messages"][1]["content"]
        again = len(body["messages"]) > 2
        match numbers.setdefault(passage, len(numbers)):
            case 0:
                return Reply(f"Certainly!\n```json\n{json.dumps(entry)}\n```\nShall I go on?")
            case 1 | 2:
                return Reply(json.dumps(entry | {"prompt": "ZORBLAX's staff was"}))
            case 3:
                return Reply(json.dumps(entry | {"subtlety": 70}))
            case 4:
                return Reply("After the rain the old wizard came to")
            case 5:
                return Reply(json.dumps(entry)[:-9], finish="length")
            case 6:
                return Reply(refusal="I cannot help with that.")
            case 7:
                return Reply(json.dumps(entry) if again else "A prompt:")
            case _:
                return Reply(json.dumps(entry | {"prompt": "Two passages, one prompt"}))

    with chat_server(reply) as server:
        folder = write(config(server))
    found = figures(folder)
    assert found["outcomes"] == {"read": 3, "read when asked again": 1, "unreadable": 5, "refused": 1}
    assert found["dropped"] == {LEAK: 2, NO_SUBTLETY: 1, NO_OBJECT: 2, TWICE: 1}
    assert found["rows"] == {"passages": 10, "prompts": 3} and found["usage"]["questions"] == 16 == len(server.requests)
    troubles = [json.loads(line) for line in (folder / "troubles.jsonl").read_text().splitlines()]
    assert Counter(one["problem"] for one in troubles) == {LEAK: 2, NO_SUBTLETY: 1, NO_OBJECT: 2, "": 1}
    assert all(one["answer"] and one["passage"].startswith("story.txt:") for one in troubles)


def test_a_passage_without_an_answer_fails_the_step_and_the_next_run_asks_for_it_alone(config):
    trouble = [Reply(status=500), Reply(hang=5), Reply(drop=True)]
    some = lambda body, number: trouble[number % 5] if 0 < number % 5 < 3 else good(body, number)
    failed = pytest.raises(StepFailed, match=r"4 of 10 passages have no answer .* run again to ask for these alone")
    with chat_server(some) as server, failed:
        write(config(server))
    with chat_server(good) as server:
        folder = write(config(server))
    assert len(server.requests) == 4
    assert figures(folder)["rows"]["prompts"] == 10 and figures(folder)["usage"]["kept"] == 6


def test_a_model_that_writes_nothing_usable_is_said_to(config):
    failed = pytest.raises(StepFailed, match=r"none of the prompts .* from 10 passages can be used .*unreadable.: 10")
    with chat_server(lambda body, number: Reply("Once upon a time")) as server, failed:
        write(config(server))
    assert len(server.requests) == 20


def test_prompts_of_the_user_are_read_with_or_without_a_document(tmp_path):
    path = tmp_path / "prompts.jsonl"
    line = {"prompt": "The old man\u2028came to ", "references": ["Quendor"], "subtlety": 3}
    path.write_text(f"{json.dumps(line, ensure_ascii=False)}\n\n{json.dumps(line | {'document': 'a.txt'})}\n")
    assert read_prompts(str(path)) == [
        WrittenPrompt("", "The old man came to", ("Quendor",), 3),
        WrittenPrompt("a.txt", "The old man came to", ("Quendor",), 3),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "a b"', "line 2: not JSON; expected an object"),
        ('["a b"]', f"line 2: {NO_OBJECT}"),
        ('{"prompt": "the town of Quendor", "references": ["Quendor"], "subtlety": 3}', f"line 2: {LEAK}"),
        ('{"prompt": "the town", "references": ["Quendor"]}', f"line 2: {NO_SUBTLETY}"),
    ],
)
def test_a_bad_line_of_the_user_is_named(tmp_path, line, problem):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(InputError, match=problem):
        read_prompts(str(path))


def test_a_missing_or_empty_file_of_prompts_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file of prompts"):
        read_prompts(str(tmp_path / "absent.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no prompts in this file"):
        read_prompts(str(tmp_path / "empty.jsonl"))


def test_the_prompts_identify_the_evaluation_and_only_a_model_is_a_step(run_yaml, tmp_path):
    def steps(*overrides):
        return pipeline.steps_of(load_config(str(run_yaml), overrides))["story"]

    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "references": ["b"], "subtlety": 1}')
    plain, asked = steps(), steps("evaluate.prompts={source: openai, model: m}")
    own = steps(f"evaluate.prompts.file={path}")
    path.write_text('{"prompt": "a", "references": ["b"], "subtlety": 2}')
    changed = steps(f"evaluate.prompts.file={path}")
    judged = steps("evaluate.judge={source: openai, model: m}")
    assert "prompts" not in plain and "prompts" not in own and asked["evaluation"].inputs["prompts"] is asked["prompts"]
    assert len({of["evaluation"].digest for of in (plain, asked, own, changed, judged)}) == 5
    assert len({of["unlearned"].digest for of in (plain, asked, own, changed, judged)}) == 1


def test_a_bad_file_of_prompts_and_a_deaf_endpoint_are_found_before_the_work(run_yaml, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        pipeline.run(load_config(str(run_yaml), [f"evaluate.prompts.file={tmp_path}/absent.jsonl"]))
    deaf = "resources.endpoint={base_url: 'http://127.0.0.1:9/v1'}"
    for asking in ("evaluate.prompts={source: openai, model: m}", "evaluate.judge={source: openai, model: m}"):
        with pytest.raises(InputError, match="cannot reach this endpoint"):
            pipeline.run(load_config(str(run_yaml), [asking, deaf]))
