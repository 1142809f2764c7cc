"""From a task's description to its examples: finds the data, splits them where nobody did, and checks every label."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.task.config import Metric, Source, TaskConfig
from foundation.task.packaged import packaged_rows
from foundation.task.readers import Row, read_hub, read_rows
from foundation.task.splits import is_held_out

Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float64]

# A label column with more labels than this, and one for every second row, is a number or an identifier.
_MANY_LABELS = 50


@dataclass(frozen=True, slots=True)
class Examples:
    """One split. ids name the items for good, whichever model sees them; labels are class numbers or raw values."""

    ids: list[str]
    text: list[str]
    text_pair: list[str] | None
    labels: Labels

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """These rows, in this order."""
        pair = None if self.text_pair is None else [self.text_pair[row] for row in rows]
        return Examples([self.ids[row] for row in rows], [self.text[row] for row in rows], pair, self.labels[rows])


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's examples. labels: none for regression. notes: for the user, what was decided without being asked."""

    train: Examples
    dev: Examples
    labels: list[str]
    notes: list[str]

    def fingerprint(self) -> str:
        """16 hex digits that stand for every id, text and label of both splits."""
        digest = hashlib.blake2b(digest_size=8)
        for split in (self.train, self.dev):
            pairs = split.text_pair or [""] * len(split)
            for item in zip(split.ids, split.text, pairs, split.labels.tolist(), strict=True):
                digest.update(repr(item).encode())
            digest.update(b"\n")
        return digest.hexdigest()


@dataclass(slots=True)
class _Side:
    """Rows of one split before their labels are understood; ids and rows go together."""

    ids: list[str]
    rows: list[Row]


def load_task(cfg: TaskConfig, runs_dir: Path) -> TaskData:
    """Read, split and check a task's data; what is wrong with them raises UserError with its place."""
    cfg.check()
    train, dev, notes = _find(cfg, runs_dir)
    for side, name in ((train, "training"), (dev, "reported")):
        if not side.rows:
            raise UserError(f"task {cfg.name} has no rows in its {name} split: check that its files are not empty")
    names = [] if cfg.is_regression else _label_names(cfg, train.rows)
    if cfg.primary is Metric.f1 and len(names) != 2:
        raise UserError(
            f"task.metric=f1 is that of the second of two labels, and there are {len(names)}: choose f1_macro"
        )
    return TaskData(_examples(cfg, train, names), _examples(cfg, dev, names), names, notes)


def _find(cfg: TaskConfig, runs_dir: Path) -> tuple[_Side, _Side, list[str]]:
    if cfg.source is not Source.files:
        rows = list(packaged_rows(cfg.source, runs_dir))
        side_of = [row.fields["split"] == "dev" for row in rows]
        return *_split(rows, side_of), [
            f"{cfg.name}: split here, about a fifth for dev, by what must not be on both sides"
        ]
    folder = _local_folder(cfg)
    if folder is None:
        return _from_hub(cfg)
    rows = _read(cfg, folder / str(cfg.train))
    notes = [f"{cfg.name}: read from {folder}"]
    if cfg.dev is not None:
        return _numbered("train", rows), _numbered("dev", _read(cfg, folder / cfg.dev)), notes
    side_of = [
        is_held_out("\t".join(row.fields.get(c or "", "") for c in (cfg.text, cfg.text_pair)), cfg.dev_share)
        for row in rows
    ]
    notes.append(
        f"{cfg.name}: no task.dev is named, so {sum(side_of):,} of {len(rows):,} rows, chosen by a hash of their text, "
        "are held out and reported on"
    )
    return *_split(rows, side_of), notes


def _local_folder(cfg: TaskConfig) -> Path | None:
    """The first folder of cfg.local that holds the training file; None: ask the hub."""
    if cfg.train is None:
        return None
    for folder in cfg.local:
        if (Path(folder) / cfg.train).is_file():
            return Path(folder)
    if cfg.hub is None:
        looked = ", ".join(str(Path(folder) / cfg.train) for folder in cfg.local)
        raise UserError(f"no file at {looked} (seen from {Path.cwd()}): name the training file with task.train=FILE")
    return None


def _from_hub(cfg: TaskConfig) -> tuple[_Side, _Side, list[str]]:
    looked = ", ".join(str(Path(folder) / cfg.train) for folder in cfg.local) if cfg.train else "nothing"
    notes = [f"{cfg.name}: read from the Hugging Face hub ({cfg.hub}); looked locally for {looked}"]
    try:
        train, dev = (list(read_hub(str(cfg.hub), cfg.hub_config, split)) for split in (cfg.hub_train, cfg.hub_dev))
    except UserError as error:
        raise UserError(f"{error} (looked for {looked})") from None
    return _numbered("train", train), _numbered("dev", dev), notes


def _read(cfg: TaskConfig, path: Path) -> list[Row]:
    rows = read_rows(str(path), columns=cfg.columns, has_header=cfg.has_header, literal_quotes=cfg.literal_quotes)
    return list(rows)


def _numbered(name: str, rows: list[Row]) -> _Side:
    return _Side([f"{name}-{number}" for number in range(len(rows))], rows)


def _split(rows: list[Row], side_of: list[bool]) -> tuple[_Side, _Side]:
    """Rows whose side is False, and those whose side is True; ids number them all together."""
    whole = _numbered("row", rows)
    sides = (_Side([], []), _Side([], []))
    for name, row, is_dev in zip(whole.ids, rows, side_of, strict=True):
        sides[is_dev].ids.append(name)
        sides[is_dev].rows.append(row)
    return sides


def _label_names(cfg: TaskConfig, rows: Iterable[Row]) -> list[str]:
    """The task's labels: as configured, else those of the training rows, sorted."""
    if cfg.labels:
        return list(cfg.labels)
    written = [row.get(cfg.label).strip() for row in rows]
    names = sorted(set(written))
    if len(names) < 2:
        raise UserError(
            f"every training row of task {cfg.name} has the label {names[0]!r}: there is nothing to tell apart"
        )
    if len(names) > _MANY_LABELS and len(names) > len(written) / 2:
        raise UserError(
            f"column {cfg.label!r} has {len(names):,} different labels in {len(written):,} rows: "
            "if it holds numbers set task.kind=regression, else name another column with task.label=COLUMN"
        )
    return names


def _examples(cfg: TaskConfig, side: _Side, names: list[str]) -> Examples:
    text = [_text(row, cfg.text) for row in side.rows]
    pair = None if cfg.text_pair is None else [_text(row, cfg.text_pair) for row in side.rows]
    written = [row.get(cfg.label).strip() for row in side.rows]
    if cfg.is_regression:
        numbers = [_number(value, row.place) for value, row in zip(written, side.rows, strict=True)]
        return Examples(side.ids, text, pair, np.array(numbers, dtype=np.float64))
    classes = {name: number for number, name in enumerate(names)}
    classes |= {name: number for number, name in enumerate(cfg.spelled)}
    unknown = [number for number, value in enumerate(written) if value not in classes]
    if unknown:
        which = ", ".join(sorted({repr(written[number]) for number in unknown}))
        known, there = ("task.labels", "add it there") if cfg.labels else ("the training data", "add rows with it")
        raise UserError(
            f"{side.rows[unknown[0]].place}: label {which} is not in {known} ({', '.join(cfg.spelled or names)}): "
            f"{there}, or drop the {len(unknown):,} rows that have it"
        )
    return Examples(side.ids, text, pair, np.array([classes[value] for value in written], dtype=np.int64))


def _text(row: Row, column: str) -> str:
    text = row.get(column)
    if not text.strip():
        raise UserError(f"{row.place}: column {column!r} is empty: give the row a text, or drop it")
    return text


def _number(written: str, place: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{place}: label {written!r} is not a number: mend it, or set task.kind=classification")
    return number
