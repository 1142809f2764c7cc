"""The predictions store: every model's answers to every task, gathered from run folders and checked against each other.

Nothing is repaired. A store that contradicts itself is refused, with the rows named: a statistic over models that
answered different items would be a number about nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from foundation.core.errors import UserError
from foundation.science.arms import arm_of, recipe_of, summary_of, waiting_seeds
from foundation.science.records import Model, Store, TaskAnswers
from foundation.science.refusals import refuse_doubles, refuse_identical, refuse_renamed_foundations
from foundation.task.results import PREDICTIONS_FILE

_KEYS = ("task", "split", "seed", "foundation", "sharing", "arm", "data_shard")
_NEEDED = ("task", "split", "item_id", "gold", "predicted", "logits", "seed", "foundation", "sharing", "arm", "labels")
_OPTIONAL = ("data_shard", "group")
# What is kept of every row; the rest is the same for all rows of a model.
_BY_ROW = ("item_id", "group", "gold", "predicted", "logits")
_NAMED_ROWS = 5


@dataclass(slots=True)
class _Run:
    """Rows of one model, as they lie in a file."""

    keys: dict[str, Any]
    rows: pa.Table
    path: Path

    def __str__(self) -> str:
        return f"{self.keys['arm']} seed {self.keys['seed']} ({self.path})"


def gather(runs: Iterable[str], *, only_tasks: list[str] | None = None) -> Store:
    """Read every predictions.parquet below these folders (or these files), and check them. Globs may be used.

    Raises:
        UserError: nothing is there; no task is called as one of only_tasks; models of a task differ in split, items, gold
            labels or label names; an item comes twice; a model is there twice; one foundation has two names, or one name two
            foundations.
    """
    by_task: dict[str, list[_Run]] = {}
    for path in find_files(runs):
        for run in _runs_of(path):
            known = by_task.setdefault(run.keys["task"], [])
            if not only_tasks or run.keys["task"] in only_tasks:
                known.append(run)
    if not by_task:
        raise UserError(
            f"no predictions below {', '.join(runs)}: make them with  python -m foundation.finetune task=sst2  "
            "or name other folders with runs=[FOLDER,…]"
        )
    if unknown := [name for name in only_tasks or [] if name not in by_task]:
        raise UserError(f"tasks has {', '.join(unknown)}, and there is only {', '.join(sorted(by_task))}")
    notes: list[str] = []
    tasks = {}
    for name, found in sorted(by_task.items()):
        if found and (answers := _task(name, found, notes)):
            tasks[name] = answers
    refuse_renamed_foundations(tasks.values())
    return Store(tasks, notes)


def find_files(runs: Iterable[str]) -> list[Path]:
    """Files of arms; of a seed only where its arm has none (it was interrupted)."""
    found: set[Path] = set()
    for run in runs:
        starts = [Path(start) for start in sorted(glob(run, recursive=True))]
        for start in starts:
            found |= {start} if start.suffix == ".parquet" else set(start.rglob(PREDICTIONS_FILE))
    resolved = {path.resolve(): path for path in sorted(found)}
    arms = {path for path in resolved if not path.parent.name.startswith("seed-")}
    seeds = {path for path in resolved if path not in arms and path.parent.parent / PREDICTIONS_FILE not in arms}
    return [resolved[path] for path in sorted(arms | seeds)]


def _runs_of(path: Path) -> list[_Run]:
    try:
        there = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[name for name in (*_NEEDED, *_OPTIONAL) if name in there])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}): make it again with foundation.finetune") from None
    if missing := [name for name in _NEEDED if name not in table.column_names]:
        raise UserError(f"{path} has no column {', '.join(missing)}: it is not what foundation.finetune writes")
    if "data_shard" not in table.column_names:
        table = table.append_column("data_shard", pa.array(["1/1"] * len(table)))
    codes = np.zeros(len(table), dtype=np.int64)
    for key in _KEYS:
        encoded = table[key].combine_chunks().dictionary_encode()
        codes = codes * max(1, len(encoded.dictionary)) + encoded.indices.to_numpy()
    kinds, first = np.unique(codes, return_index=True)
    rows = table.select([name for name in _BY_ROW if name in table.column_names])
    return [
        _Run(
            {key: table[key][int(start)].as_py() for key in (*_KEYS, "labels")},
            rows.filter(pa.array(codes == kind)),
            path,
        )
        for kind, start in sorted(zip(kinds, first, strict=True), key=lambda pair: pair[1])
    ]


def _task(name: str, runs: list[_Run], notes: list[str]) -> TaskAnswers | None:
    reference = runs[0]
    labels = reference.keys["labels"]
    if not labels and bool((reference.rows["gold"].to_numpy() == reference.rows["gold"][0].as_py()).all()):
        notes.append(f"{name} is left out: its answers are neither labels nor numbers")
        return None
    if problems := [problem for run in runs for problem in _problems(run, reference, labels)]:
        more = f" (and {len(problems) - _NAMED_ROWS} more)" if len(problems) > _NAMED_ROWS else ""
        raise UserError(f"task {name} cannot be analysed: {'; '.join(problems[:_NAMED_ROWS])}{more}")
    item_ids = reference.rows["item_id"].combine_chunks()
    orders = [pc.index_in(item_ids, value_set=run.rows["item_id"].combine_chunks()).to_numpy() for run in runs]
    arms: dict[Path, list[_Run]] = {}
    for run in runs:
        arms.setdefault(arm_of(run.path), []).append(run)
    _incomplete(name, arms, notes)
    summaries = {arm: summary_of(arm) for arm in arms}
    recipes = {arm: recipe_of(arm) for arm in arms}
    models = [_model(run, summaries[arm_of(run.path)], recipes[arm_of(run.path)]) for run in runs]
    refuse_doubles(name, models)
    logits = np.stack([_logits(run)[order] for run, order in zip(runs, orders, strict=True)])
    refuse_identical(name, models, logits)
    column = "group" if "group" in reference.rows.column_names else "item_id"
    clusters = reference.rows[column].combine_chunks().dictionary_encode()
    return TaskAnswers(
        name=name,
        split=reference.keys["split"],
        labels=labels,
        item_ids=item_ids.to_pylist(),
        cluster_N=clusters.indices.to_numpy().astype(np.int64),
        clusters=clusters.dictionary.to_pylist(),
        gold_N=reference.rows["gold"].to_numpy(),
        predicted_MN=np.stack([r.rows["predicted"].to_numpy()[order] for r, order in zip(runs, orders, strict=True)]),
        logits_MNK=logits,
        models=models,
        # One with the baseline, which an interrupted arm does not know, if there is one.
        summary=max(summaries.values(), key=lambda summary: ("baseline" in summary, bool(summary))),
    )


def _problems(run: _Run, reference: _Run, labels: list[str]) -> list[str]:
    """How a model's rows differ from those of the task's first."""
    if run.keys["split"] != reference.keys["split"]:
        return [f"{run} answered split {run.keys['split']!r}, {reference} split {reference.keys['split']!r}"]
    if (own := run.keys["labels"]) != labels:
        return [f"{run} has the labels {own}, {reference} has {labels}"]
    ids, known = run.rows["item_id"].combine_chunks(), reference.rows["item_id"].combine_chunks()
    counts = pc.value_counts(ids)
    twice = [entry["values"] for entry in counts.to_pylist() if entry["counts"] > 1] if len(counts) < len(ids) else []
    if twice:
        return [f"{run} answers {_rows(twice)} more than once"]
    found = []
    place = pc.index_in(known, value_set=ids)
    if lacking := known.filter(pc.is_null(place)).to_pylist():
        found.append(f"{run} lacks {_rows(lacking)}, which {reference} answered")
    if extra := ids.filter(pc.is_null(pc.index_in(ids, value_set=known))).to_pylist():
        found.append(f"{run} answered {_rows(extra)}, which {reference} did not")
    if found:
        return found
    differs = run.rows["gold"].to_numpy()[place.to_numpy()] != reference.rows["gold"].to_numpy()
    if differs.any():
        found.append(f"{run} and {reference} have different gold labels for {_rows(known.filter(differs).to_pylist())}")
    if not np.isfinite(_logits(run)).all():
        bad = ids.filter(pa.array(~np.isfinite(_logits(run)).all(axis=1))).to_pylist()
        found.append(f"{run} has logits that are no numbers for {_rows(bad)}")
    return found


def _rows(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED_ROWS} more" if len(ids) > _NAMED_ROWS else ""
    return f"item{'s' * (len(ids) > 1)} {', '.join(map(str, ids[:_NAMED_ROWS]))}{more}"


def _logits(run: _Run) -> NDArray[np.float32]:
    column = run.rows["logits"].combine_chunks()
    flat: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(column), -1)


def _incomplete(name: str, arms: dict[Path, list[_Run]], notes: list[str]) -> None:
    """Say which arms were interrupted, and what of them is taken."""
    for arm, runs in arms.items():
        seeds = sorted(run.keys["seed"] for run in runs)
        if not (arm / PREDICTIONS_FILE).is_file() and any(run.path.parent != arm for run in runs):
            taken = f"its seed {seeds[0]} is" if len(seeds) == 1 else f"its seeds {', '.join(map(str, seeds))} are"
            notes.append(f"{name}: {runs[0].keys['arm']} was interrupted, and {taken} taken as what there is ({arm})")
        elif waiting := waiting_seeds(arm, set(seeds)):
            left = f"seed{'s' * (len(waiting) > 1)} {', '.join(map(str, waiting))}"
            notes.append(
                f"{name}: {runs[0].keys['arm']} has not collected {left}: the same foundation.finetune does ({arm})"
            )


def _model(run: _Run, summary: dict[str, Any], recipe: dict[str, Any]) -> Model:
    name, _, variant = run.keys["arm"].partition("/")
    shard = run.keys["data_shard"]
    # After another task an encoder is no foundation's any more; what it goes back to is.
    start = str(summary.get("fingerprints", {}).get("start", run.keys["foundation"]))
    is_scratch = start.startswith("scratch")
    return Model(
        task=run.keys["task"],
        arm=run.keys["arm"],
        name=name,
        variant=variant.removesuffix(f"-shard-{shard.replace('/', '-of-')}") or run.keys["sharing"],
        sharing=run.keys["sharing"],
        foundation=run.keys["foundation"] if is_scratch else start.partition("-after-")[0],
        seed=run.keys["seed"],
        data_shard=shard,
        folder=arm_of(run.path),
        is_scratch=is_scratch,
        scores=next((seed for seed in summary.get("seeds", []) if seed["seed"] == run.keys["seed"]), {}),
        settings=summary.get("config", {}),
        recipe=recipe,
    )
