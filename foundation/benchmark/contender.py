"""Contenders take turns, each in a process of its own, so that no one's memory, threads or compiled kernels touch another's."""

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

from foundation.core.errors import UserError
from foundation.core.memory import peak_memory_bytes


@dataclass(frozen=True, slots=True)
class Done:
    """A piece of work. amount: tokens, words, operations or runs. seconds: where the work times itself. peak_bytes: where it
    is done by a process of its own.
    """

    amount: float
    seconds: float | None = None
    peak_bytes: int | None = None


Work: TypeAlias = Callable[[], Done]


@dataclass(frozen=True, slots=True)
class Turn:
    """One contender's turn in one round. peak_bytes: of its process (on a GPU, of its tensors) since it began."""

    amount: float
    seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Amount a second."""
        return self.amount / self.seconds


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contenders of a bench share. threads: of the CPU, 0 = torch's choice. round_seconds: of a turn, about."""

    runs_dir: str
    device: str
    threads: int
    round_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender(ABC):
    """One way of doing a case's work. Crosses to its process as plain settings, and builds what it needs there.

    is_default: what the peer does unasked. is_changed: the peer after work on its code, which is more than its best setting.
    product: whose measured matrix-product rate its own is held against, fp32 or bf16; None for work that is no products.
    """

    name: str
    is_ours: bool = False
    is_default: bool = False
    is_changed: bool = False
    product: str | None = None

    @abstractmethod
    def build(self, setup: Setup) -> Work:
        """Everything up to the first piece of work."""


@dataclass(frozen=True, slots=True)
class _Ready:
    seconds: float
    threads: int


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str
    trace: str


class Player:
    """A contender's process, seen from the bench. Closed, or its failure kept, whatever happens."""

    def __init__(self, contender: Contender, setup: Setup) -> None:
        self.contender, self.failure = contender, ""
        self.turns: list[Turn] = []
        self.warm_up_seconds, self.threads = 0.0, 0
        # spawn: a fork would inherit torch's threads and locks in an unknown state.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_play, args=(theirs, contender, setup), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Until its first piece of work, in which it compiles and fills caches, is done."""
        ready = self._receive()
        if isinstance(ready, _Ready):
            self.warm_up_seconds, self.threads = ready.seconds, ready.threads

    def take_turn(self) -> None:
        """Have it work for about the setup's seconds."""
        if not self.failure:
            with contextlib.suppress(OSError):  # a process that has ended since: what is received says so
                self._pipe.send(True)
            turn = self._receive()
            if isinstance(turn, Turn):
                self.turns.append(turn)

    def close(self) -> None:
        """Let the process end; one that does not is ended."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._pipe.send(False)
            self._process.join(timeout=20)
            if self._process.is_alive():
                self._process.kill()

    def _receive(self) -> object:
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            why = ": memory ran out" if self._process.exitcode == -signal.SIGKILL else ""
            message = _Failed(f"its process ended with status {self._process.exitcode}{why}", "")
        if isinstance(message, _Failed):
            self.failure = message.reason
            if self.contender.is_ours:
                raise UserError(f"{self.contender.name}: {message.reason}\n{message.trace}".strip())
        return message


def _play(pipe: Connection, contender: Contender, setup: Setup) -> None:
    """The contender's process: build, warm up, then a turn for every True."""
    try:
        start = time.perf_counter()
        if setup.threads:
            import torch

            torch.set_num_threads(setup.threads)
        work = contender.build(setup)
        work()  # compiles, fills caches
        pipe.send(_Ready(time.perf_counter() - start, _threads()))
        pieces = 0
        while pipe.recv():
            if not pieces:  # in its first turn: it has the machine for itself
                # By the clock, whatever a piece times of itself: a turn lasts as long as all of its pieces.
                start = time.perf_counter()
                _timed(work, 1, setup.device)
                pieces = max(1, round(setup.round_seconds / (time.perf_counter() - start)))
            pipe.send(_timed(work, pieces, setup.device))
    except UserError as error:
        pipe.send(_Failed(str(error), ""))
    except Exception as error:  # a peer that cannot run here is a result, and is reported as one
        first_line = (str(error).splitlines() or [""])[0]
        pipe.send(_Failed(f"{type(error).__name__}: {first_line}", traceback.format_exc()))


def _threads() -> int:
    """Of the CPU, that torch uses; 0 where the work does without torch."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else 0


def _timed(work: Work, pieces: int, device: str) -> Turn:
    _synchronize(device)
    start = time.perf_counter()
    done = [work() for _ in range(pieces)]
    _synchronize(device)
    seconds = time.perf_counter() - start
    own = [piece.seconds for piece in done if piece.seconds is not None]
    peaks = [piece.peak_bytes for piece in done if piece.peak_bytes is not None]
    peak_bytes = max(peaks) if peaks else peak_memory_bytes(device)
    return Turn(sum(piece.amount for piece in done), sum(own) if own else seconds, peak_bytes)


def _synchronize(device: str) -> None:
    """A GPU works on after the call that asked it has returned."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
