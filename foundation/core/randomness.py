"""Every random number: a function of (seed, purpose, counters), never of what was drawn before.

Resuming therefore needs no generator state, and a new purpose does not move the numbers of another.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Philox makes four 64-bit numbers for each value of its counter; advance() moves the counter.
_DRAWS_PER_COUNT = 4


def _entropy(seed: int, purpose: str, counters: tuple[int, ...]) -> list[int]:
    # crc32, not hash(): hash() of a string differs from process to process.
    # SeedSequence takes trailing zeros for nothing, and numbers above 2^32 in pieces: lengths keep all of them apart.
    words = [value >> shift & 0xFFFFFFFF for value in (seed, *counters) for shift in (0, 32)]
    return [zlib.crc32(purpose.encode()), len(counters), *words, 1]


def rng(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A generator that depends on nothing but its arguments."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_entropy(seed, purpose, counters))))


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for torch.manual_seed."""
    state = np.random.SeedSequence(_entropy(seed, purpose, counters)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


@dataclass(frozen=True, slots=True)
class RowRng:
    """Random numbers addressed by row: a rank draws those of its own rows and gets what one process would have drawn.

    Source: counter-based generators, Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3").
    """

    seed: int
    purpose: str
    step: int

    def uniform(self, first_row: int, n_rows: int, draws_per_row: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1), shape (n_rows, draws_per_row), for rows first_row … first_row + n_rows - 1."""
        counts_per_row = -(-draws_per_row // _DRAWS_PER_COUNT)
        bits = np.random.Philox(np.random.SeedSequence(_entropy(self.seed, self.purpose, (self.step, draws_per_row))))
        bits.advance(first_row * counts_per_row)
        draws = np.random.Generator(bits).random((n_rows, counts_per_row * _DRAWS_PER_COUNT))
        return draws[:, :draws_per_row]


_FEISTEL_ROUNDS = 6
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014): 64 bits in, 64 well-mixed bits out; wraps on purpose."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def permute(index: NDArray[np.int64], n: int, seed: int, purpose: str, *counters: int) -> NDArray[np.int64]:
    """Where a random permutation of range(n) sends each of `index`, in constant memory whatever n is.

    A Feistel network is a bijection on 2^(2k) >= n values; walking the cycle until the value falls below n makes it one on
    range(n) (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    if n <= 1:
        return np.zeros_like(index)
    half_bits = np.uint64((max(2, int(n - 1).bit_length()) + 1) // 2)
    low = np.uint64((1 << int(half_bits)) - 1)
    keys = np.random.SeedSequence(_entropy(seed, purpose, counters)).generate_state(_FEISTEL_ROUNDS, np.uint64)

    def encrypt(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> half_bits, values & low
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & low)
        return (left << half_bits) | right

    values = encrypt(index.astype(np.uint64))
    while (outside := values >= np.uint64(n)).any():
        values[outside] = encrypt(values[outside])
    return values.astype(np.int64)
