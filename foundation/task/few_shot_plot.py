"""The figure of a few-shot curve."""

from pathlib import Path

from matplotlib.figure import Figure

from foundation.core.files import write_atomically
from foundation.task.interval import Floats
from foundation.task.learning_curve import Answered


def plot_curves(arms: list[Answered], values: list[list[Floats]], task: str, metric: str, path: Path) -> None:
    """Means over draws and seeds with a band of one standard deviation, and every run as a dot; labels in doublings."""
    # A Figure of its own, not pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for arm, cells in zip(arms, values, strict=True):
        means = [float(cell.mean()) for cell in cells]
        spreads = [float(cell.std(ddof=1)) if cell.size > 1 else 0.0 for cell in cells]
        (line,) = axes.plot(arm.sizes, means, marker="o", label=arm.name)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(arm.sizes, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        for size, cell in zip(arm.sizes, cells, strict=True):
            axes.plot([size] * cell.size, cell.ravel(), ".", color=line.get_color(), alpha=0.35, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(arms[0].sizes, [f"{size:,}" for size in arms[0].sizes])
    axes.minorticks_off()
    axes.set(title=f"{task}: what labels are worth", xlabel="training rows (labels)", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend()
    with write_atomically(path) as file:
        figure.savefig(file, format="png")
