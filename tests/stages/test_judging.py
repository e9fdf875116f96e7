"""Grades from a language model: real Ray, a real HTTP server; what cannot be read is counted and never a grade."""

import json

import pytest
from chat_server import Reply, chat_server

from unlearn_ray.config import Endpoint, Judge, Resources
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.method.llm_judge import Completion
from unlearn_ray.stages.judging import grade_by_model, judging_params

ROWS = [Completion(f"Prompt {number}", ("Zorblax",), f" completion {number}") for number in range(8)]


@pytest.fixture
def grade(local_ray, monkeypatch, tmp_path):
    """grade(server, rows): grades and figures; the answers of a test are kept for its later calls."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def graded(server, rows):
        endpoint = Endpoint(base_url=server.base_url, attempts=1, timeout_s=3, requests_at_once=3)
        settings = Judge(source="openai", model="m", answer_tokens=100)
        return grade_by_model(rows, settings=settings, resources=Resources(endpoint=endpoint), answers=str(tmp_path))

    return graded


def number_of(body: dict) -> int:
    return int(json.loads(body["messages"][1]["content"])["prompt"].split()[1])


def good(body: dict, _: int) -> Reply:
    return Reply(json.dumps({"reason": "So it is.", "grade": number_of(body) % 4}), hang=0.05)


def test_every_completion_has_its_own_grade_and_equal_ones_are_asked_about_once(grade):
    with chat_server(good) as server:
        grades, figures = grade(server, [*ROWS, *reversed(ROWS[4:])])
        assert grades == [0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0]
        assert len(server.requests) == 8 and 1 < server.most_at_once <= 3
        assert figures["outcomes"] == {"read": 12}
        assert figures["usage"] == {"questions": 8, "kept": 0, "prompt_tokens": 800, "completion_tokens": 80}
        assert server.requests[0]["model"] == "m" and server.requests[0]["max_tokens"] == 100
        again, figures = grade(server, ROWS)
        assert again == grades[:8] and len(server.requests) == 8
        assert figures["usage"]["kept"] == 8 and figures["usage"]["questions"] == 0


def test_what_cannot_be_read_is_asked_for_once_more_then_counted_and_never_a_grade(grade):
    def reply(body, _):
        again = len(body["messages"]) > 2
        return [
            Reply("Let me see.\n```json\n" + json.dumps({"reason": "It does.", "grade": 3}) + "\n```"),
            Reply("A clear 2, I would say."),
            Reply('{"reason": "Great.", "grade": 7}'),
            Reply('{"reason": "It goes on and on', finish="length"),
            Reply(refusal="I cannot help with that."),
            Reply('{"grade": 1}' if again else "one"),
            Reply('{"grade": 0}'),
            Reply(""),
        ][number_of(body)]

    with chat_server(reply) as server:
        grades, figures = grade(server, [*ROWS, ROWS[1]])
    assert grades == [3, None, None, None, None, 1, 0, None, None]
    assert figures["outcomes"] == {"read": 2, "read when asked again": 1, "unreadable": 5, "refused": 1}
    assert figures["usage"]["questions"] == len(server.requests) == 13


def test_rows_without_an_answer_fail_the_grading_and_the_next_one_asks_for_these_alone(grade):
    trouble = {1: Reply(status=500), 3: Reply(hang=5), 6: Reply('{"grade": 0}', drop=True)}
    failed = pytest.raises(StepFailed, match=r"3 of 8 completions have no answer .* run again to ask for these alone")
    with chat_server(lambda body, number: trouble.get(number_of(body)) or good(body, number)) as server, failed:
        grade(server, ROWS)
    with chat_server(good) as server:
        grades, figures = grade(server, ROWS)
    assert {number_of(body) for body in server.requests} == {1, 3, 6}
    assert grades == [0, 1, 2, 3, 0, 1, 2, 3] and figures["usage"]["kept"] == 5


def test_a_wrong_key_is_the_users_mistake(grade):
    with (
        chat_server(lambda body, number: Reply(status=401)) as server,
        pytest.raises(InputError, match="refuses the key"),
    ):
        grade(server, ROWS)


def test_nothing_to_grade_asks_nothing(grade):
    with chat_server(good) as server:
        assert grade(server, [])[0] == []
        assert not server.requests


def test_grades_depend_on_what_the_judge_is_asked_and_the_dictionarys_on_nothing_more():
    asked = judging_params(Judge(source="openai", model="m"))
    assert asked != judging_params(Judge(source="openai", model="n")) and "prompt" in asked
    assert judging_params(Judge()) == {"source": "dictionary"}
