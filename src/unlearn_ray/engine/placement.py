"""Where on a cluster the work goes, by labels: what resources.placement says, resolved for Ray."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray

from unlearn_ray.config import Resources

ACCELERATOR = "ray.io/accelerator-type"
Place = dict[str, str]


def places(resources: Resources, work: Literal["cpu", "score", "train"], gpus: float = 0) -> tuple[Place, ...]:
    """The label selectors of a kind of work, best first; those of work on GPUs name the GPU where the config does."""
    chosen: tuple[Place, ...] = getattr(resources.placement, work)
    if not gpus or resources.accelerator_type is None:
        return chosen
    return tuple({ACCELERATOR: resources.accelerator_type} | place for place in chosen)


def scheduling(places: Sequence[Place]) -> dict[str, Any]:
    """The places as Ray's options of a task or an actor: each is tried where the one before has no room."""
    first, *others = places or ({},)
    if not first:
        return {}
    return {"label_selector": first} | (
        {"fallback_strategy": [{"label_selector": place} for place in others]} if others else {}
    )


def one_place(places: Sequence[Place], workers: int, demand: Mapping[str, float]) -> Place:
    """The first place whose nodes have room for all workers, or else the last: a preference must not become a demand
    that no node of the cluster can meet, now or when an autoscaler has started more.

    For a placement group, whose bundles have one selector and no others to fall back on.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    for place in places:
        fitting = (node["Resources"] for node in nodes if matches(node["Labels"], place))
        if sum(_fits(has, demand) for has in fitting) >= workers:
            return place
    return places[-1] if places else {}


def here() -> Place:
    """The node of the process that asks: for what must not outlive it."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def matches(labels: Mapping[str, str], place: Place) -> bool:
    """Whether a node with these labels is meant by a selector: VALUE, !VALUE, in(VALUE, VALUE) or !in(...)."""
    return all(_meant(labels.get(key), value) for key, value in place.items())


def _meant(label: str | None, value: str) -> bool:
    wanted = value.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", wanted)
    among = [one.strip() for one in listed[1].split(",")] if listed else [wanted]
    return (label in among) != value.startswith("!")


def _fits(has: Mapping[str, float], demand: Mapping[str, float]) -> int:
    return min((math.floor(has.get(name, 0) / amount) for name, amount in demand.items() if amount), default=0)
