"""Minimal pairs: two sentences that differ in one point, of which one is acceptable; and who finds the right one likelier.

Letters: P pairs of a paradigm · B resamples
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.randomness import rng
from foundation.evaluation.config import MinimalPairsConfig
from foundation.task.readers import read_rows
from foundation.task.row import Row

Floats = NDArray[np.float64]

# Nats. Sums of the same numbers in another order differ by rounding, and are no preference.
_TIE = 1e-6
RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Paradigm:
    """Pairs of one kind. items: where each was read, "file:line". n_identical: pairs left out, since both sides are the same."""

    name: str
    items: list[str]
    good: list[str]
    bad: list[str]
    n_identical: int

    def __len__(self) -> int:
        return len(self.items)


def read_paradigms(files: Iterable[Path], cfg: MinimalPairsConfig) -> list[Paradigm]:
    """All pairs, by paradigm in order of appearance; of each the first max_pairs that are not identical."""
    found: dict[str, Paradigm] = {}
    dropped: dict[str, int] = {}
    for path in files:
        for row in read_rows(str(path)):
            name = row.fields.get(cfg.paradigm) or path.name.split(".")[0]
            paradigm = found.setdefault(name, Paradigm(name, [], [], [], 0))
            good, bad = (_sentence(row, column) for column in (cfg.good, cfg.bad))
            if good == bad:
                dropped[name] = dropped.get(name, 0) + 1
            elif cfg.max_pairs is None or len(paradigm) < cfg.max_pairs:
                paradigm.items.append(f"{path.name}:{row.place.rpartition(':')[2]}")
                paradigm.good.append(good)
                paradigm.bad.append(bad)
    if empty := [name for name, paradigm in found.items() if not len(paradigm)] or (["evaluation.files"] * (not found)):
        raise UserError(f"there is no pair of different sentences in {', '.join(empty)}: give it some, or leave it out")
    return [Paradigm(p.name, p.items, p.good, p.bad, dropped.get(p.name, 0)) for p in found.values()]


def _sentence(row: Row, column: str) -> str:
    text = row.get(column).strip()
    if not text:
        raise UserError(f"{row.place}: {column} is empty: mend the line or take it out")
    return text


def points(good: Floats, bad: Floats) -> Floats:
    """(P,): 1 where the good sentence has the higher score, 0 where the bad one has, ½ where they tie."""
    difference = good - bad
    return np.where(np.abs(difference) <= _TIE, 0.5, (difference > 0).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over pairs, averaged over paradigms, and the middle 95 % of its bootstrap resamples."""

    value: float
    low: float
    high: float


def estimate(values_by_paradigm: Sequence[Floats], purpose: str) -> Estimate:
    """Mean of the paradigms' means, every paradigm weighing the same; pairs are resampled within each paradigm.

    The interval says how sure the mean is for pairs like these in these paradigms, not for other paradigms or other trainings.
    A resample of n pairs is a multinomial count of their distinct values, of which points have three and differences five.
    """
    resampled_B, means = np.zeros(RESAMPLES), []
    for number, values in enumerate(values_by_paradigm):
        kinds, counts = np.unique(values, return_counts=True)
        draws = rng(_SEED, purpose, number).multinomial(len(values), counts / len(values), size=RESAMPLES)
        resampled_B += draws @ kinds / len(values)
        means.append(values.mean())
    low, high = np.quantile(resampled_B / len(means), [0.025, 0.975])
    return Estimate(float(np.mean(means)), float(low), float(high))
