"""What passes between a driver and a group of workers that serves it one job after another. An actor imports this
module, so it imports nothing heavy.
"""

import asyncio
from typing import Any

NOTHING_MORE = b""


class Jobs:
    """One job at a time, for all of `workers` workers, as an async actor.

    Jobs are bytes, so that this process need not import what is in them. A worker that started in the place of another
    gets the job that is under way.
    """

    def __init__(self, workers: int):
        self.workers, self.number, self.job = workers, 0, NOTHING_MORE
        self.results: dict[int, Any] = {}
        self.changed = asyncio.Condition()

    async def run(self, job: bytes) -> Any:
        """Hands the job to every worker; returns the result of worker 0, when all of them have finished."""
        async with self.changed:
            self.number, self.job, self.results = self.number + 1, job, {}
            self.changed.notify_all()
            await self.changed.wait_for(lambda: len(self.results) == self.workers)
            return self.results[0]

    async def end(self) -> None:
        """Sends the workers home, as soon as they ask for the next job."""
        async with self.changed:
            self.number, self.job = self.number + 1, NOTHING_MORE
            self.changed.notify_all()

    async def take(self, after: int) -> tuple[int, bytes]:
        """The job that follows number `after`, with its own number, as soon as there is one."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.number > after)
            return self.number, self.job

    async def finish(self, worker: int, result: Any) -> None:
        async with self.changed:
            self.results[worker] = result
            self.changed.notify_all()
