"""Asking a language model: a job that is killed, and a real model behind a real server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from chat_server import Reply, chat_server
from conftest import STORY
from processes import kill_ours
from pydantic import SecretStr

from unlearn_ray.endpoint import Connection, check_endpoint
from unlearn_ray.method import llm_judge, proposals, written_prompts
from unlearn_ray.method.llm_judge import Completion
from unlearn_ray.method.passages import draw_passages
from unlearn_ray.models import compute_dtype, load_model, load_tokenizer
from unlearn_ray.stages.asking import AskShard, Inquiry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DEMO = Path(__file__).parents[1] / "data" / "demo"
PASSAGES, ANSWERED, AT_ONCE = 60, 40, 4


def test_a_killed_job_asks_no_answered_passage_twice(tmp_path, write_run, ray_folder):
    config = write_run(tmp_path)
    (tmp_path / "story.txt").write_text("".join(f"This is tale {number}. {STORY}" for number in range(2 * PASSAGES)))
    asked = {"source": "openai", "model": "m", "passages": PASSAGES, "passage_characters": 600}
    answered: list[str] = []

    def reply(body, number):
        if number >= ANSWERED:
            return Reply(hang=600)
        answered.append(body["messages"][1]["content"])
        entry = {"anchor": "Zorblax", "generic": "Bob", "kind": "person"}
        return Reply(json.dumps({"anchors": [entry]}))

    def start(server) -> subprocess.Popen[str]:
        endpoint = {"base_url": server.base_url, "requests_at_once": AT_ONCE, "timeout_s": 900}
        overrides = [f"anchors={json.dumps(asked)}", f"resources.endpoint={json.dumps(endpoint)}"]
        return subprocess.Popen(
            [sys.executable, "-m", "unlearn_ray", "anchors", "build", str(config), *overrides],
            env=os.environ | {"RAY_TMPDIR": ray_folder},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with chat_server(reply) as server:
        driver = start(server)
        while len(server.requests) < ANSWERED + AT_ONCE:  # those that hang are all that is under way
            assert driver.poll() is None, driver.communicate()[0]
            time.sleep(0.05)
        kill_ours(driver.pid, ray_folder)
        driver.communicate()
    with chat_server(lambda body, number: Reply()) as server:
        driver = start(server)
        output, _ = driver.communicate(timeout=300)
        kill_ours(driver.pid, ray_folder)
    assert driver.returncode == 0, output
    assert len(set(answered)) == ANSWERED and not set(answered) & set(server.passages)
    assert len(server.requests) == PASSAGES - ANSWERED and max(Counter(server.passages).values()) == 1


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    """SmolLM2 behind `transformers serve`: base_url and the name of the model."""
    folder = tmp_path_factory.mktemp("model")
    [weights] = DEMO.glob("*.gguf")
    load_model(str(weights)).save_pretrained(folder)
    load_tokenizer(str(weights)).save_pretrained(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", folder]
    dtype = str(compute_dtype("cpu")).removeprefix("torch.")
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", dtype]
    with open(folder / "serve.log", "w+") as log:
        server = subprocess.Popen([*command, *options], stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while not _listens(port):
                assert server.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            server.terminate()
            server.wait(30)


def _listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


GRADED = Completion("Down the hole ran the White", ("Rabbit", "Alice"), " Rabbit, and Alice ran after it.")


@pytest.mark.parametrize(
    ("schema", "read", "ask"),
    [
        (proposals.SCHEMA, proposals.read_answer, proposals.question),
        (written_prompts.SCHEMA, written_prompts.read_answer, written_prompts.question),
        (llm_judge.SCHEMA, llm_judge.read_grade, lambda _: llm_judge.question(GRADED)),
    ],
    ids=["anchor terms", "prompts", "grades"],
)
def test_a_real_model_is_asked_and_whatever_it_says_is_taken_for_what_it_is(schema, read, ask, real_server, tmp_path):
    base_url, model = real_server
    connection = Connection(base_url, at_once=1, per_minute=0, attempts=4, timeout_s=300)
    check_endpoint(connection, "none")
    [passage] = draw_passages({"alice": (DEMO / "alice.txt").read_text()}, count=1, characters=600, seed=0)
    inquiry = Inquiry(model, schema, 60, read)
    first, again = [
        AskShard(connection, SecretStr("none"), inquiry, str(tmp_path)).take(ask(passage.text)) for _ in range(2)
    ]
    assert first.outcome in ("read", "read when asked again", "partly read", "unreadable")
    assert first.questions == (1 if first.outcome == "read" else 2)
    assert first.answer and first.prompt_tokens > 100 and first.completion_tokens > 0
    assert again.questions == 0 and again.found == first.found
