"""The client against a real HTTP server that misbehaves in each way servers do."""

from dataclasses import asdict

import pytest
from chat_server import Reply, chat_server

from unlearn_ray.endpoint import Chat, Connection, Question, check_endpoint
from unlearn_ray.errors import InputError, StepFailed


class Kept(dict):
    def read(self, key):
        return self.get(key)

    def write(self, key, answer):
        self[key] = answer


def ask(server, text="What?", *, answers=None, attempts=3, per_minute=0.0, timeout_s=20.0):
    connection = Connection(server.base_url, 4, per_minute, attempts, timeout_s)
    chat = Chat(connection, "sk-test", Kept() if answers is None else answers)
    return chat.ask(Question("a-model", ({"role": "user", "content": text},), {"type": "object"}, 50))


def test_an_answer_comes_with_its_usage_and_is_paid_for_once():
    answers = Kept()
    with chat_server(lambda body, number: Reply("yes")) as server:
        first, second = ask(server, answers=answers), ask(server, answers=answers)
    assert first == type(first)("yes", "stop", 100, 10)
    assert second.kept and asdict(second) | {"kept": False} == asdict(first)
    assert len(server.requests) == 1 and server.keys == {"Bearer sk-test"}
    assert "sk-test" not in str(answers)


def test_the_form_is_asked_for_in_the_way_that_the_server_takes():
    def no_schema(body, number):
        return Reply("{}") if "response_format" not in body else Reply(status=500 if number else 400)

    with chat_server(no_schema) as server:
        chat = Chat(Connection(server.base_url, 4, 0, 3, 20), "k", Kept())
        for text in ("one", "two"):
            chat.ask(Question("m", ({"role": "user", "content": text},), {"type": "object"}, 50))
    formats = [body.get("response_format", {}).get("type") for body in server.requests]
    assert formats == ["json_schema", "json_schema", "json_object", None, None]


def test_a_busy_server_is_asked_again_after_the_time_it_names():
    replies = [Reply(), Reply(status=429, headers={"Retry-After": "1"}), Reply("now")]
    with chat_server(lambda body, number: replies[number]) as server:
        chat = Chat(Connection(server.base_url, 4, 0, 3, 20), "k", Kept())
        for text in ("one", "two"):
            answer = chat.ask(Question("m", ({"role": "user", "content": text},), {"type": "object"}, 50))
    assert answer.text == "now"
    assert 0.95 < server.times[2] - server.times[1] < 10


@pytest.mark.parametrize("bad", [Reply(status=500), Reply(status=503), Reply(drop=True), Reply(hang=3)])
def test_a_failure_is_asked_again(bad):
    with chat_server(lambda body, number: bad if number in (1, 2) else Reply("at last")) as server:
        chat = Chat(Connection(server.base_url, 4, 0, 4, 1.0), "k", Kept())
        chat.ask(Question("m", ({"role": "user", "content": "warm-up"},), {}, 50))
        answer = chat.ask(Question("m", ({"role": "user", "content": "two"},), {}, 50))
    assert answer.text == "at last" and len(server.requests) == 4


def test_a_server_that_stays_down_fails_this_question_alone():
    with chat_server(lambda body, number: Reply(status=500)) as server, pytest.raises(StepFailed, match="HTTP 500"):
        ask(server, attempts=2)


@pytest.mark.parametrize(("status", "message"), [(401, "refuses the key"), (404, "no such model")])
def test_what_fails_every_question_is_bad_input(status, message):
    with chat_server(lambda body, number: Reply(status=status)) as server, pytest.raises(InputError, match=message):
        ask(server)


def test_a_refusal_is_an_answer():
    with chat_server(lambda body, number: Reply(refusal="I may not")) as server:
        answer = ask(server)
    assert (answer.text, answer.finish) == ("I may not", "refusal")


def test_requests_keep_their_distance():
    with chat_server(lambda body, number: Reply()) as server:
        chat = Chat(Connection(server.base_url, 4, 240, 3, 20), "k", Kept())
        for text in "abc":
            chat.ask(Question("m", ({"role": "user", "content": text},), {}, 50))
    assert server.times[2] - server.times[0] >= 0.45


def test_an_endpoint_that_is_not_there_is_bad_input():
    with pytest.raises(InputError, match="cannot reach"):
        check_endpoint(Connection("http://127.0.0.1:9/v1", 1, 0, 1, 5), "k")
