"""Who is compared with whom: models of one kind, and the tuples of them that tell sharing apart.

A *shared* tuple has one foundation, a *control* tuple a different one for each model. Both are made of the same models, so
the two arms have the same size and the same accuracy by construction.

Letters: M models · P foundations · T tuples of k models
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.randomness import rng
from foundation.science.inference import Sample

Ints: TypeAlias = NDArray[np.int64]

# Beyond so many tuples of three or more a random draw of them says the same.
MOST_TUPLES = 2_000
_MOST_LISTED = 100_000


@dataclass(frozen=True)
class Design:
    """foundation_M: 0 … P − 1. seed_M: any numbers; equal ones mean the same order of data, head, and part of the data."""

    foundation_M: Ints
    seed_M: Ints

    @property
    def n_models(self) -> int:
        """M."""
        return len(self.foundation_M)

    @property
    def n_foundations(self) -> int:
        """P."""
        return int(self.foundation_M.max()) + 1

    @property
    def n_seeds(self) -> int:
        """The most of one foundation."""
        return int(np.bincount(self.foundation_M).max())

    @cached_property
    def keeps_seeds_apart(self) -> bool:
        """Whether control tuples never repeat a seed, as shared ones cannot: where a foundation has two, and pairs are left.

        Models of one seed share the order of their data; counted as control they would hide what a foundation adds.
        """
        first, second = np.triu_indices(self.n_models, 1)
        differ = (self.foundation_M[first] != self.foundation_M[second]) & (self.seed_M[first] != self.seed_M[second])
        return self.n_seeds > 1 and bool(differ.any())

    def sample(self, n_items: int) -> Sample:
        """What a figure of this design stands on."""
        return Sample(self.n_foundations, self.n_seeds, n_items)

    def shared(self, size: int) -> Ints:
        """(T, k): sets of models of one foundation. All pairs; of larger ones at most MOST_TUPLES, drawn at random."""
        groups = [np.flatnonzero(self.foundation_M == p) for p in range(self.n_foundations)]
        n_sets = np.array([comb(len(group), size) for group in groups], dtype=np.float64)
        if size == 2 or n_sets.sum() <= _MOST_LISTED:
            listed = _table([chosen for group in groups for chosen in combinations(group.tolist(), size)], size)
            return listed if size == 2 else at_most(MOST_TUPLES, listed)
        draws = rng(0, "tuples", size)
        drawn = draws.choice(len(groups), size=MOST_TUPLES, p=n_sets / n_sets.sum())
        return _table(sorted({tuple(np.sort(draws.choice(groups[p], size, replace=False))) for p in drawn}), size)

    def control(self, size: int) -> Ints:
        """(T, k): sets of models of different foundations, and of different seeds where seeds are kept apart.

        All pairs; of larger ones at most MOST_TUPLES, drawn at random.
        """
        if size == 2:
            first, second = np.triu_indices(self.n_models, 1)
            pairs = np.stack([first, second], axis=1)
            return pairs[self._is_control(pairs)]
        if comb(self.n_models, size) <= _MOST_LISTED:
            listed = _table(list(combinations(range(self.n_models), size)), size)
            return at_most(MOST_TUPLES, listed[self._is_control(listed)])
        return at_most(MOST_TUPLES, self._drawn(size))

    def _drawn(self, size: int) -> Ints:
        draws = rng(0, "tuples", size)
        found: set[tuple[int, ...]] = set()
        for _ in range(50):
            drawn = np.sort(draws.integers(self.n_models, size=(MOST_TUPLES, size)), axis=1)
            found |= {tuple(row) for row in drawn[self._is_control(drawn)].tolist()}
            if len(found) >= MOST_TUPLES:
                break
        return _table(sorted(found), size)

    def _is_control(self, tuples_Tk: Ints) -> NDArray[np.bool_]:
        """(T,): foundations all different; seeds too where they are kept apart."""
        kinds = [self.foundation_M[tuples_Tk]] + ([self.seed_M[tuples_Tk]] if self.keeps_seeds_apart else [])
        ok = np.ones(len(tuples_Tk), dtype=bool)
        for kind in kinds:
            ok &= (np.diff(np.sort(kind, axis=1), axis=1) > 0).all(axis=1)
        return ok


def at_most(n_tuples: int, tuples_Tk: Ints) -> Ints:
    """A random draw of so many tuples, in order. The first ones would be those of the first foundations."""
    chosen = rng(0, "tuples", tuples_Tk.shape[1]).permutation(len(tuples_Tk))[:n_tuples]
    return tuples_Tk[np.sort(chosen)]


def _table(tuples: list[tuple[int, ...]], size: int) -> Ints:
    return np.array(tuples, dtype=np.int64).reshape(-1, size)
