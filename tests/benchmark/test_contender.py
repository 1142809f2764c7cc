"""Turns in processes of their own: what crosses, and what happens when one cannot run."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, replace

import pytest

from foundation.benchmark.contender import Contender, Done, Player, Setup, Work, _play
from foundation.core.errors import UserError

SETUP = Setup(runs_dir="runs", device="cpu", threads=0, round_seconds=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleeper(Contender):
    """Sleeps; says its process when it does not."""

    seconds: float = 0.01

    def build(self, setup: Setup) -> Work:
        def work() -> Done:
            time.sleep(self.seconds)
            return Done(10)

        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing(Contender):
    """Cannot be built, or ends its process."""

    dies: bool = False

    def build(self, setup: Setup) -> Work:
        if self.dies:
            os._exit(3)
        raise RuntimeError("no compiler here\nand more")


def test_a_turn_is_as_many_pieces_as_fill_the_time() -> None:
    player = Player(Sleeper(name="a"), SETUP)
    try:
        player.wait_until_ready()
        player.take_turn()
        player.take_turn()
    finally:
        player.close()
    assert len(player.turns) == 2
    for turn in player.turns:
        assert turn.amount % 10 == 0 and 10 <= turn.amount <= 50
        assert turn.seconds >= turn.amount / 10 * 0.01
        assert turn.peak_bytes > 1_000_000
    assert not player.failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Partly(Contender):
    """Times a part of what it does, and is told of another process's memory."""

    def build(self, setup: Setup) -> Work:
        def work() -> Done:
            time.sleep(0.02)
            return Done(10, 0.001, peak_bytes=7)

        return work


def test_a_turn_lasts_as_long_as_its_pieces_not_as_what_is_timed_of_them() -> None:
    bench, contender = multiprocessing.Pipe()
    bench.send(True)
    bench.send(False)
    _play(contender, Partly(name="a"), SETUP)
    bench.recv()
    turn = bench.recv()
    assert turn.amount == pytest.approx(20, abs=10) and turn.peak_bytes == 7
    assert turn.rate == pytest.approx(10 / 0.001)


def test_a_contender_has_the_threads_that_are_asked_for() -> None:
    """In this process: one of its own would import torch, which takes seconds."""
    import torch  # not above: contenders' processes import this file, and have no threads of torch's

    before = torch.get_num_threads()
    bench, contender = multiprocessing.Pipe()
    bench.send(False)
    try:
        _play(contender, Sleeper(name="a"), replace(SETUP, threads=before + 2))
        assert bench.recv().threads == torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)


def test_a_peer_that_cannot_run_is_kept_as_a_result() -> None:
    for dies, words in ((False, "RuntimeError: no compiler here"), (True, "its process ended with status 3")):
        player = Player(Failing(name="b", dies=dies), SETUP)
        player.wait_until_ready()
        player.take_turn()
        player.close()
        assert (player.failure, player.turns) == (words, [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Contender):
    """Is ended between its warm-up and its turn, as the kernel does where memory runs out."""

    def build(self, setup: Setup) -> Work:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return lambda: Done(10, 0.01)


def test_a_peer_that_is_killed_while_others_have_their_turns_is_kept_as_a_result() -> None:
    player = Player(Killed(name="b"), SETUP)
    player.wait_until_ready()
    assert not player.failure and player.threads == 0
    time.sleep(0.6)
    for _ in range(2):
        player.take_turn()
    player.close()
    assert player.failure == "its process ended with status -9: memory ran out" and player.turns == []


def test_ours_that_cannot_run_ends_the_bench() -> None:
    with pytest.raises(UserError, match="ours: RuntimeError: no compiler here"):
        Player(Failing(name="ours", is_ours=True), SETUP).wait_until_ready()
