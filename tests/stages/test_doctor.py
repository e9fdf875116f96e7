"""What the doctor says of a cluster of one node; tests/test_ray_cluster.py asks it about three."""

import pytest
import yaml
from chat_server import Reply, chat_server

from unlearn_ray import load_config
from unlearn_ray.stages.doctor import examine_cluster

pytestmark = pytest.mark.usefixtures("local_ray")


def examine(path, *overrides: str) -> dict[str, tuple[str | None, str]]:
    return {name: (problem, found) for name, problem, found in examine_cluster(load_config(path, overrides), wait_s=2)}


def test_a_sound_cluster_is_found_sound_and_nothing_is_left_behind(write_run, tmp_path):
    found = examine(write_run(tmp_path))
    assert {name: problem for name, (problem, _) in found.items()} == dict.fromkeys(
        ["training", "scoring", "root", "nodes", "versions", "storage", "model", "documents"]
    )
    assert found["training"][1] == "1 with 1 CPU each"
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("override", "name", "problem"),
    [
        ("resources.workers=99", "training", "no room within 2 s for 99 with 1 CPU each"),
        ("resources={gpus_per_worker: 1, accelerator_type: H100}", "scoring", "'ray.io/accelerator-type': 'H100'"),
        ("baseline=/no/such/model", "model", "/no/such/model: no such model"),
        ("root=ROOT/story.txt/below", "root", "cannot write"),
    ],
)
def test_what_is_wrong_is_said_and_all_else_still_examined(write_run, tmp_path, override, name, problem):
    found = examine(write_run(tmp_path), override.replace("ROOT", str(tmp_path)))
    assert problem in str(found[name][0])
    assert len(found) == 8 and found["versions"][0] is None


def test_a_missing_key_is_noticed_and_a_key_is_never_shown(write_run, tmp_path, monkeypatch):
    path = write_run(tmp_path)
    asking = "anchors={source: openai, model: some}"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert "no key for OpenAI" in str(examine(path, asking)["endpoint"][0])

    monkeypatch.setenv("OPENAI_API_KEY", "planted-key")
    with chat_server(lambda body, number: Reply()) as server:
        found = examine(path, asking, f"resources.endpoint.base_url={server.base_url}")
    assert found["endpoint"][0] is None
    assert "planted-key" not in yaml.safe_dump({name: list(told) for name, told in found.items()})
