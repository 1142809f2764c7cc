"""The tables said in sentences, with their numbers of foundations, seeds and items, and what may not be claimed."""

from foundation.science.inference import FEWEST_FOUNDATIONS, Estimate
from foundation.science.likeness import named, unlike_finetunes, unlike_foundations
from foundation.science.tables import show
from foundation.science.within_tasks import Analysed


def sentences(found: list[Analysed]) -> list[str]:
    """One a condition that has both arms; and one for each that cannot speak of the procedure."""
    said = []
    for each in found:
        condition, design = each.condition, each.condition.answers.design
        where = f"{condition.task.name}, {condition.label}"
        stands_on = (
            f"{design.n_foundations} foundations × {design.n_seeds} seeds, {len(condition.answers.gold_N):,} items"
        )
        first = each.contrasts[0] if each.contrasts else None
        if first is None or first.shared is None or first.control is None or first.effect is None:
            continue
        share, kappa = each.contrast("foundation share"), each.contrast("error consistency")
        words = [
            f"{where} ({stands_on}): {first.measure} {show(first.shared.value)} within a foundation, "
            f"{show(first.control.value)} across; difference {_interval(first.effect)}"
        ]
        if share is not None and share.effect is not None:
            words.append(f"foundation share ρ_F {_interval(share.effect)}")
        if kappa is not None and kappa.effect is not None:
            words.append(f"sharing moves error consistency by {_interval(kappa.effect, sign=True)}")
        if first.permutation_p is not None:
            words.append(f"permutation p = {show(first.permutation_p)}")
            if not first.effect.about_procedure:
                words.append(
                    "without one of the foundations nothing is left to compare: its intervals are about these ones only"
                )
        else:
            words.append(
                f"fewer than {FEWEST_FOUNDATIONS} foundations: about these ones only, and no p-value is licensed"
            )
        words += _collapsed(each, first.measure)
        if differing := unlike_foundations(condition):
            words.append(f"these foundations differ in more than their seed: {named(differing)}")
        if differing := unlike_finetunes(condition):
            words.append(f"these fine-tunes differ in more than their seed: {named(differing)}")
        said.append("; ".join(words) + ".")
    return said


def _collapsed(each: Analysed, measure: str) -> list[str]:
    """A clause where models collapsed, with what the others show."""
    collapsed_M = each.condition.collapsed_M
    if collapsed_M is None or not collapsed_M.any():
        return []
    effect = each.effect_without_collapsed(measure)
    others = (
        "the others do not make both arms" if effect is None else f"without them the difference is {_interval(effect)}"
    )
    return [f"{collapsed_M.sum()} of {len(collapsed_M)} models are no better than the constant answer, and {others}"]


def _interval(estimate: Estimate, *, sign: bool = False) -> str:
    value = f"{estimate.value:+.3f}" if sign else show(estimate.value)
    return f"{value} [{show(estimate.low)}, {show(estimate.high)}]"
