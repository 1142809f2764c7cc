"""Requests that come at the same time are computed together: one thread computes, and what comes meanwhile waits as a batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")


class Busy(Exception):
    """So many rows wait already that another request could not be answered soon."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[J, R]):
    job: J
    n_rows: int
    answer: "asyncio.Future[R]"


class Batcher(Generic[J, R]):
    """work: answers to some jobs, in their order; it runs in a thread of its own, one call at a time.

    A batch holds up to max_rows rows (a larger job is alone). An idle batcher waits wait_s for company before it starts; a
    busy one need not. Beyond max_waiting rows a job is refused.
    """

    def __init__(
        self, work: Callable[[Sequence[J]], Sequence[R]], *, max_rows: int, wait_s: float, max_waiting: int
    ) -> None:
        self._work, self._max_rows, self._wait_s, self._max_waiting = work, max_rows, wait_s, max_waiting
        self._queue: list[_Waiting[J, R]] = []
        self._has_come = asyncio.Event()
        self._is_closing = False
        self.n_batches = self.n_jobs = 0

    @property
    def waiting_rows(self) -> int:
        """Rows that no batch has taken yet."""
        return sum(waiting.n_rows for waiting in self._queue)

    async def ask(self, job: J, n_rows: int) -> R:
        """The job's answer. Raises Busy when too much waits, or what the work raised for this very job."""
        if self._is_closing or self.waiting_rows + n_rows > self._max_waiting:
            raise Busy
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(job, n_rows, answer))
        self._has_come.set()
        return await answer

    async def run(self) -> None:
        """Answer until `close` is called and nothing waits any more."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                await self._has_come.wait()
                if not self._queue:
                    return
                if self.waiting_rows < self._max_rows and not self._is_closing:
                    await asyncio.sleep(self._wait_s)
                batch = self._take()
                if not batch:
                    continue
                found = await loop.run_in_executor(thread, self._answers, [waiting.job for waiting in batch])
                self.n_batches, self.n_jobs = self.n_batches + 1, self.n_jobs + len(batch)
                for waiting, answer in zip(batch, found, strict=True):
                    if waiting.answer.cancelled():
                        continue
                    if isinstance(answer, Exception):
                        waiting.answer.set_exception(answer)
                    else:
                        waiting.answer.set_result(answer)

    def close(self) -> None:
        """Refuse new jobs; those that wait are still answered."""
        self._is_closing = True
        self._has_come.set()

    def _take(self) -> list[_Waiting[J, R]]:
        """The first jobs, as many as fit; those whose asker has gone are dropped."""
        self._queue = [waiting for waiting in self._queue if not waiting.answer.cancelled()]
        taken, rows = 0, 0
        for waiting in self._queue:
            if taken and rows + waiting.n_rows > self._max_rows:
                break
            taken, rows = taken + 1, rows + waiting.n_rows
        batch, self._queue = self._queue[:taken], self._queue[taken:]
        if not self._queue and not self._is_closing:
            self._has_come.clear()
        return batch

    def _answers(self, jobs: list[J]) -> Sequence[R | Exception]:
        """Of a batch that fails each job is tried alone, so that one job's fault is not its neighbours'."""
        try:
            return self._work(jobs)
        except Exception as error:  # whatever it is, it belongs to a request, and the others go on
            if len(jobs) == 1:
                return [error]
            return [answer for job in jobs for answer in self._answers([job])]
