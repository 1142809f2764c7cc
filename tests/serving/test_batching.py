"""Requests at the same time go together, and no one's fault or absence is another's."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from foundation.serving.batching import Batcher, Busy


def run(scenario: Callable, work: Callable, **settings: object) -> list[list[int]]:
    """scenario(batcher) beside the batcher; returns the batches that work saw."""
    seen: list[list[int]] = []

    def watched(jobs: Sequence[int]) -> Sequence[int]:
        seen.append(list(jobs))
        return work(jobs)

    async def both() -> None:
        batcher = Batcher(watched, **{"max_rows": 4, "wait_s": 0.01, "max_waiting": 100} | settings)
        running = asyncio.create_task(batcher.run())
        await scenario(batcher)
        batcher.close()
        await asyncio.wait_for(running, 5)

    asyncio.run(both())
    return seen


def doubled(jobs: Sequence[int]) -> list[int]:
    return [2 * job for job in jobs]


def test_jobs_that_come_together_are_worked_on_together_in_batches_that_are_not_too_large() -> None:
    async def scenario(batcher: Batcher) -> None:
        assert await asyncio.gather(*(batcher.ask(job, n_rows=1) for job in range(10))) == [2 * n for n in range(10)]

    assert run(scenario, doubled) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_is_counted_in_rows_and_a_large_job_goes_alone() -> None:
    async def scenario(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.ask(job, n_rows=rows) for job, rows in enumerate([2, 3, 9, 1, 1])))

    assert run(scenario, doubled) == [[0], [1], [2], [3, 4]]


def test_what_comes_while_the_model_works_is_the_next_batch() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(jobs: Sequence[int]) -> list[int]:
        begun.set()
        assert go_on.wait(5)
        return doubled(jobs)

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.ask(0, n_rows=1))
        await asyncio.to_thread(begun.wait, 5)
        others = [asyncio.create_task(batcher.ask(job, n_rows=1)) for job in (1, 2)]
        await asyncio.sleep(0.05)
        go_on.set()
        await asyncio.gather(first, *others)

    assert run(scenario, slow) == [[0], [1, 2]]


def test_a_job_that_fails_fails_alone() -> None:
    def divide(jobs: Sequence[int]) -> list[int]:
        return [12 // job for job in jobs]

    async def scenario(batcher: Batcher) -> None:
        found = await asyncio.gather(*(batcher.ask(job, n_rows=1) for job in (3, 0, 4)), return_exceptions=True)
        assert found[0] == 4
        assert isinstance(found[1], ZeroDivisionError)
        assert found[2] == 3
        assert await batcher.ask(6, n_rows=1) == 2

    run(scenario, divide)


def test_a_job_whose_asker_has_gone_is_not_worked_on() -> None:
    async def scenario(batcher: Batcher) -> None:
        gone = asyncio.create_task(batcher.ask(1, n_rows=1))
        await asyncio.sleep(0)
        gone.cancel()
        assert await batcher.ask(2, n_rows=1) == 4

    assert run(scenario, doubled) == [[2]]


def test_beyond_what_may_wait_a_job_is_refused() -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.ask(job, n_rows=2)) for job in range(3)]
        await asyncio.sleep(0)
        assert batcher.waiting_rows == 6
        with pytest.raises(Busy):
            await batcher.ask(9, n_rows=1)
        await asyncio.gather(*waiting)
        assert await batcher.ask(9, n_rows=1) == 18

    run(scenario, doubled, max_waiting=6)


def test_closing_answers_what_waits_and_refuses_what_comes() -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.ask(job, n_rows=1)) for job in range(6)]
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(Busy):
            await batcher.ask(9, n_rows=1)
        assert await asyncio.gather(*waiting) == [0, 2, 4, 6, 8, 10]

    run(scenario, doubled)


def test_an_idle_batcher_waits_no_longer_than_it_is_told() -> None:
    async def scenario(batcher: Batcher) -> None:
        started = time.perf_counter()
        await batcher.ask(1, n_rows=1)
        assert time.perf_counter() - started < 1.0

    run(scenario, doubled, wait_s=0.001)
