"""Running many steps at once: as many as the cluster carries, the most urgent first, each in one driver only.

Ray starts a pool of actors piece by piece, so two steps that each got half of what they hold would wait for each other
for ever. A step is therefore admitted only when all that it holds is free of what the steps of this driver hold.
"""

import heapq
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from unlearn_ray.engine.events import Events
from unlearn_ray.engine.leases import Driver, driving
from unlearn_ray.engine.steps import Holds, Outcome, Step, attempt, state_on_disk, states_by_digest, with_inputs

POLL_S = 3  # between looks at steps that other drivers have, and at a cluster whose size may have changed
UNLIMITED = Holds(float("inf"), float("inf"))


def run_steps(
    root: str,
    steps: Sequence[Step],
    *,
    max_parallel: int | None = 1,
    capacity: Callable[[], Holds] = lambda: UNLIMITED,
    urgency: Callable[[Step], tuple] = lambda step: (),
    on_event: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not done of the steps and their inputs, inputs first; one outcome a step, in that order.

    Steps with one digest run once, also where several drivers work on one root: what another has is waited for. A
    failed step leaves those that need it skipped and the others running. At most max_parallel steps run at once, and no
    more than fit into capacity() together; one that is larger than all of it runs alone. Of those that could start the
    one with the least urgency(step) does.
    on_event hears, in this thread, of every step that starts ("running") and of every outcome.
    """
    ordered = with_inputs(steps)
    with driving(root) as driver:
        events = Events(root, driver.name)
        try:
            schedule = _Schedule(
                root, ordered, driver, events, max_parallel or len(ordered), capacity, urgency, on_event
            )
            schedule.run()
        finally:
            events.close()
    return [replace(schedule.outcomes[step.digest], step=step) for step in ordered]


@dataclass
class Ready:
    """Steps whose inputs are there, by urgency, and apart by what they hold: with thousands of them only the first of
    each kind is looked at.
    """

    heaps: dict[Holds, list[tuple[tuple, int, Step]]] = field(default_factory=dict)
    pushed: int = 0

    def push(self, step: Step, holds: Holds, urgency: tuple) -> None:
        self.pushed += 1
        heapq.heappush(self.heaps.setdefault(holds, []), (urgency, self.pushed, step))

    def pop(self, free: Holds, alone: bool) -> tuple[Step, Holds, tuple] | None:
        """The most urgent step that fits into what is free. One that does not keeps its share from those behind it:
        they would take it again and again. alone: nothing runs, so the first is taken whatever it holds.
        """
        for holds, heap in sorted(self.heaps.items(), key=lambda item: item[1][0][:2]):
            if alone or holds.fits(free):
                urgency, _, step = heapq.heappop(heap)
                if not heap:
                    del self.heaps[holds]
                return step, holds, urgency
            free = free - holds
        return None


@dataclass
class _Schedule:
    root: str
    ordered: Sequence[Step]
    driver: Driver
    events: Events
    max_parallel: int
    capacity: Callable[[], Holds]
    urgency: Callable[[Step], tuple]
    on_event: Callable[[Outcome], None]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ready: Ready = field(default_factory=Ready)
    running: dict[str, Holds] = field(default_factory=dict)
    elsewhere: dict[str, Step] = field(default_factory=dict)
    missing: dict[str, set[str]] = field(default_factory=dict)
    needed_by: dict[str, list[Step]] = field(default_factory=dict)
    before: dict[str, Outcome] = field(default_factory=dict)
    heard: queue.SimpleQueue[Outcome] = field(default_factory=queue.SimpleQueue)

    def run(self) -> None:
        self.before = states_by_digest(self.root, self.ordered)
        to_do = {digest: one.step for digest, one in self.before.items() if one.state != "done"}
        self.events.write("run began", steps=len(self.before), to_do=len(to_do))
        for digest, outcome in self.before.items():
            if digest not in to_do:
                self.outcomes[digest] = outcome
                self.on_event(outcome)
        for digest, step in to_do.items():
            self.missing[digest] = {given.digest for given in step.inputs.values()} & to_do.keys()
            for given in self.missing[digest]:
                self.needed_by.setdefault(given, []).append(step)
            if not self.missing[digest]:
                self._is_ready(step)
        while self.ready.heaps or self.running or self.elsewhere:
            self._admit()
            self._listen()
        states = Counter(outcome.state for outcome in self.outcomes.values())
        self.events.write("run ended", states=dict(states))

    def _admit(self) -> None:
        free = self.capacity()
        for holds in self.running.values():
            free = free - holds
        while len(self.running) < self.max_parallel and (found := self.ready.pop(free, not self.running)):
            step, holds, _ = found
            self.running[step.digest], free = holds, free - holds
            inputs = {name: self.outcomes[given.digest].folder for name, given in step.inputs.items()}
            # A daemon, so that an interrupt of this thread ends the program and not only the waiting.
            threading.Thread(target=self._work, args=(step, inputs), daemon=True).start()

    def _listen(self) -> None:
        """Waits until something is heard of a step, or it is time to look again what others do."""
        waiting = bool(self.elsewhere or self.ready.heaps)
        try:
            outcome = self.heard.get(timeout=POLL_S if waiting else None)
        except queue.Empty:
            for step in self.elsewhere.values():
                self._is_ready(step)
            self.elsewhere.clear()
            return
        digest = outcome.step.digest
        if outcome.state == "running":
            self.on_event(outcome)
            return
        del self.running[digest]
        if outcome.state == "to do":
            self.elsewhere[digest] = outcome.step
        else:
            for one in self._ended(outcome):
                self.outcomes[one.step.digest] = one
                self.on_event(one)

    def _ended(self, outcome: Outcome) -> Iterator[Outcome]:
        """The outcome, and those of the steps that are skipped because of it; what it makes ready is queued."""
        ended = [outcome]
        while ended:
            one = ended.pop()
            yield one
            for step in self.needed_by.pop(one.step.digest, []):
                missing = self.missing.get(step.digest)
                if missing is None:
                    continue  # skipped already
                if one.state in ("failed", "skipped"):
                    del self.missing[step.digest]
                    self.events.write("skipped", **_named(step))
                    ended.append(Outcome(step, "skipped", step.folder(self.root)))
                    continue
                missing.discard(one.step.digest)
                if not missing:
                    self._is_ready(step)

    def _is_ready(self, step: Step) -> None:
        self.ready.push(step, step.holds(), self.urgency(step))

    def _work(self, step: Step, inputs: dict[str, str]) -> None:
        """In a thread of its own: the step, if no other driver has it. Heard as "to do" where one has."""
        try:
            lease = self.driver.take(step.name)
            if lease is None:
                self.heard.put(Outcome(step, "to do", ""))
                return
            try:
                outcome = self._done_by_another(step) or self._run(step, inputs, lease)
            finally:
                self.driver.release(lease)
        except BaseException as error:  # unheard of, the driver would wait for ever
            outcome = Outcome(step, "failed", step.folder(self.root), error=error)
        self.heard.put(outcome)

    def _done_by_another(self, step: Step) -> Outcome | None:
        """What became of the step since this run began; a driver that failed with it has tried for all."""
        now, before = state_on_disk(self.root, step), self.before[step.digest]
        failed = now.state == "failed" and (now.began != before.began or before.state == "running")
        return now if now.state == "done" or failed else None

    def _run(self, step: Step, inputs: dict[str, str], lease: str) -> Outcome:
        self.heard.put(Outcome(step, "running", step.folder(self.root)))
        self.events.write("started", **_named(step))
        outcome = attempt(self.root, step, inputs, lambda: self.driver.holds(lease))
        error = {"error": f"{type(outcome.error).__name__}: {outcome.error}"} if outcome.error else {}
        self.events.write(outcome.state, **_named(step), seconds=outcome.seconds, **error)
        return outcome


def _named(step: Step) -> dict:
    return {"forget_set": step.forget_set, "stage": step.stage, "digest": step.digest}
