"""A few-shot curve: one task learnt from ever more rows, from a foundation and from something else. Only missing cells run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foundation.core.distributed import is_main
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.core.plain import to_plain
from foundation.task.examples import TaskData
from foundation.task.few_shot_plot import plot_curves
from foundation.task.interval import Floats
from foundation.task.kinds.build import build_kind
from foundation.task.learning_curve import RESAMPLES, Advantage, Answered, advantage, scores
from foundation.task.protocol import Asked, find_starts, read_data, run_studies, say, workplace
from foundation.task.results import ArmResult
from foundation.task.rows import choose_rows
from foundation.task.study_config import FULL, FinetuneConfig, Keep
from foundation.task.suite_table import aligned, write_csv

FEW_SHOT_FILE = "few_shot.json"


@dataclass(frozen=True, slots=True)
class FewShotResult:
    """arms: one or two. values: for each arm, for each size, (U, S) scores. folder: of table, curve and figure."""

    arms: list[Answered]
    values: list[list[Floats]]
    advantage: Advantage | None
    folder: Path


def few_shot(cfg: FinetuneConfig, settings: dict[str, Any]) -> FewShotResult:
    """Run every size, draw and seed that is not there yet; write and print the curve."""
    with workplace(cfg) as device:
        starts = find_starts(cfg)
        data = read_data(cfg)
        sizes = sizes_of(cfg, data)
        folder = starts[0].folder.parent / f"few-shot-{starts[0].folder.name}"
        points = [
            (size, draw)
            for size in sizes
            for draw in range(1 if size == sizes[-1] and FULL in cfg.n_train else cfg.n_subsets)
        ]
        asked = [
            Asked(*_cell(cfg, settings, f"{folder.name}/n-{size}-draw-{draw}", size, draw), data)
            for size, draw in points
        ]
        done = list(zip(points, run_studies(asked, device), strict=True))
        studies = [[study for (size, _), study in done if size == wanted] for wanted in sizes]
        arms = [
            _answered(cfg, start.name, sizes, [[study.arms[n] for study in of] for of in studies])
            for n, start in enumerate(starts)
        ]
        result = _together(studies[0][0].arms[0].predictions[0].n_groups, arms, folder)
        if is_main():
            _write(cfg, result)
        say(few_shot_table(cfg, result), f"  {folder}")
        return result


def sizes_of(cfg: FinetuneConfig, data: TaskData) -> list[int]:
    """n_train as numbers, ascending, each once. Raises UserError where there are not so many rows."""
    # A size counts labels, those of the rows that pick an epoch among them.
    train, _ = choose_rows(replace(cfg, n_train=[], keep=Keep.last), data.train)
    sizes = sorted({len(train) if size == FULL else int(size) for size in cfg.n_train})
    if sizes[-1] > len(train):
        raise UserError(
            f"n_train has {sizes[-1]}, and {cfg.task.name} has {len(train)} training rows: use {FULL} for all"
        )
    return sizes


def _cell(
    cfg: FinetuneConfig, settings: dict[str, Any], name: str, size: int, draw: int
) -> tuple[FinetuneConfig, dict[str, Any]]:
    changed: dict[str, Any] = {"name": name, "n_train": [], "max_train": size, "subset": draw, "keep_models": False}
    return replace(cfg, **changed), settings | changed


def _answered(cfg: FinetuneConfig, name: str, sizes: list[int], results: list[list[ArmResult]]) -> Answered:
    """An arm's runs; of a size, those seeds that all of its draws have: an earlier command may have run more in some."""
    kind = build_kind(cfg.task)
    seeds, runs = [], []
    for draws in results:
        seeds.append(sorted(set.intersection(*({run.seed for run in draw.predictions} for draw in draws))))
        runs.append(
            [
                [kind.weighted(cfg.task.primary, run) for run in draw.predictions if run.seed in seeds[-1]]
                for draw in draws
            ]
        )
    return Answered(name, sizes, runs, seeds)


def _together(n_items: int, arms: list[Answered], folder: Path) -> FewShotResult:
    found = advantage(arms[0], arms[1], n_items) if len(arms) == 2 else None
    return FewShotResult(arms, [scores(arm, n_items) for arm in arms], found, folder)


def _write(cfg: FinetuneConfig, result: FewShotResult) -> None:
    rows = [
        {"arm": arm.name, "n_train": size, "draw": draw, "seed": seeds[seed], cfg.task.primary.value: float(value)}
        for arm, values in zip(result.arms, result.values, strict=True)
        for size, seeds, cell in zip(arm.sizes, arm.seeds, values, strict=True)
        for (draw, seed), value in np.ndenumerate(cell)
    ]
    write_csv(result.folder / "few_shot.csv", rows)
    content = {
        "task": cfg.task.name,
        "metric": cfg.task.primary.value,
        "sizes": result.arms[0].sizes,
        "arms": [arm.name for arm in result.arms],
        "advantage": to_plain(result.advantage),
    }
    write_json(result.folder / FEW_SHOT_FILE, content)
    plot_curves(result.arms, result.values, cfg.task.name, cfg.task.primary.value, result.folder / "few_shot.png")


def few_shot_table(cfg: FinetuneConfig, result: FewShotResult) -> str:
    """A line a size: how many runs, every arm's mean and spread over them, and the labels that the second needs for the same."""
    header = [
        "rows",
        "draws × seeds",
        *(arm.name for arm in result.arms),
        *(["labels to match"] if result.advantage else []),
    ]
    lines = []
    for number, size in enumerate(result.arms[0].sizes):
        of_size = [values[number] for values in result.values]
        counts = dict.fromkeys(f"{len(cell)} × {cell[0].size}" for cell in of_size)
        cells = [f"{size:,}", " and ".join(counts), *map(_spread, of_size)]
        if result.advantage is not None:
            cells.append(_labels(result.advantage.equivalents[number], result.arms[1].sizes))
        lines.append(cells)
    title = f"{cfg.task.name}: {cfg.task.primary.value}, mean ± sd over draws and seeds"
    return "\n".join(["", title, *aligned([header, *lines]), *_advantage_lines(result)])


def _spread(cell: Floats) -> str:
    spread = f" ± {cell.std(ddof=1):.3f}" if cell.size > 1 else ""
    return f"{cell.mean():.3f}{spread}"


def _labels(needed: float | None, sizes: list[int]) -> str:
    if needed is None:
        return f"over {sizes[-1]:,}"
    return f"{needed:,.0f}" if needed else f"under {sizes[0]:,}"


def _advantage_lines(result: FewShotResult) -> list[str]:
    found = result.advantage
    if found is None:
        return []
    if found.labels is None:
        return ["  data advantage: the curves share no score, so there is no distance between them"]
    return [
        f"  data advantage of {result.arms[0].name} over {result.arms[1].name}: {found.labels:+,.0f} labels, 95 % interval "
        f"[{found.low:+,.0f}, {found.high:+,.0f}]",
        f"  (mean distance over the scores that both reach; {RESAMPLES:,} resamples of items, draws and seeds, "
        f"{found.undefined:.0%} of them without a shared score)",
    ]
