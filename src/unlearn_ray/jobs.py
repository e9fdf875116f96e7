"""Which forget sets come first, and how several drivers share them: on one root, with leases, no step is done twice."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unlearn_ray.config import RunConfig
from unlearn_ray.errors import InputError


class _Owned(Protocol):
    @property
    def forget_set(self) -> str: ...


@dataclass(frozen=True)
class Job:
    """One of several drivers: the number-th of `of`, counted from 1. Each begins with every of-th set, and helps with
    those of the others when its own are done, so that a job that is killed leaves nothing undone.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Job":
        """From I/N. Raises InputError for anything else."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise InputError(f"--job {text}: expected I/N with I from 1 to N, such as 2/4")
        return cls(int(number), int(of))

    @property
    def share(self) -> float:
        """Of the cluster: the pools of all drivers must fit into it together, or they would wait for each other."""
        return 1 / self.of

    def share_of(self, config: RunConfig) -> RunConfig:
        """The configuration with this job's share of what the language model's endpoint bears."""
        resources, endpoint = config.resources, config.resources.endpoint
        at_once = math.ceil(endpoint.requests_at_once / self.of)
        paced = {"requests_at_once": at_once, "requests_per_minute": endpoint.requests_per_minute / self.of}
        divided = resources.model_copy(update={"endpoint": endpoint.model_copy(update=paced)})
        return config.model_copy(update={"resources": divided})


ONLY = Job()


def job_arguments(config: RunConfig, jobs: int) -> list[list[str]]:
    """What `unlearn-ray run CONFIG` gets beside its overrides in each of so many jobs; no more jobs than sets."""
    of = min(jobs, len(config.forget_sets))
    return [["--job", f"{number}/{of}"] for number in range(1, of + 1)]


def chosen_sets(config: RunConfig, sets: Sequence[str] | None) -> list[str]:
    """The names of the sets to run, in their order. Raises InputError for one that the run does not have."""
    names = [one.name for one in config.forget_sets]
    if unknown := sorted(set(sets or ()) - set(names)):
        raise InputError(f"--sets: the run has no forget set {', '.join(unknown)}")
    return [name for name in names if sets is None or name in sets]


def urgency(config: RunConfig, job: Job) -> Callable[[_Owned], tuple]:
    """The order in which steps are admitted: what sets share; then this job's own sets before those of others, higher
    priorities, earlier deadlines, and in the order of the configuration, so that a set that was begun is finished.
    """
    places = {}
    for place, one in enumerate(config.forget_sets):
        deadline = one.deadline.timestamp() if one.deadline else math.inf
        places[one.name] = (place % job.of != job.number - 1, -one.priority, deadline, place)
    return lambda step: places.get(step.forget_set, (False, -math.inf))
