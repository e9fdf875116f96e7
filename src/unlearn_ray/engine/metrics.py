"""A run's steps as metrics of Ray, for the cluster's dashboard and whatever scrapes it."""

from collections import Counter
from types import TracebackType

from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge, Histogram

from unlearn_ray.engine.steps import Outcome

BOUNDARIES_S = [1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 36000.0]


class Metrics:
    """unlearn_ray_steps_running (by stage), unlearn_ray_steps (by stage and state) and unlearn_ray_step_seconds (by
    stage). Needs a running Ray."""

    def __init__(self) -> None:
        self._running = Gauge("unlearn_ray_steps_running", "Steps that this driver runs now.", ("stage",))
        self._ended = RayCounter("unlearn_ray_steps", "Steps that ended, or were found done.", ("stage", "state"))
        self._seconds = Histogram("unlearn_ray_step_seconds", "Seconds of a step.", BOUNDARIES_S, ("stage",))
        self._now: Counter[str] = Counter()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for stage in self._now:
            self._running.set(0, {"stage": stage})

    def hear(self, outcome: Outcome) -> None:
        stage = outcome.step.stage
        self._now[stage] += {"running": 1, "ran": -1, "failed": -1}.get(outcome.state, 0)
        self._running.set(max(self._now[stage], 0), {"stage": stage})
        if outcome.state != "running":
            self._ended.inc(1, {"stage": stage, "state": outcome.state})
        if outcome.state == "ran":
            self._seconds.observe(outcome.seconds, {"stage": stage})
