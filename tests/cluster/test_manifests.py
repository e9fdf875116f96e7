"""The files of cluster/, checked without a cloud: by Ray's own readers, by a strict schema of the keys that they use,
and against each other. Each check is shown to refuse a broken file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from unlearn_ray.config import load_config
from unlearn_ray.engine.placement import matches, places

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "cluster"
SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
RAY_UP = ("aws.yaml", "gcp.yaml")
KUBERAY = ("raycluster.yaml", "rayjob.yaml")
CONSTRAINTS = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().split() if "==" in line)
IMAGE = f"REGISTRY/unlearn-ray:ray-{CONSTRAINTS['ray']}"


def read(name: str) -> Any:
    return json.loads(json.dumps(yaml.safe_load((FOLDER / name).read_text())))  # without what its parts share


def ray_cluster(manifest: dict) -> dict:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def as_autoscaler_reads_it(name: str) -> dict:
    """The configuration that Ray's autoscaler makes of a file of either kind."""
    if name in RAY_UP:
        prepared = prepare_config(read(name))
        validate_config(prepared)
        return prepared
    manifest = read(name)
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": manifest["metadata"] | {"namespace": "default"}, "spec": ray_cluster(manifest)}
    )


def offered(name: str) -> list[dict[str, str]]:
    """The labels of every group of nodes that runs work."""
    found = as_autoscaler_reads_it(name)
    return [one["labels"] for group, one in found["available_node_types"].items() if group != found["head_node_type"]]


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_rays_autoscaler_reads_the_file_and_its_head_runs_no_work(name):
    found = as_autoscaler_reads_it(name)
    types = found["available_node_types"]
    assert types[found["head_node_type"]]["resources"]["CPU"] == 0
    assert "GPU" not in types[found["head_node_type"]]["resources"]
    workers = [one for group, one in types.items() if group != found["head_node_type"]]
    assert all(one.get("min_workers", 0) == 0 and one["max_workers"] > 0 for one in workers)
    assert found["max_workers"] == sum(one["max_workers"] for one in workers)
    gpus = [one for one in workers if one["resources"].get("GPU")]
    assert all("ray.io/accelerator-type" in one["labels"] for one in gpus)
    assert {one["labels"]["ray.io/market-type"] for one in gpus} == {"spot", "on-demand"}
    assert [one for one in workers if one["labels"].get("unlearn-ray/work") == "cpu" and one not in gpus]


@pytest.mark.parametrize("cluster", [*RAY_UP, *KUBERAY])
@pytest.mark.parametrize("config", sorted(file.name for file in (PROJECT / "configs").glob("*.yaml")))
def test_every_label_that_a_configuration_asks_for_is_offered(config, cluster):
    resources = load_config(PROJECT / "configs" / config).resources
    for work, gpus in (("cpu", 0), ("score", 1), ("train", 1)):
        for place in places(resources, work, gpus):
            assert [labels for labels in offered(cluster) if matches(labels, place)], f"{work}: {place}"


def test_a_label_that_no_group_has_is_noticed():
    assert not [labels for labels in offered("aws.yaml") if matches(labels, {"ray.io/accelerator-type": "B200"})]


@pytest.mark.parametrize("name", RAY_UP)
def test_a_cluster_of_ray_up_asks_for_a_token_and_shows_its_dashboard_to_itself_alone(name):
    config = read(name)
    assert config["docker"]["image"] == IMAGE
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    [start] = [command for command in config["head_start_ray_commands"] if "--head" in command]
    assert {"--num-cpus=0", "--dashboard-host=127.0.0.1"} <= set(start.split())
    for market, spot in (("spot", True), ("on-demand", False)):
        for one in config["available_node_types"].values():
            if one.get("labels", {}).get("ray.io/market-type") == market:
                node = json.dumps(one["node_config"])
                assert ("MarketType" in node or '"preemptible": true' in node) is spot


@pytest.mark.parametrize("name", [*KUBERAY, "network-policy.yaml"])
def test_a_manifest_has_the_keys_of_its_kind_and_no_others(name):
    jsonschema.Draft202012Validator(SCHEMA).validate(read(name))


@pytest.mark.parametrize("name", KUBERAY)
def test_a_cluster_of_kuberay_asks_for_a_token_and_takes_keys_from_a_secret_alone(name):
    cluster = ray_cluster(read(name))
    assert cluster["rayVersion"] == CONSTRAINTS["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    policy = read("network-policy.yaml")["spec"]["podSelector"]["matchLabels"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        assert container["image"] == IMAGE
        assert [list(one) for one in container["envFrom"]] == [["secretRef"]]
        assert policy.items() <= group["template"]["metadata"]["labels"].items()
        gpus = "nvidia.com/gpu" in container["resources"]["limits"]
        assert gpus == ("tolerations" in group["template"]["spec"]) == ("nodeSelector" in group["template"]["spec"])


def test_the_two_manifests_describe_one_cluster():
    alone, of_job = ray_cluster(read("raycluster.yaml")), ray_cluster(read("rayjob.yaml"))
    assert alone["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "127.0.0.1"
    assert of_job["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "0.0.0.0"  # for the operator alone
    for group in (of_job["headGroupSpec"], *of_job["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        assert spec["volumes"].pop()["configMap"] == {"name": "unlearn-ray-run"}
        assert spec["containers"][0]["volumeMounts"].pop()["name"] == "run"
    assert alone == of_job


def test_a_job_runs_again_on_a_new_cluster_with_its_driver_off_the_head():
    job = read("rayjob.yaml")["spec"]
    assert job["entrypointNumCpus"] == 1 and job["backoffLimit"] > 0 and job["shutdownAfterJobFinishes"]
    program, script, config = job["entrypoint"].split()
    assert program == "python" and (PROJECT / script).is_file()
    mounts = ray_cluster(read("rayjob.yaml"))["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(Path(config).parent) in {one["mountPath"] for one in mounts}


def test_the_dashboard_is_open_to_the_operator_and_to_nobody_else():
    own, operator = read("network-policy.yaml")["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": {"app": "unlearn-ray"}}}]}
    assert [one["port"] for one in operator["ports"]] == [8265]
    assert "kuberay-operator" in json.dumps(operator["from"])


def test_the_image_has_the_versions_that_were_tested():
    text = (FOLDER / "Containerfile").read_text()
    assert f"--tag {IMAGE} ." in text and f"docker push {IMAGE}" in text
    assert f"--constraint constraints.txt torch=={CONSTRAINTS['torch']} " in text
    assert "ENV RAY_AUTH_MODE=token" in text
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((PROJECT / name).exists() for name in source.split())
    assert "pyarrow" in CONSTRAINTS and "boto3" in CONSTRAINTS and "google-api-python-client" in CONSTRAINTS


@pytest.mark.parametrize("name", [*RAY_UP, *KUBERAY])
def test_what_a_user_must_change_is_marked_and_nothing_else_is(name):
    marked = [line for line in (FOLDER / name).read_text().splitlines() if "# change this" in line]
    placeholders = [line for line in (FOLDER / name).read_text().splitlines() if re.search("CHANGE|REGISTRY", line)]
    assert set(placeholders) <= set(marked)
    assert len(marked) < 10


def misspelt(name: str, change: Callable[[dict], object]) -> dict:
    manifest = read(name)
    change(manifest)
    return manifest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rayjob.yaml", lambda job: job["spec"].update(entryPoint=job["spec"].pop("entrypoint"))),
        ("rayjob.yaml", lambda job: job["spec"].update(backoffLimit="3")),
        ("rayjob.yaml", lambda job: job["spec"]["rayClusterSpec"].pop("authOptions")),
        ("raycluster.yaml", lambda one: one["spec"]["workerGroupSpecs"][0].update(minReplica=0)),
        ("raycluster.yaml", lambda one: one["spec"]["workerGroupSpecs"][0].update(maxReplicas="3")),
        ("raycluster.yaml", lambda one: one["spec"]["authOptions"].update(mode="tokens")),
        ("raycluster.yaml", lambda one: one["spec"].update(rayVersion=2.6)),
        ("raycluster.yaml", lambda one: one["spec"]["headGroupSpec"]["template"]["spec"].pop("containers")),
        ("raycluster.yaml", lambda one: one["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0})),
        ("network-policy.yaml", lambda one: one["spec"].update(podselector={})),
    ],
)
def test_a_broken_manifest_is_refused(name, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(misspelt(name, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(head_node="head"),
        lambda config: config.update(max_workers=-1),
        lambda config: config["available_node_types"]["cpu"].pop("resources"),
        lambda config: config["available_node_types"]["cpu"]["resources"].update(CPU="many"),
        lambda config: config["available_node_types"]["cpu"]["labels"].update({"unlearn-ray/work": 1}),
        lambda config: config["docker"].pop("container_name"),
        lambda config: config.pop("provider"),
    ],
)
@pytest.mark.parametrize("name", RAY_UP)
def test_a_broken_file_of_ray_up_is_refused(name, change):
    with pytest.raises((jsonschema.ValidationError, ValueError, KeyError, AssertionError)):
        validate_config(prepare_config(misspelt(name, change)))
