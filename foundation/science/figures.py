"""The report's figures about errors: how alike, how often together, who like whom."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from foundation.science import pairs
from foundation.science.conditions import Condition
from foundation.science.drawing import CONTROL, DIFFICULTY, INDEPENDENCE, SHARED, Picture, svg
from foundation.science.figures_of_sharing import draw_layers, draw_scores, draw_sharing
from foundation.science.inference import Estimate
from foundation.science.tables import Table
from foundation.science.within_tasks import Analysed

_MOST_MODELS = 120
_COLOURS_OF_KAPPA = matplotlib.colormaps["viridis"].with_extremes(bad="0.85")


def pictures(found: list[Analysed], cka: Table | None) -> list[Picture]:
    """All that can be drawn from what there is."""
    drawn = [
        _effects(found),
        _profiles(found),
        _matrices(found),
        draw_sharing(found),
        draw_scores([each.condition for each in found]),
        draw_layers(cka),
    ]
    return [picture for picture in drawn if picture is not None]


def _bars(axes: Axes, y: float, estimate: Estimate | None, colour: str, label: str | None = None) -> None:
    if estimate is None:
        return
    axes.plot([estimate.value], [y], "o", color=colour, markersize=5, label=label)
    if np.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [y, y], "-", color=colour, linewidth=2)


def _effects(found: list[Analysed]) -> Picture | None:
    chosen = [(each, contrast) for each in found if (contrast := each.contrast("error consistency")) is not None]
    if not chosen:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, (_, contrast) in enumerate(chosen):
            _bars(axes, y + 0.15, contrast.shared, SHARED, "two seeds of one foundation" if y == 0 else None)
            _bars(axes, y - 0.15, contrast.control, CONTROL, "two foundations" if y == 0 else None)
        axes.set_yticks(
            range(len(chosen)), [f"{each.condition.task.name} · {each.condition.label}" for each, _ in chosen]
        )
        axes.invert_yaxis()
        axes.set_xlabel("error consistency κ (0: chance, 1: the same errors), 95 % interval")
        axes.grid(axis="x", alpha=0.3)
        _legend(axes, {"two seeds of one foundation": SHARED, "two foundations": CONTROL})

    return Picture(
        "error_consistency",
        "How alike models err",
        "Error consistency of pairs. What sharing a foundation adds is the distance between the two points of a row.",
        svg(draw, 8.5, 1.3 + 0.42 * len(chosen)),
    )


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    handles = [axes.plot([], [], "o", color=colour, label=label)[0] for label, colour in colours.items()]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.6 / max(4, len(axes.get_yticks()))), ncols=2
    )


def _profiles(found: list[Analysed]) -> Picture | None:
    chosen = [each for each in found if each.profile is not None]
    if not chosen:
        return None
    n_columns = min(3, len(chosen))
    n_rows = -(-len(chosen) // n_columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(chosen):
                axes.set_axis_off()
                continue
            _profile(axes, chosen[place])
        # Not every condition has all of them.
        named = {
            label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=4)

    return Picture(
        "profile",
        "Failure profiles against three nulls",
        "Share of items that exactly t of k models fail (log scale). Bars: k seeds of one foundation. N0, independence, is "
        "far off for any models on any items; N1 and N2 are what sharing has to be held against.",
        svg(draw, 3.6 * n_columns, 2.7 * n_rows + 0.5),
    )


def _profile(axes: Axes, each: Analysed) -> None:
    shape = each.profile
    assert shape is not None
    t = np.arange(shape.size + 1)
    if shape.shared is not None:
        axes.bar(t, shape.shared, color=SHARED, alpha=0.55, label="shared foundation")
    for values, colour, mark, label in (
        (shape.independence, INDEPENDENCE, "v", "N0 independence"),
        (shape.difficulty, DIFFICULTY, "s", "N1 item difficulty"),
        (shape.control, CONTROL, "D", "N2 other foundations"),
    ):
        if values is not None:
            axes.plot(t, values, mark + "-", color=colour, markersize=5, linewidth=1, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(t)
    axes.set(
        title=f"{each.condition.task.name} · {each.condition.label}",
        xlabel=f"failures of {shape.size} models",
        ylabel="share of items",
    )
    axes.grid(axis="y", alpha=0.3)


def _matrices(found: list[Analysed]) -> Picture | None:
    tasks: dict[str, list[Condition]] = {}
    for each in found:
        # Models of a disjoint condition stand in the conditions of their shards too.
        if each.condition.answers.n_labels and each.condition.data != "disjoint":
            tasks.setdefault(each.condition.task.name, []).append(each.condition)
    if not tasks:
        return None
    drawn = {task: _that_fit(members) for task, members in tasks.items()}
    left = [f"{task}: {each.label}" for task, members in tasks.items() for each in members[len(drawn[task]) :]]
    but = f", but for those of {'; '.join(left)}" if left else ""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, (task, members) in zip(grid, drawn.items(), strict=True):
            image = _matrix(axes, members, task)
        figure.colorbar(image, ax=list(grid), label="error consistency κ", shrink=0.7)

    return Picture(
        "kappa_matrix",
        "Who errs like whom",
        f"Error consistency of every pair of models{but}. White lines part foundations, black lines ways of sharing; a "
        "foundation that is shared shows as a bright square on the diagonal.",
        svg(draw, 0.8 + 4.4 * len(tasks), 4.6),
    )


def _that_fit(members: list[Condition]) -> list[Condition]:
    """The first of them, whole, up to _MOST_MODELS models in all, or one."""
    totals = np.cumsum([condition.answers.design.n_models for condition in members])
    return members[: max(1, int(np.searchsorted(totals, _MOST_MODELS, side="right")))]


def _matrix(axes: Axes, members: list[Condition], task: str) -> Any:
    failed = np.concatenate([condition.answers.failed_MN for condition in members])
    kappa = pairs.error_consistency(failed)
    np.fill_diagonal(kappa, np.nan)
    image = axes.imshow(kappa, cmap=_COLOURS_OF_KAPPA, vmin=0, vmax=1, interpolation="nearest")
    start, ticks, names = 0, [], []
    for condition in members:
        codes = condition.answers.design.foundation_M
        for edge in np.flatnonzero(np.diff(codes)) + start + 0.5:
            axes.axhline(edge, color="white", linewidth=0.8)
            axes.axvline(edge, color="white", linewidth=0.8)
        ticks.append(start + len(codes) / 2 - 0.5)
        names.append(condition.label)
        start += len(codes)
        if start < len(failed):
            axes.axhline(start - 0.5, color="black", linewidth=2)
            axes.axvline(start - 0.5, color="black", linewidth=2)
    axes.set_xticks(ticks, names, rotation=30, ha="right")
    axes.set_yticks(ticks, names)
    axes.set_title(task)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return image
