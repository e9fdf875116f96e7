"""A cluster examined before a run: what would fail after hours fails here in a minute, with what to do about it."""

import platform
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group

from unlearn_ray.config import RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.engine.placement import one_place, places
from unlearn_ray.engine.session import ensure_ray, gpus_per_scorer, gpus_per_worker
from unlearn_ray.engine.steps import LIBRARIES
from unlearn_ray.errors import InputError
from unlearn_ray.stages.asking import check_asking
from unlearn_ray.stages.inputs import check_model, make_root
from unlearn_ray.stages.origins import absolute, model_path_of

PROBE_TIMEOUT_S = 120
Report = tuple[str, str | None, str]
"""What was examined, what is wrong with it (None: nothing), and what was found."""


def examine_cluster(config: RunConfig, wait_s: float = 30) -> Iterator[Report]:
    """Examines the cluster that a run would join. wait_s: how long GPUs and CPUs may take to be there, for an
    autoscaler to bring them. Raises InputError where no cluster can be joined.
    """
    with ensure_ray(config.resources):
        yield _report("training", lambda: _room(config, "train", wait_s))
        yield _report("scoring", lambda: _room(config, "score", wait_s))
        folder = storage.join(absolute(config.root), f".doctor-{uuid.uuid4().hex[:8]}")
        found: dict[str, dict[str, Any]] = {}
        yield _report("root", lambda: _write_here(config, folder))
        yield _report("nodes", lambda: _visit_nodes(config, folder, found))
        yield _report("versions", lambda: _same_versions(found))
        yield _report("storage", lambda: _same_storage(folder, found))
        yield _report("model", lambda: _all_of(found, "model", config.baseline))
        yield _report("documents", lambda: _all_of(found, "documents", f"{len(_documents(config))} files"))
        if _asks(config):
            yield _report("endpoint", lambda: _endpoint(config))


def _report(name: str, examine: Callable[[], str]) -> Report:
    try:
        return name, None, examine()
    except Exception as error:  # whatever it is: the other examinations still help
        told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return name, " ".join(told.split()), ""


def _room(config: RunConfig, work: Any, wait_s: float) -> str:
    """Reserves what a training or all scorers need, as they will, and gives it back."""
    resources = config.resources
    gpus = gpus_per_worker(resources) if work == "train" else gpus_per_scorer(resources)
    demand: dict[str, float] = {"GPU": gpus} if gpus else {}
    if work == "train" or not gpus:  # scorers on GPUs take no CPUs
        demand["CPU"] = resources.cpus_per_worker
    place = one_place(places(resources, work, gpus), resources.workers, demand)
    told = " and ".join(f"{amount:g} {name}" for name, amount in sorted(demand.items(), reverse=True))
    wanted = f"{resources.workers} with {told} each" + (f" on {place}" if place else "")
    group = placement_group([demand] * resources.workers, bundle_label_selector=[place] * resources.workers)
    try:
        if not group.wait(wait_s):
            there = {name: ray.cluster_resources().get(name, 0) for name in demand}
            raise InputError(
                f"no room within {wait_s:g} s for {wanted}; the cluster has {there} in all. Free or add nodes with "
                "these labels, lower resources.workers, or give an autoscaler longer with --wait"
            )
    finally:
        remove_placement_group(group)
    return wanted


def _write_here(config: RunConfig, folder: str) -> str:
    make_root(absolute(config.root))
    storage.write_atomic(storage.join(folder, "driver"), b"doctor")
    return f"{absolute(config.root)} can be written"


def _visit_nodes(config: RunConfig, folder: str, found: dict[str, dict[str, Any]]) -> str:
    """Has every node try what its workers will have to do; fills `found`, by the node's address."""
    documents = _documents(config)
    baseline, trust = model_path_of(config.baseline), config.trust_remote_code
    visit = ray.remote(_visit)
    visits = {}
    for node in ray.nodes():
        if node["Alive"]:
            here = visit.options(num_cpus=0, max_retries=0, label_selector={"ray.io/node-id": node["NodeID"]})
            name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
            visits[name] = here.remote(folder, node["NodeID"], baseline, trust, documents)
    lost = []
    for name, result in visits.items():
        try:
            found[name] = ray.get(result, timeout=PROBE_TIMEOUT_S)
        except (GetTimeoutError, RayError) as error:
            lost.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    if lost:
        raise InputError(f"no task ran on {'; '.join(lost)}. Is unlearn-ray installed there, in the same image?")
    return f"{_nodes(found)} run tasks"


def _visit(folder: str, node: str, baseline: str, trust_remote_code: bool, documents: list[str]) -> dict[str, Any]:
    """On one node: its versions, and what it cannot do."""

    def tried(action: Callable[[], object]) -> str | None:
        try:
            action()
        except Exception as error:
            return str(error)
        return None

    def store() -> None:
        if storage.read_bytes(storage.join(folder, "driver")) != b"doctor":
            raise InputError("what the driver wrote reads differently")
        storage.write_atomic(storage.join(folder, node), b"doctor")

    def read_documents() -> None:
        if missing := [path for path in documents if not storage.exists(path)]:
            raise InputError(f"{missing[0]}: no such file")

    def read_model() -> None:
        check_model(baseline, trust_remote_code)
        if "://" in baseline and not storage.list_files(baseline):
            raise InputError(f"{baseline}: nothing there")

    return {
        "node": node,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "storage": tried(store),
        "model": tried(read_model),
        "documents": tried(read_documents),
    }


def _same_versions(found: Mapping[str, dict[str, Any]]) -> str:
    _refuse_none(found)
    own = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    differing = [
        f"{node} has {name} {there} instead of {own[name]}"
        for node, visit in found.items()
        for name, there in visit["versions"].items()
        if there != own[name]
    ]
    if differing:
        raise InputError(f"{'; '.join(differing)}. Give all nodes one image (cluster/Containerfile)")
    return ", ".join(f"{name} {own[name]}" for name in ("python", "ray", "torch", "transformers"))


def _same_storage(folder: str, found: Mapping[str, dict[str, Any]]) -> str:
    """Whether every node reads what the driver wrote, and the driver what every node wrote; removes all of it."""
    unseen = {
        node: "what it wrote does not arrive"
        for node, visit in found.items()
        if not visit["storage"] and not storage.exists(storage.join(folder, visit["node"]))
    }
    storage.remove(folder)
    _refuse_none(found)
    troubles = {node: visit["storage"] for node, visit in found.items() if visit["storage"]} | unseen
    if troubles:
        raise InputError(
            f"{_told(troubles)}. The root has to be one place for all nodes: a shared folder or a URI such as "
            "s3://BUCKET/PATH, with the rights to write there"
        )
    return f"{_nodes(found)} read and write it"


def _all_of(found: Mapping[str, dict[str, Any]], what: str, told: str) -> str:
    _refuse_none(found)
    if troubles := {node: visit[what] for node, visit in found.items() if visit[what]}:
        raise InputError(f"{_told(troubles)}. Put it where every node can read it")
    return f"{_nodes(found)} read {told}"


def _nodes(found: Mapping[str, dict[str, Any]]) -> str:
    return f"{len(found)} of {len(found)} nodes"


def _refuse_none(found: Mapping[str, dict[str, Any]]) -> None:
    if not found:
        raise InputError("no node could be asked, see above")


def _told(troubles: Mapping[str, str]) -> str:
    """Every trouble once, with the nodes that have it."""
    return "; ".join(
        f"{', '.join(node for node, one in troubles.items() if one == trouble)}: {trouble}"
        for trouble in Counter(troubles.values())
    )


def _documents(config: RunConfig) -> list[str]:
    """The documents of all forget sets, and of the retain text."""
    return [absolute(path) for one in (*config.forget_sets, None) for path in _expanded(config, one)]


def _expanded(config: RunConfig, one: Any) -> list[str]:
    patterns = one.documents if one else config.retain
    return storage.expand(patterns) if patterns else []


def _asks(config: RunConfig) -> bool:
    """Whether some step asks a language model."""
    evaluate, anchors = config.evaluate, config.anchors
    own_dictionary = anchors.dictionary or anchors.proposals
    return "openai" in (evaluate.prompts.source, evaluate.judge.source) or (
        anchors.source == "openai" and not own_dictionary
    )


def _endpoint(config: RunConfig) -> str:
    check_asking(config.resources)
    where = config.resources.endpoint.base_url or "the endpoint"
    return f"{where} answers {socket.gethostname()}, and takes the key that is there"
