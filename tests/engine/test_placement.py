"""Work goes where the labels say: on a cluster of nodes that are started here, with GPUs that are only numbers."""

import json
import os
import subprocess
import sys

import pytest

from unlearn_ray.config import Resources
from unlearn_ray.engine.placement import matches, one_place, places, scheduling

# A pool for each kind of work, and a training, each told to say on which node it ran; twice the CPU pool, of which the
# second finds no room on the node that it prefers.
PROGRAM = """
import json
import ray
import pyarrow as pa
from unlearn_ray.config import Resources
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.placement import places
from unlearn_ray.engine.session import ensure_ray
from unlearn_ray.engine.train import fit

def here():
    node = ray.get_runtime_context().get_node_id()
    return next(one["Labels"]["name"] for one in ray.nodes() if one["NodeID"] == node)

class Where:
    def __call__(self, shard):
        return pa.table({"node": [here()]})

def where(work, gpus=0, **settings):
    pool = Pool(Where, workers=2, gpus=gpus, cpus=1, places=places(Resources(**settings), work, gpus))
    return sorted({row["node"] for row in map_shards(["a", "b"], pool)})

def trained(**settings):
    options = {"name": "where", "record": RECORD, "workers": 2, "cpus": 1, "gpus": 0, "restarts": 0}
    return fit(lambda config: here(), {}, places=places(Resources(**settings), "train"), **options)[0]

RECORD = __import__("sys").argv[1]
with ensure_ray(Resources(gpus_per_worker=0)):
    found = {
        "cpu": where("cpu"),
        "score": where("score", 1),
        "score on A100": where("score", 1, accelerator_type="A100"),
        "score on H100": where("score", 1, accelerator_type="H100"),
        "not spot": where("score", placement={"score": [{"ray.io/market-type": "!spot", "name": "!dear"}]}),
        "train": trained(),
        "train, labels that no node has": trained(placement={"train": [{"no/such": "label"}, {"name": "spot"}]}),
    }
print(json.dumps(found))
"""
NODES = {
    "translators": {"num_cpus": 2, "labels": {"unlearn-ray/work": "cpu"}},
    "spot": {"num_cpus": 2, "num_gpus": 2, "labels": {"ray.io/market-type": "spot", "ray.io/accelerator-type": "H100"}},
    "dear": {
        "num_cpus": 2,
        "num_gpus": 2,
        "labels": {"ray.io/market-type": "on-demand", "ray.io/accelerator-type": "A100"},
    },
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_work_finds_its_nodes(start_cluster, tmp_path):
    cluster, _ = start_cluster(
        {name: node | {"labels": node["labels"] | {"name": name}} for name, node in NODES.items()}
    )
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "record")]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "cpu": ["translators"],
        "score": ["spot"],
        "score on A100": ["dear"],
        "score on H100": ["spot"],
        "not spot": ["translators"],
        "train": "dear",
        "train, labels that no node has": "spot",
    }


def test_the_defaults_prefer_and_demand_nothing():
    for work in ("cpu", "score", "train"):
        [preferred, any_node] = places(Resources(), work, gpus=1)
        assert preferred and any_node == {}


def test_a_gpu_that_is_named_is_demanded_of_work_on_gpus_alone():
    resources = Resources(accelerator_type="H100")
    assert all(place["ray.io/accelerator-type"] == "H100" for place in places(resources, "score", gpus=1))
    assert places(resources, "score", gpus=0) == places(Resources(), "score")
    assert places(resources, "cpu") == places(Resources(), "cpu")


def test_places_become_a_selector_and_what_to_fall_back_on():
    assert scheduling([{"a": "b"}, {}]) == {
        "label_selector": {"a": "b"},
        "fallback_strategy": [{"label_selector": {}}],
    }
    assert scheduling([{"a": "b"}]) == {"label_selector": {"a": "b"}}
    assert scheduling([]) == scheduling([{}, {"a": "b"}]) == {}


def test_a_group_goes_where_there_is_room_for_all_of_it_and_otherwise_waits_at_its_last_choice(local_ray):
    choices = [{"no/such": "label"}, {"ray.io/market-type": "!spot"}, {"ray.io/market-type": "spot"}]
    assert one_place(choices, 2, {"CPU": 3}) == {"ray.io/market-type": "!spot"}
    assert one_place(choices, 3, {"CPU": 3}) == {"ray.io/market-type": "spot"}
    assert one_place(choices, 1, {"CPU": 1, "GPU": 1}) == {"ray.io/market-type": "spot"}


@pytest.mark.parametrize(
    ("selector", "meant"),
    [("spot", True), ("!spot", False), ("in(dear, spot)", True), ("!in(dear, cheap)", True), ("dear", False)],
)
def test_a_selector_means_the_nodes_that_ray_takes_it_to_mean(selector, meant):
    assert matches({"market": "spot"}, {"market": selector}) is meant


def test_a_label_that_is_not_there_is_none_of_the_values():
    assert not matches({}, {"market": "spot"})
    assert matches({}, {"market": "!in(spot, dear)"})
