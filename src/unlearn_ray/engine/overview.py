"""A run of a thousand sets on one screen: how many steps stand where, what failed, what is slow, the time left."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from unlearn_ray.engine.steps import Outcome

SLOW = 3  # times as long as usual for its stage
ENOUGH = 3  # steps of a stage that tell what is usual


@dataclass(frozen=True)
class Overview:
    """sets: how many are done, failed, running or to do. steps: stage -> state -> how many. slow: running steps with
    the seconds that are usual. late: sets past their deadline that are not done. seconds_left: what is to do, at the
    usual seconds of each stage and so many steps at a time as run now; None where some stage was never done.
    """

    sets: dict[str, int]
    steps: dict[str, dict[str, int]]
    failed: list[Outcome]
    running: list[Outcome]
    slow: list[tuple[Outcome, float]]
    late: list[str]
    seconds_left: float | None
    by_set: dict[str, str]


def overview(
    outcomes: Sequence[Outcome], sets: Sequence[str], deadlines: Mapping[str, datetime], now: datetime
) -> Overview:
    """outcomes: of a whole run. A step that several sets share counts once. sets: the forget sets."""
    once = list({outcome.step.digest: outcome for outcome in reversed(outcomes)}.values())[::-1]
    steps: dict[str, Counter[str]] = {}
    seconds: dict[str, list[float]] = {}
    for outcome in once:
        steps.setdefault(outcome.step.stage, Counter())[outcome.state] += 1
        if outcome.state in ("done", "ran"):
            seconds.setdefault(outcome.step.stage, []).append(outcome.seconds)
    usual = {stage: median(found) for stage, found in seconds.items()}
    running = [outcome for outcome in once if outcome.state == "running"]
    slow = [
        (outcome, usual[stage])
        for outcome in running
        if len(seconds.get(stage := outcome.step.stage, [])) >= ENOUGH and outcome.seconds > SLOW * usual[stage]
    ]
    by_set = _by_set(outcomes, sets)
    return Overview(
        sets=dict(Counter(by_set.values())),
        steps={stage: dict(states) for stage, states in steps.items()},
        failed=[outcome for outcome in once if outcome.state == "failed"],
        running=running,
        slow=slow,
        late=[name for name, time in deadlines.items() if time < now and by_set.get(name) != "done"],
        seconds_left=_seconds_left(once, usual, len(running)),
        by_set=by_set,
    )


def as_json(found: Overview) -> dict:
    """The overview for programs."""

    def told(outcome: Outcome) -> dict:
        step = {"forget_set": outcome.step.forget_set, "stage": outcome.step.stage, "digest": outcome.step.digest}
        error = {"error": str(outcome.error)} if outcome.error else {}
        return step | {"seconds": round(outcome.seconds, 1)} | error | dict(outcome.progress)

    return {
        "sets": found.sets,
        "steps": found.steps,
        "failed": [told(outcome) for outcome in found.failed],
        "running": [told(outcome) for outcome in found.running],
        "slow": [told(outcome) | {"usual_seconds": usual} for outcome, usual in found.slow],
        "late": found.late,
        "seconds_left": found.seconds_left,
        "by_set": found.by_set,
    }


def _by_set(outcomes: Sequence[Outcome], sets: Sequence[str]) -> dict[str, str]:
    """Where each set stands: failed where one of its own steps is, done where all are."""
    states: dict[str, set[str]] = {name: set() for name in sets}
    for outcome in outcomes:
        if outcome.step.forget_set in states:
            states[outcome.step.forget_set].add(outcome.state)
    return {
        name: next(
            (state for state in ("failed", "running") if state in found), "to do" if found - {"done"} else "done"
        )
        for name, found in states.items()
    }


def _seconds_left(once: Sequence[Outcome], usual: Mapping[str, float], at_a_time: int) -> float | None:
    left = 0.0
    for outcome in once:
        if outcome.state in ("running", "to do"):
            if "seconds_left" in outcome.progress:
                left += outcome.progress["seconds_left"]
            elif outcome.step.stage not in usual:
                return None
            else:
                left += max(usual[outcome.step.stage] - outcome.seconds, 0)
    return left / max(at_a_time, 1)
