"""Which nodes of a cluster each kind of work goes to, by the labels that the nodes carry."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from unlearn_ray.config.base import Section, several

CPU_WORK = {"unlearn-ray/work": "cpu"}
SPOT, ON_DEMAND = {"ray.io/market-type": "spot"}, {"ray.io/market-type": "on-demand"}
ANY: dict[str, str] = {}

NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
KEY = re.compile(rf"([A-Za-z0-9.-]{{1,253}}/)?{NAME}")
VALUE = re.compile(rf"!?({NAME}|in\({NAME}(, ?{NAME})*\))")


def _selectors(places: tuple[dict[str, str], ...]) -> tuple[dict[str, str], ...]:
    if not places:
        raise ValueError("give at least one selector; {} is any node")
    for key, value in (pair for place in places for pair in place.items()):
        if not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise ValueError(f"{key}: {value} is no label selector; expected LABEL: VALUE, !VALUE or in(VALUE, VALUE)")
    return places


def _listed(value: object) -> object:
    return (value,) if isinstance(value, dict) else several(value)


Places = Annotated[tuple[dict[str, str], ...], BeforeValidator(_listed), AfterValidator(_selectors)]


class Placement(Section):
    """Ray label selectors in order of preference; `{}` is any node.

    A list that ends without `{}` is a demand: the work waits for such a node, and an autoscaler starts one. The
    defaults are preferences, which a cluster without these labels ignores.
    """

    cpu: Places = (CPU_WORK, ANY)
    """Cutting, translating and asking: off the nodes with GPUs."""
    score: Places = (SPOT, ANY)
    """Labelling, evaluation and the like: a node that is taken away costs a shard, which is done again elsewhere."""
    train: Places = (ON_DEMAND, ANY)
    """Fine-tuning: a node that is taken away costs all workers the steps since the last save. All of them go to nodes
    of the first selector under which the cluster has room for them, or else of the last."""

    def __hash__(self) -> int:
        # What is labelled together is grouped by all that it has in common, the resources too; mappings have no hash.
        return hash(self.model_dump_json())
