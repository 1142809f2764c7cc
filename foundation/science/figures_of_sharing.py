"""The report's figures about foundations: what sharing costs and saves, scores across tasks, representations by layer."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foundation.science.across_tasks import scores_by_kind
from foundation.science.conditions import Condition
from foundation.science.costs_and_groups import mean_cost
from foundation.science.drawing import COLOURS, CONTROL, DIFFICULTY, INDEPENDENCE, SHARED, Picture, svg
from foundation.science.inference import Estimate
from foundation.science.tables import Cell, Table
from foundation.science.within_tasks import Analysed


def draw_sharing(found: list[Analysed]) -> Picture | None:
    """Sharing degree against homogenization and against efficiency, in one plot; None where no cost was measured."""
    chosen = [
        each
        for each in found
        if each.contrasts and not each.condition.is_scratch and mean_cost(each.condition, "shared_share") is not None
    ]
    tasks = list(dict.fromkeys(each.condition.task.name for each in chosen))
    if not tasks:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(tasks), squeeze=False, sharex=True)
        for column, task in enumerate(tasks):
            _sharing_of(grid[:, column], [each for each in chosen if each.condition.task.name == task], task)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        more, more_labels = grid[1, 0].get_legend_handles_labels()
        figure.legend(handles + more, labels + more_labels, loc="outside lower center", ncols=2 * min(2, len(tasks)))

    return Picture(
        "sharing_degree",
        "Sharing degree against homogenization and against efficiency",
        "Above: how alike models err, with 95 % intervals. Below: what a task has to store (left axis, log) and how good it is "
        "(right axis). Sharing degree: the share of parameters at inference that are the foundation's, bit for bit.",
        svg(draw, 1.0 + 4.2 * len(tasks), 6.2),
    )


def _sharing_of(column: Any, members: list[Analysed], task: str) -> None:
    """One task: ways of sharing in the order of their degree, evenly spaced, since most degrees are near 1."""
    above, below = column
    right = below.twinx()
    right.spines["right"].set_visible(True)
    members = sorted(members, key=lambda each: mean_cost(each.condition, "shared_share") or 0.0)
    for x, each in enumerate(members):
        kappa = each.contrast("error consistency") or each.contrast("residual correlation")
        if kappa is not None:
            _point(above, x - 0.08, kappa.shared, "o", SHARED)
            _point(above, x + 0.08, kappa.control, "D", CONTROL)
        stored, values = mean_cost(each.condition, "stored_bytes"), each.condition.values()
        if stored:
            below.plot([x], [stored / 1e6], "s", color=DIFFICULTY)
        if values is not None:
            right.plot([x], [np.nanmean(values)], "^", color=INDEPENDENCE)
    for axes, mark, colour, label in (
        (above, "o", SHARED, "κ, one foundation"),
        (above, "D", CONTROL, "κ, two foundations"),
        (below, "s", DIFFICULTY, "MB a task"),
        (below, "^", INDEPENDENCE, "score (right)"),
    ):
        axes.plot([], [], mark, color=colour, label=label)
    names = [f"{each.condition.label}\n{mean_cost(each.condition, 'shared_share'):.1%}" for each in members]
    below.set_xticks(range(len(members)), names, rotation=30, ha="right")
    below.set_yscale("log")
    above.set_title(task, fontweight="bold")
    above.set(ylabel="κ of errors", xlim=(-0.5, len(members) - 0.5))
    below.set(ylabel="MB a task", xlabel="sharing degree")
    right.set_ylabel("score")
    for axes in (above, below):
        axes.grid(alpha=0.3)


def _point(axes: Axes, x: float, estimate: Estimate | None, mark: str, colour: str) -> None:
    if estimate is None:
        return
    axes.plot([x], [estimate.value], mark, color=colour, markersize=5)
    if np.isfinite(estimate.low):
        axes.plot([x, x], [estimate.low, estimate.high], "-", color=colour)


def draw_scores(found: list[Condition]) -> Picture | None:
    """Normalised scores over tasks, a line a foundation; None with fewer than two tasks."""
    kinds = {kind: tasks for kind, tasks in scores_by_kind(found).items() if len(tasks) > 1}
    if not kinds:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for axes, ((variant, data), tasks) in zip(grid, kinds.items(), strict=True):
            n_foundations = len(next(iter(tasks.values())))
            for p in range(n_foundations):
                colour = COLOURS[p % len(COLOURS)]
                axes.plot(
                    range(len(tasks)), [np.nanmean(s[p]) for s in tasks.values()], "-", color=colour, linewidth=1.5
                )
                for x, scores in enumerate(tasks.values()):
                    axes.plot([x] * scores.shape[1], scores[p], ".", color=colour, alpha=0.6)
            axes.set_xticks(range(len(tasks)), list(tasks), rotation=20, ha="right")
            axes.set_title(variant if data == "1/1" else f"{variant}, data {data}")
            axes.grid(axis="y", alpha=0.3)
        grid[0].set_ylabel("normalised score z (0: constant answer)")

    return Picture(
        "scores",
        "Scores across tasks",
        "A colour a foundation: points are seeds, lines join its means. Parallel lines: what is wrong with a foundation is "
        "wrong on every task. Crossing lines: it belongs to the task.",
        svg(draw, 1.0 + 2.9 * len(kinds), 3.6),
    )


def draw_layers(cka: Table | None) -> Picture | None:
    """CKA by layer, with its anchors; None without representations."""
    if cka is None or not cka.rows:
        return None
    place = {name: number for number, name in enumerate(cka.columns)}
    curves: dict[str, list[tuple[Cell, Cell]]] = {}
    for row in cka.rows:
        curves.setdefault(str(row[place["comparison"]]), []).append((row[place["layer"]], row[place["CKA"]]))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(curves.items()):
            is_anchor = "anchor" in name
            axes.plot(*zip(*points, strict=True), "o--" if is_anchor else "o-", color=COLOURS[number % 8], label=name)
        axes.set(xlabel="layer (0: embeddings)", ylabel="debiased linear CKA", ylim=(-0.1, 1.05))
        axes.set_xticks(sorted({int(str(x)) for points in curves.values() for x, _ in points}))
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))

    return Picture(
        "cka",
        "Representations, layer by layer",
        "Mean CKA of pairs. The dashed anchors say what the number means here: two untrained encoders of the same shape.",
        svg(draw, 9.0, 3.8),
    )
