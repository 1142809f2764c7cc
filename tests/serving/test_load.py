"""What the load test calls flat, and what it does not."""

import subprocess
import sys

import numpy as np
import pytest

from tests.serving.load import Steadiness, resident_mb

SECONDS = list(range(30))


def test_slope_and_thirds_are_those_of_a_line() -> None:
    found = Steadiness.of(SECONDS, [300 + 0.5 * second for second in SECONDS])
    assert found.slope == pytest.approx(30)
    assert found.last_third == pytest.approx(5)
    assert not found.is_flat
    assert "memory GROWS: 307 MB, +30.00 MB a minute over 29 s, last third +5.00 MB over the middle one" in str(found)


@pytest.mark.parametrize(
    ("mb", "is_flat"),
    [
        ([300.0] * 30, True),
        ([300 + noise for noise in np.random.default_rng(0).uniform(-2, 2, 30)], True),
        ([400 - second for second in SECONDS], True),
        ([300.0 + second for second in range(10)] + [310.0] * 20, True),
        ([300.0] * 20 + [300 + 2 * second for second in range(10)], False),
        ([300 + 0.2 * second for second in SECONDS], False),
    ],
    ids=["constant", "noise", "falling", "settles", "grows late", "grows slowly"],
)
def test_flat_is_what_does_not_rise(mb: list[float], is_flat: bool) -> None:
    assert Steadiness.of(SECONDS, mb).is_flat is is_flat


# A process of its own: in this one, the allocator keeps what other tests have freed. Each line asks for the next move.
TAKER = """
import mmap
block = mmap.mmap(-1, 40 << 20)
print(flush=True), input()
for at in range(0, len(block), mmap.PAGESIZE):
    block[at] = 1
print(flush=True), input()
"""


def test_memory_that_is_taken_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as taker:
        assert taker.stdin is not None
        assert taker.stdout is not None
        seen = []
        for _ in range(2):
            taker.stdout.readline()
            seen.append(resident_mb(taker.pid))
            taker.stdin.write("\n")
            taker.stdin.flush()
    assert seen[1] - seen[0] == pytest.approx(40, abs=5)
