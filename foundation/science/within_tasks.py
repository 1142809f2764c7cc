"""The analysis of each task by itself: who is like whom, who fails together, and what sharing has to do with it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foundation.science.calibration import calibration
from foundation.science.conditions import Condition
from foundation.science.contrast import Contrast, contrasts
from foundation.science.inference import Estimate, holm
from foundation.science.systemic import Nulls, Profile, SystemicFailure, profile, systemic_failures
from foundation.science.tables import Cell, Table, plain, ratio, spread, varied, with_ends
from foundation.science.variance import nested_decomposition


@dataclass(frozen=True, slots=True)
class Analysed:
    """A condition with all that was found out about it; profile: None for tasks whose labels are numbers.

    without_collapsed: the contrasts of the other models, where any model collapsed and two did not.
    """

    condition: Condition
    contrasts: list[Contrast]
    systemic: list[SystemicFailure]
    profile: Profile | None
    without_collapsed: list[Contrast] = field(default_factory=list)

    def contrast(self, measure: str) -> Contrast | None:
        """The one of that measure."""
        return _of_measure(self.contrasts, measure)

    def effect_without_collapsed(self, measure: str) -> Estimate | None:
        """None where no model collapsed, or the others do not make both arms."""
        found = _of_measure(self.without_collapsed, measure)
        return None if found is None else found.effect


def _of_measure(contrasts: list[Contrast], measure: str) -> Contrast | None:
    return next((found for found in contrasts if found.measure == measure), None)


def analyse(condition: Condition, sizes: list[int]) -> Analysed:
    """All that needs one task and one way of sharing only."""
    answers = condition.answers
    if answers.design.n_models < 2:
        return Analysed(condition, [], [], None)
    collapsed_M = condition.collapsed_M
    others = []
    if collapsed_M is not None and collapsed_M.any() and (~collapsed_M).sum() > 1:
        others = contrasts(condition.part(~collapsed_M).answers)
    if not answers.n_labels:
        return Analysed(condition, contrasts(answers), [], None, others)
    nulls = Nulls(answers)
    failures = systemic_failures(answers, nulls, sizes)
    return Analysed(condition, contrasts(answers), failures, profile(answers, nulls), others)


def keys(condition: Condition) -> list[Cell]:
    """What names a condition in a table."""
    return [condition.task.name, condition.variant, condition.data]


def sizes_of(condition: Condition) -> list[Cell]:
    """P, S, N, and how many of the models collapsed, as in 1 of 15."""
    design, collapsed_M = condition.answers.design, condition.collapsed_M
    collapsed = None if collapsed_M is None else f"{collapsed_M.sum()} of {design.n_models}"
    return [design.n_foundations, design.n_seeds, len(condition.answers.gold_N), collapsed]


KEYS = ["task", "sharing", "data"]
SIZES = ["foundations", "seeds", "items", "collapsed"]


def read_table(found: list[Analysed]) -> Table:
    """What the store holds, and how good the models are."""
    rows: list[list[Any]] = []
    for each in found:
        condition = each.condition
        values = condition.values()
        metric = condition.task.summary.get("metric")
        if values is None and condition.answers.n_labels:
            metric, values = "accuracy", 1 - condition.answers.failed_MN.mean(axis=1)[None]
        means = [None] * 3 if values is None else [np.nanmean(values), np.nanmin(values), np.nanmax(values)]
        rows.append([*keys(condition), *sizes_of(condition), metric, *means])
    return Table(
        "models",
        "What was read",
        "Score: the metric named beside it, the task's own or, where scores.json is not there, accuracy; mean and range over "
        "all models of the row. Foundations of a scratch row are "
        "random initialisations. Data: the part of the training rows that every model saw (1/1: all), or disjoint: "
        "another for each seed. Collapsed: models no better than the constant answer; they count in every row.",
        [*KEYS, *SIZES, "metric", "score", "worst", "best"],
        plain(rows),
    )


def pairs_table(found: list[Analysed]) -> Table:
    """Every pair measure in both arms."""
    p_values = holm([_permutation(contrast) for each in found for contrast in each.contrasts])
    rows: list[list[Any]] = []
    for each in found:
        for contrast in each.contrasts:
            adjusted = p_values[len(rows)]
            row = [*keys(each.condition), contrast.measure]
            row += [*spread(contrast.shared), *spread(contrast.control), *spread(contrast.effect)]
            row += spread(each.effect_without_collapsed(contrast.measure))
            row += [varied(contrast.effect, contrast.shared, contrast.control), contrast.permutation_p, adjusted]
            rows.append([*row, *sizes_of(each.condition)])
    return Table(
        "pairs",
        "Are two models of one foundation more alike than two of different ones?",
        "Shared: pairs of seeds of one foundation. Control: pairs of different foundations, and of different seeds if any "
        "foundation has two. Effect: how much more alike shared pairs are (for distances control − shared). Foundation share "
        "ρ_F = 1 − shared/control of the correctness difference. p: permutations of foundation labels, one-sided; Holm: over "
        "all tests of this table. Intervals: two-way jackknife, 95 %, of the effect over what its column names: over items "
        "only, which holds for these foundations alone, below 3 foundations (then there is no p) and where the effect is gone "
        "without one of them. Effect without collapsed: where a model is no better than the constant answer, of the others; "
        "seeds of one foundation that collapse alike pass for what it adds.",
        [*KEYS, "measure", *with_ends("shared", "control", "effect", "effect without collapsed"), "interval over", "p",
         "p Holm", *SIZES],
        plain(rows),
    )  # fmt: skip


def _permutation(contrast: Contrast) -> float:
    """NaN where it was not tested; ρ_F is a function of what was."""
    return float("nan") if contrast.permutation_p is None or contrast.shared is None else contrast.permutation_p


def systemic_table(found: list[Analysed]) -> Table:
    """SF_k with its three nulls, always all of them."""
    rows: list[list[Any]] = []
    for each in found:
        for one in each.systemic:
            seen = one.shared or one.control
            assert seen is not None
            control = None if one.control is None else one.control.value
            row = [*keys(each.condition), one.size, *spread(one.shared), one.independence, one.difficulty]
            row += [*spread(one.control), *spread(one.effect), varied(one.effect, one.shared, one.control)]
            row += [ratio(seen.value, null) for null in (one.independence, one.difficulty, control)]
            rows.append([*row, *one.error_rates, *sizes_of(each.condition)])
    return Table(
        "systemic_failure",
        "How often do k models all fail on an item?",
        "Shared: k models of one foundation. Three nulls: N0 independent models of these error rates; N1 models that "
        "have only the items' difficulty in common, as models of other foundations show it (Rasch, cross-fitted; a dash "
        "where k is more than those foundations, which then cannot show it); N2 k "
        "models of k different foundations (the control arm: same models, so same size and accuracy). The ratio to N0 "
        "grows without bound with k and says almost nothing about sharing; the claim is the effect, shared − N2. "
        "Without several seeds a foundation, ratios are of N2.",
        [*KEYS, "k", *with_ends("shared"), "N0 independence", "N1 difficulty", *with_ends("N2 control", "effect"),
         "interval over", "ratio to N0", "ratio to N1", "ratio to N2", "error rate", "error rate, control", *SIZES],
        plain(rows),
    )  # fmt: skip


def profile_table(found: list[Analysed]) -> Table:
    """Share of items by how many models fail."""
    rows: list[list[Any]] = []
    for each in found:
        if (shape := each.profile) is None:
            continue
        lists = [shape.shared, shape.independence, shape.difficulty, shape.control]
        for t in range(shape.size + 1):
            rows.append([*keys(each.condition), shape.size, t, *(None if one is None else one[t] for one in lists)])
    return Table(
        "profile",
        "Failure profile: the share of items that t of k models fail",
        "k = 0 failures: consistent success; t = k: systemic failure. Nulls as in the table above.",
        [*KEYS, "k", "t", "shared", "N0 independence", "N1 difficulty", "N2 control"],
        plain(rows),
    )


def variance_table(found: list[Analysed]) -> Table:
    """The nested decomposition, for balanced conditions."""
    rows: list[list[Any]] = []
    for each in found:
        answers, design = each.condition.answers, each.condition.answers.design
        counts = np.bincount(design.foundation_M)
        if not answers.n_labels or design.n_foundations < 2 or counts.min() < 2 or len(set(counts)) > 1:
            continue
        correct_NPS = ~answers.failed_MN.T.reshape(-1, design.n_foundations, counts[0])
        one = nested_decomposition(correct_NPS)
        row = [one.bias_squared, one.pretraining, one.finetuning, one.share, one.within, one.across]
        rows.append([*keys(each.condition), *row, *sizes_of(each.condition)])
    return Table(
        "variance",
        "Where differences in correctness come from",
        "Nested, unbiased (Zhong et al. 2021): V_pt between foundations, V_ft between seeds of one; within = 2·V_ft, "
        "across = 2·(V_ft + V_pt). Here a pair across foundations may share its seed, unlike in the pairs' table, which"
        " has the intervals.",
        [*KEYS, "bias²", "V_pt", "V_ft", "ρ_F", "within", "across", *SIZES],
        plain(rows),
    )


def calibration_table(found: list[Analysed]) -> Table:
    """One row a model."""
    rows: list[list[Any]] = []
    for each in found:
        condition = each.condition
        if not condition.answers.n_labels:
            continue
        gold = condition.task.gold_N.astype(np.int64)
        for number, model in zip(condition.numbers_M, condition.models, strict=True):
            one = calibration(condition.task.logits_MNK[number], gold)
            row = [one.ece, one.brier, one.nll, one.temperature, one.ece_scaled, one.nll_scaled]
            rows.append([*keys(condition), model.name, model.seed, *row, len(gold)])
    return Table(
        "calibration",
        "Can the probabilities be believed?",
        "ECE over 15 bins of equal width; Brier summed over labels; NLL in nats; temperature: best by NLL on these "
        "items, above 1 is overconfident. Scaled: each half of the items at the temperature fitted on the other half.",
        [*KEYS, "foundation", "seed", "ECE", "Brier", "NLL", "temperature", "ECE scaled", "NLL scaled", "items"],
        plain(rows),
    )
