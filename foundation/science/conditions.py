"""Which models may be compared: those of one task and one way of sharing, told apart by the data they were trained on.

Letters: N items · M models · K labels
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from foundation.science.answers import Answers
from foundation.science.calibration import scale_by_other_half
from foundation.science.design import Design
from foundation.science.records import Model, Store, TaskAnswers
from foundation.science.variance import normalised_score

Floats: TypeAlias = NDArray[np.float64]

WHOLE = "1/1"
DISJOINT = "disjoint"


@dataclass(frozen=True)
class Condition:
    """One row of the study. data: the shard that all models saw, or disjoint: each seed of a foundation another one."""

    task: TaskAnswers
    variant: str
    data: str
    numbers_M: NDArray[np.int64]
    answers: Answers
    foundations: list[str]

    @property
    def models(self) -> list[Model]:
        """In the order of `answers`."""
        return [self.task.models[number] for number in self.numbers_M]

    @property
    def is_scratch(self) -> bool:
        """Whether nothing was pretrained."""
        return all(model.is_scratch for model in self.models)

    @property
    def label(self) -> str:
        """For tables and figures."""
        return self.variant if self.data == WHOLE else f"{self.variant}, data {self.data}"

    @property
    def names(self) -> list[str]:
        """Of `foundations`. Random weights are called after the run that gave their shape, so their seed is added."""
        by_fingerprint = {m.foundation: f"{m.name} seed {m.seed}" if m.is_scratch else m.name for m in self.models}
        return [by_fingerprint[foundation] for foundation in self.foundations]

    def values(self) -> Floats | None:
        """(P, S) of the task's own metric, NaN where a foundation has fewer seeds; None without scores.json."""
        design = self.answers.design
        if not all("value" in model.scores for model in self.models):
            return None
        table = np.full((design.n_foundations, design.n_seeds), np.nan)
        for p in range(design.n_foundations):
            mine = [m.scores["value"] for m, f in zip(self.models, design.foundation_M, strict=True) if f == p]
            table[p, : len(mine)] = mine
        return table

    def normalised(self) -> Floats | None:
        """(P, S) of values between the constant answer's, 0, and 1; None where either is not known."""
        values, floor = self.values(), self.task.summary.get("baseline")
        return None if values is None or floor is None else normalised_score(values, np.array(floor))

    @property
    def collapsed_M(self) -> NDArray[np.bool_] | None:
        """Which models are no better than the constant answer; None where scores.json is not there to say."""
        if not all("collapsed" in model.scores for model in self.models):
            return None
        return np.array([bool(model.scores["collapsed"]) for model in self.models])

    def part(self, kept_M: NDArray[np.bool_]) -> "Condition":
        """Of these models only, their foundations numbered anew."""
        answers, design = self.answers, self.answers.design
        places, foundation_M = np.unique(design.foundation_M[kept_M], return_inverse=True)
        soft = answers.probabilities_MNK
        part = replace(
            answers,
            predicted_MN=answers.predicted_MN[kept_M],
            design=Design(foundation_M, design.seed_M[kept_M]),
            probabilities_MNK=None if soft is None else soft[kept_M],
        )
        foundations = [self.foundations[p] for p in places]
        return replace(self, numbers_M=self.numbers_M[kept_M], answers=part, foundations=foundations)

    def of_foundations(self, foundations: Collection[str]) -> "Condition":
        """Of their models only."""
        return self.part(np.array([model.foundation in foundations for model in self.models]))


def conditions(store: Store, *, with_soft: bool = True) -> list[Condition]:
    """All of a store's, tasks and variants in order."""
    found = []
    for task in store.tasks.values():
        scaled = _scaled(task) if with_soft and task.n_labels else None
        for variant in sorted({model.variant for model in task.models}):
            mine = [n for n, model in enumerate(task.models) if model.variant == variant]
            shards = sorted({task.models[n].data_shard for n in mine})
            groups = {shard: [n for n in mine if task.models[n].data_shard == shard] for shard in shards}
            if len(shards) > 1:
                groups[DISJOINT] = _diagonal(task.models, mine)
                # A shard that only serves as the other part of a disjoint arm is no condition of its own.
                groups = {data: g for data, g in groups.items() if data == DISJOINT or _seeds(task.models, g) > 1}
            found += [_condition(task, variant, data, chosen, scaled) for data, chosen in groups.items() if chosen]
    return found


def _seeds(models: list[Model], numbers: list[int]) -> int:
    return len({models[n].seed for n in numbers})


def _diagonal(models: list[Model], numbers: list[int]) -> list[int]:
    """Of each foundation one model a shard, all of different seeds: shards with the fewest seeds choose first."""
    chosen = []
    for foundation in sorted({models[n].foundation for n in numbers}):
        mine = [n for n in numbers if models[n].foundation == foundation]
        shards = sorted(
            {models[n].data_shard for n in mine}, key=lambda s: (sum(models[n].data_shard == s for n in mine), s)
        )
        taken: set[int] = set()
        for shard in shards:
            free = [n for n in mine if models[n].data_shard == shard and models[n].seed not in taken]
            if free:
                number = min(free, key=lambda n: models[n].seed)
                taken.add(models[number].seed)
                chosen.append(number)
    return chosen


def _condition(task: TaskAnswers, variant: str, data: str, chosen: list[int], scaled: Floats | None) -> Condition:
    order = sorted(chosen, key=lambda n: (task.models[n].name, task.models[n].foundation, task.models[n].seed))
    keys = [task.models[n].foundation for n in order]
    foundations = list(dict.fromkeys(keys))
    design = Design(np.array([foundations.index(key) for key in keys]), np.array([task.models[n].seed for n in order]))
    numbers = np.array(order)
    answers = Answers(
        gold_N=task.gold_N,
        predicted_MN=task.predicted_MN[numbers],
        n_labels=task.n_labels,
        design=design,
        probabilities_MNK=None if scaled is None else scaled[numbers],
        cluster_N=task.cluster_N,
    )
    return Condition(task, variant, data, numbers, answers, foundations)


def _scaled(task: TaskAnswers) -> Floats:
    """(M, N, K) probabilities, each half of the items at the temperature fitted on the other."""
    gold = task.gold_N.astype(np.int64)
    return np.stack([softmax(scale_by_other_half(logits, gold), axis=1) for logits in task.logits_MNK]).astype(
        np.float64
    )
