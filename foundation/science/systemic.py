"""Items on which everyone fails: shared against control models, each figure beside its three nulls.

Letters: N items · M models · P foundations · G blocks of items · T tuples of k models
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.science.answers import Answers
from foundation.science.design import at_most
from foundation.science.failures import failure_profile, poisson_binomial, tuple_failures
from foundation.science.inference import Estimate, block_sums, estimate, left_out, tuple_weights
from foundation.science.rasch import Difficulty, fit_difficulty

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

# Folds over foundations, and the most control models that show difficulty to each: 2^8 patterns of failure at most.
_FOLDS = 5
_PANEL_MODELS = 8
_MOST_PANELS = 3
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class SystemicFailure:
    """SF_k of shared tuples and of all three nulls, which are never told apart.

    control: the empirical null, other foundations. independence: product of error rates. difficulty: item difficulty as the
    control arm has it, None where it cannot be fitted or k is above the models that show it. effect: shared − control.
    error_rates: of the models in either arm.
    """

    size: int
    shared: Estimate | None
    control: Estimate | None
    effect: Estimate | None
    independence: float
    difficulty: float | None
    error_rates: tuple[float, float]
    n_tuples: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """(k + 1,) each: share of items that t of k models fail; None where it cannot be had."""

    size: int
    shared: Floats | None
    control: Floats | None
    independence: Floats
    difficulty: Floats | None


class Nulls:
    """The control arm's difficulty, fitted for each foundation on models of the others, one a foundation: cross-fitted."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.error_rates_M = answers.failed_MN.mean(axis=1)
        design = answers.design
        self.fold_P = np.arange(design.n_foundations) % min(_FOLDS, design.n_foundations)
        self._fits: dict[int, list[Difficulty]] = {}

    def difficulties(self, foundation: int) -> list[Difficulty]:
        """Of items, as panels of control models show it, none of which has this foundation; empty where it cannot be."""
        fold = int(self.fold_P[foundation])
        if fold not in self._fits:
            try:
                self._fits[fold] = [fit_difficulty(self.answers.failed_MN[panel]) for panel in self._panels(fold)]
            except UserError:
                self._fits[fold] = []
        return self._fits[fold]

    def _panels(self, fold: int) -> list[Ints]:
        """Model numbers: at most one a foundation, of one seed where all have the same."""
        design = self.answers.design
        others = at_most(_PANEL_MODELS, np.flatnonzero(self.fold_P != fold)[:, None])[:, 0]
        by_foundation = [np.flatnonzero(design.foundation_M == p) for p in others]
        n_panels = min(_MOST_PANELS, *(len(models) for models in by_foundation)) if by_foundation else 0
        return [np.array([models[n] for models in by_foundation]) for n in range(n_panels)]

    def systemic_failure(self, tuples_Tk: Ints) -> float | None:
        """Mean over tuples of what models of their error rates would show, had they only the items in common."""
        if (fits := self._fits_of(tuples_Tk)) is None:
            return None
        first_T = self.answers.design.foundation_M[tuples_Tk[:, 0]]
        values = [
            np.prod(fit.failure_curves(self.error_rates_M)[tuples_Tk[first_T == p]], axis=1) @ fit.weights_Q
            for p, own in fits.items()
            for fit in own
        ]
        return float(np.concatenate(values).mean())

    def profile(self, tuples_Tk: Ints) -> Floats | None:
        """(k + 1,): the same for the whole profile."""
        if (fits := self._fits_of(tuples_Tk)) is None:
            return None
        foundation_M = self.answers.design.foundation_M
        found = [
            fit.profile(self.error_rates_M[chosen])
            for chosen in tuples_Tk
            for fit in fits[int(foundation_M[chosen[0]])]
        ]
        profile: Floats = np.mean(found, axis=0)
        return profile

    def _fits_of(self, tuples_Tk: Ints) -> dict[int, list[Difficulty]] | None:
        """By the foundation of tuples' first models; None where one has none on k models or more.

        How often k models fail together is not in the failures of fewer: the fit would answer with the shape of its grid.
        """
        first_T = self.answers.design.foundation_M[tuples_Tk[:, 0]]
        fits = {int(p): self.difficulties(int(p)) for p in np.unique(first_T)}
        enough = all(own and len(own[0].ability_M) >= tuples_Tk.shape[1] for own in fits.values())
        return fits if fits and enough else None


def systemic_failures(answers: Answers, nulls: Nulls, sizes: list[int]) -> list[SystemicFailure]:
    """SF_k for every size that this design has tuples of."""
    found = []
    for size in sizes:
        shared, control = answers.design.shared(size), answers.design.control(size)
        if not len(shared) and not len(control):
            continue
        tables = [_failure_table(answers, side) if len(side) else None for side in (shared, control)]
        sample = answers.design.sample(len(answers.gold_N))
        arms = [None if table is None else estimate(table, sample) for table in tables]
        effect = None
        if tables[0] is not None and tables[1] is not None:
            effect = estimate(tables[0] - tables[1], sample)
        rates = nulls.error_rates_M
        tested = shared if len(shared) else control
        found.append(
            SystemicFailure(
                size=size,
                shared=arms[0],
                control=arms[1],
                effect=effect,
                independence=float(np.prod(rates[tested], axis=1).mean()),
                difficulty=nulls.systemic_failure(tested),
                error_rates=(_mean_rate(rates, shared), _mean_rate(rates, control)),
                n_tuples=(len(shared), len(control)),
            )
        )
    return found


def _mean_rate(rates_M: Floats, tuples_Tk: Ints) -> float:
    """Over all places of all tuples; NaN where there is none."""
    return float(rates_M[tuples_Tk].mean()) if len(tuples_Tk) else np.nan


def _failure_table(answers: Answers, tuples_Tk: Ints) -> Floats:
    """(1 + G, 1 + P) of SF_k."""
    parts = [
        block_sums(tuple_failures(answers.failed_MN, tuples_Tk[first : first + _ROWS_AT_ONCE]), answers.blocks_N)
        for first in range(0, len(tuples_Tk), _ROWS_AT_ONCE)
    ]
    n_items_V = left_out(block_sums(np.ones((1, len(answers.gold_N))), answers.blocks_N))
    design = answers.design
    weights = tuple_weights(design.foundation_M[tuples_Tk], design.n_foundations)
    table: Floats = left_out(np.concatenate(parts)) / n_items_V @ weights.T
    return table


_PROFILE_TUPLES = 200


def profile(answers: Answers, nulls: Nulls) -> Profile:
    """Profiles of as many models as one foundation has seeds; without several seeds, of up to five foundations."""
    design = answers.design
    size = design.n_seeds if design.n_seeds > 1 else min(5, design.n_foundations)
    none = np.empty((0, size), dtype=np.int64)
    shared = at_most(_PROFILE_TUPLES, design.shared(size)) if design.n_seeds > 1 else none
    control = at_most(_PROFILE_TUPLES, design.control(size)) if 1 < size <= design.n_foundations else none
    tested = shared if len(shared) else control
    return Profile(
        size=size,
        shared=_mean_profile(answers.failed_MN, shared),
        control=_mean_profile(answers.failed_MN, control),
        independence=np.mean([poisson_binomial(nulls.error_rates_M[chosen]) for chosen in tested], axis=0),
        difficulty=nulls.profile(tested),
    )


def _mean_profile(failed_MN: Bools, tuples_Tk: Ints) -> Floats | None:
    if not len(tuples_Tk):
        return None
    return np.mean([failure_profile(failed_MN[chosen]) for chosen in tuples_Tk], axis=0)
