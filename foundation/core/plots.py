"""Curves of a run as PNG files, from metrics.jsonl alone."""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from foundation.core import metric_names as names
from foundation.core.files import write_atomically
from foundation.core.logger import read_metrics

# Up to here every point is marked; beyond, the line says enough.
_MARKED_POINTS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plot:
    """One picture: the metrics it shows, with their labels, and a level to compare them with."""

    file: str
    title: str
    y_label: str
    metrics: dict[str, str]
    level: float | None = None
    level_label: str = ""


def plot_curves(metrics_path: Path, folder: Path, *, unigram_nats: float | None = None) -> list[Path]:
    """Draw losses, learning rate, gradient norm, speed and sentence accuracy; what was not logged is not drawn.

    Args:
        unigram_nats: entropy of the corpus's token frequencies: the loss of a model that knows no context.

    Returns:
        The files written, in `folder`.
    """
    rows = read_metrics(metrics_path)
    written = []
    for plot in _plots(unigram_nats):
        curves = {metric: points for metric in plot.metrics if (points := _points(rows, metric))}
        if curves:
            path = folder / plot.file
            _draw(plot, curves, path)
            written.append(path)
    return written


def _losses(unigram_nats: float | None) -> list[_Plot]:
    return [
        _Plot(
            file="loss.png",
            title="Masked tokens",
            y_label="nats per token",
            metrics={names.TRAIN_MLM_LOSS: "train", names.EVAL_MLM_LOSS: "eval"},
            level=unigram_nats,
            level_label="unigram entropy (no context)",
        ),
        _Plot(
            # By itself: with other terms, each times its weight, it says nothing beside the masked tokens'.
            file="total_loss.png",
            title="All terms, each times its weight",
            y_label="nats",
            metrics={names.TRAIN_LOSS: "train"},
        ),
        _Plot(
            file="words_loss.png",
            title="Words of the document",
            y_label="nats per word",
            metrics={names.EVAL_WORDS_LOSS: "eval"},
        ),
        _Plot(
            file="detection_loss.png",
            title="Is a token spoilt?",
            y_label="nats per token",
            metrics={names.EVAL_DETECTION_LOSS: "eval"},
        ),
    ]


def _plots(unigram_nats: float | None) -> list[_Plot]:
    return [
        *_losses(unigram_nats),
        _Plot(
            file="pair_accuracy.png",
            title="Sentence pairs",
            y_label="share of pairs judged right",
            metrics={
                names.EVAL_NSP_ACCURACY: "eval, is B next?",
                names.EVAL_SOP_ACCURACY: "eval, are A and B in order?",
            },
            level=0.5,
            level_label="chance",
        ),
        _Plot(
            file="learning_rate.png",
            title="Learning rate",
            y_label="learning rate",
            metrics={names.LEARNING_RATE: "learning rate"},
        ),
        _Plot(
            file="grad_norm.png",
            title="Gradient norm",
            y_label="L2 norm before clipping",
            metrics={names.GRAD_NORM: "gradient norm"},
        ),
        _Plot(
            file="tokens_per_s.png",
            title="Speed",
            y_label="tokens per second",
            metrics={names.TOKENS_PER_SECOND: "tokens per second"},
        ),
    ]


def _points(rows: list[dict[str, float | str]], metric: str) -> list[tuple[float, float]]:
    """(step, value) of every line that has a finite one."""
    points = [(float(row[names.STEP]), float(row[metric])) for row in rows if row.get(metric) is not None]
    return [point for point in points if math.isfinite(point[1])]


def _draw(plot: _Plot, curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    # A Figure of its own, not pyplot: no global state, no window, nothing to close.
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for metric, points in curves.items():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=plot.metrics[metric], marker="." if len(points) <= _MARKED_POINTS else None)
    if plot.level is not None:
        axes.axhline(plot.level, color="0.4", linestyle="--", linewidth=1, label=plot.level_label)
    axes.set(title=plot.title, xlabel="step (optimizer updates)", ylabel=plot.y_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend()
    with write_atomically(path) as file:
        figure.savefig(file, format="png")
