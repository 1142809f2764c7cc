"""Several cells at a time, each in a process of its own: small models leave several threads idle that several processes use."""

import multiprocessing
import signal
from collections import deque
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import TracebackType

import torch

from foundation.core.device import StopRequest, device_of
from foundation.core.errors import UserError
from foundation.core.memory import keep_freed_memory
from foundation.task.cell import Arm, run_cell, stopped

# A stop that was asked for is seen after so long.
_LOOK_SECONDS = 0.5
# A worker that was told to end is given a step's time, and the time to say so.
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """A cell that is not there yet. run_id: of the arm's run, which the process that hands out the work holds."""

    arm: Arm
    seed: int
    run_id: str

    @property
    def name(self) -> str:
        """As its lines begin."""
        return f"{self.arm.cfg.task.name}/{self.arm.start.name}/seed-{self.seed}"

    @property
    def size(self) -> int:
        """Tokens that it trains on, which is about how long it takes."""
        return int(self.arm.train.tokens.lengths().sum()) * self.arm.cfg.epochs

    def do(self) -> None:
        """Train, answer, save."""
        run_cell(self.arm, self.seed, self.arm.start.folder / f"seed-{self.seed}", self.run_id)


def work_off(works: list[Work], jobs: int, threads: int) -> None:
    """Do all of it, the largest first, `jobs` at a time.

    Args:
        threads: of each process; 0: torch's choice divided among them.

    Raises:
        UserError: a cell failed or a stop was asked for. Cells at work then end after their step, and those that are done stay.
    """
    if len(works) < 2:
        for work in works:
            work.do()
        return
    jobs = min(jobs, len(works))
    waiting = deque(sorted(works, key=lambda work: work.size, reverse=True))
    with StopRequest() as stop, ExitStack() as stack:
        each = threads or max(1, torch.get_num_threads() // jobs)
        idle = [stack.enter_context(_Worker(number, each)) for number in range(jobs)]
        busy: dict[Connection, _Worker] = {}
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                worker.begin(waiting.popleft())
                busy[worker.pipe] = worker
            for pipe in wait(list(busy), timeout=_LOOK_SECONDS):
                assert isinstance(pipe, Connection)
                worker = busy.pop(pipe)
                worker.end()
                idle.append(worker)
            if stop.is_set():
                raise stopped(", ".join(worker.at for worker in busy.values()) or "between two seeds")


class _Worker(AbstractContextManager["_Worker"]):
    """A process that does one piece of work after another. at: the name of the one it is at."""

    def __init__(self, number: int, threads: int) -> None:
        # spawn: a fork would inherit torch's threads and locks in an unknown state.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.at = ""
        self._number = number
        self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, work: Work) -> None:
        """Hand it over."""
        self.at = work.name
        cfg = work.arm.cfg
        # The bars of several processes would overwrite one another.
        quiet = replace(cfg, logger=replace(cfg.logger, bar=False))
        device = device_of(work.arm.device, self._number, torch.cuda.device_count())
        self.pipe.send(replace(work, arm=replace(work.arm, cfg=quiet, device=device)))

    def end(self) -> None:
        """Take what it says at the end. Raises UserError where the work failed."""
        try:
            problem = str(self.pipe.recv())
        except (EOFError, ConnectionResetError):
            self._process.join()
            problem = (
                f"the process at {self.at} ended with status {self._process.exitcode}: see what it printed above; "
                "where it printed nothing, memory ran out, and fewer jobs= need less"
            )
        self.at = ""
        if problem:
            raise UserError(problem)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end; at once, if there was an error."""
        if kind is not None:
            self._process.terminate()
        self.pipe.close()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Connection, threads: int) -> None:
    """A worker's process: work until nobody asks for more."""
    # Ctrl-C reaches every process of a terminal: the one that hands out the work tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    torch.set_num_threads(threads)
    with suppress(EOFError, BrokenPipeError):
        while True:
            work: Work = pipe.recv()
            if work.arm.device.type == "cuda":
                torch.cuda.set_device(work.arm.device)  # what is counted, as memory, is the current device's
            try:
                work.do()
            except UserError as error:
                pipe.send(str(error))
            else:
                pipe.send("")
