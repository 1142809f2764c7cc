"""Which training rows a run sees: its shard, of that a nested and stratified draw, and the rows that pick an epoch."""

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.randomness import rng
from foundation.task.examples import Examples
from foundation.task.study_config import FinetuneConfig, Keep

# Rows are chosen by the task alone: every seed of every arm sees the same ones.
CHOICE_SEED = 0


def choose_rows(cfg: FinetuneConfig, train: Examples) -> tuple[Examples, Examples | None]:
    """Rows to train on, and with keep=best those that pick the epoch: together they are max_train, and those of 100 are
    among those of 200."""
    part, parts = cfg.shard_of
    whole = nested_order(train.labels, draw=0)
    # A piece of an order in which the labels alternate, not every k-th row of it: that could have one label only.
    order = whole[len(whole) * part // parts : len(whole) * (part + 1) // parts]
    if cfg.subset:
        order = order[nested_order(train.labels[order], draw=cfg.subset)]
    order = order[: cfg.max_train]
    if len(order) < 2:
        raise UserError(f"shard={cfg.shard} leaves {len(order)} of {len(train)} training rows: cut into fewer parts")
    n_selection = round(cfg.selection_share * len(order)) if cfg.keep is Keep.best else 0
    if cfg.keep is Keep.best and not 0 < n_selection < len(order):
        raise UserError(
            f"{len(order)} training rows leave none for selection_share={cfg.selection_share}: use keep=last"
        )
    chosen = np.sort(order[n_selection:])
    return train.take(chosen), train.take(np.sort(order[:n_selection])) if n_selection else None


def nested_order(labels: NDArray[np.int64] | NDArray[np.float64], draw: int) -> NDArray[np.int64]:
    """All rows in an order of which every beginning has the labels in their shares, to within one row a label.

    The i-th row of a label that n rows have stands at (i + ½) / n of the order. Labels that are not class numbers are only
    shuffled.
    """
    order = rng(CHOICE_SEED, "subset", draw).permutation(len(labels))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return order
    drawn = labels[order]
    place = np.empty(len(labels))
    for label in np.unique(drawn):
        at = np.flatnonzero(drawn == label)
        place[at] = (np.arange(len(at)) + 0.5) / len(at)
    return order[np.argsort(place, kind="stable")]
