"""From a task's description to its examples: finds the data, splits them where nobody did, and checks every label."""

from pathlib import Path

from foundation.core.errors import UserError
from foundation.task.config import Metric, Source, TaskConfig
from foundation.task.examples import Side, TaskData
from foundation.task.kinds.build import build_kind
from foundation.task.packaged import packaged_rows
from foundation.task.readers import read_hub, read_rows
from foundation.task.row import Row
from foundation.task.splits import is_held_out

# So many labels are named in a note.
_TOLD_LABELS = 20


def load_task(cfg: TaskConfig, runs_dir: Path) -> TaskData:
    """Read, split and check a task's data; what is wrong with them raises UserError with its place."""
    cfg.check()
    train, dev, notes = _find(cfg, runs_dir)
    for side, name in ((train, "training"), (dev, "reported")):
        if not side.rows:
            raise UserError(f"task {cfg.name} has no rows in its {name} split: check that its files are not empty")
    kind = build_kind(cfg)
    names = kind.label_names(train.rows)
    if cfg.primary is Metric.f1 and len(names) != 2:
        raise UserError(
            f"task.metric=f1 is that of the second of two labels, and there are {len(names)}: choose f1_macro"
        )
    splits = [kind.labelled(kind.inputs(side.ids, side.rows), side.rows, names) for side in (train, dev)]
    if not cfg.labels:
        notes += _labels_found(cfg, names, kind.label_counts(splits[0], len(names)).tolist())
    notes += _rows_of_both(cfg.name, train, dev, kind.held_out_by())
    return TaskData(splits[0], splits[1], names, notes)


def _labels_found(cfg: TaskConfig, names: list[str], counts: list[int]) -> list[str]:
    """A note on the labels that nobody named, with how many training rows or words have each."""
    if not counts:
        return []
    told = [f"{name} ({n:,})" for name, n in zip(names, counts, strict=True)]
    rest = [f"and {len(told) - _TOLD_LABELS} more"] if len(told) > _TOLD_LABELS else []
    positive = f"; F1 is that of {names[1]}" if cfg.primary is Metric.f1 else ""
    return [f"{cfg.name}: labels: {', '.join([*told[:_TOLD_LABELS], *rest])}{positive}"]


def _rows_of_both(task: str, train: Side, dev: Side, columns: list[str]) -> list[str]:
    """A note, where there are any, on reported rows whose text a model has seen with its answer; our own split has none."""
    seen = {tuple(row.get(column) for column in columns) for row in train.rows}
    n_seen = sum(tuple(row.get(column) for column in columns) in seen for row in dev.rows)
    what = " and ".join(columns)
    return (
        [f"{task}: {n_seen:,} of {len(dev.rows):,} reported rows have the same {what} as a training row"]
        if n_seen
        else []
    )


def _find(cfg: TaskConfig, runs_dir: Path) -> tuple[Side, Side, list[str]]:
    if cfg.source is not Source.files:
        rows = list(packaged_rows(cfg.source, runs_dir))
        side_of = [row.fields["split"] == "dev" for row in rows]
        return *_split(rows, side_of), [
            f"{cfg.name}: split here, about a fifth for dev, by what must not be on both sides"
        ]
    folder = _local_folder(cfg)
    if folder is None:
        return _from_hub(cfg)
    rows = _read(cfg, place_of(folder, str(cfg.train)))
    notes = [f"{cfg.name}: read from {folder}"]
    if cfg.dev is not None:
        return _numbered("train", rows), _numbered("dev", _read(cfg, place_of(folder, cfg.dev))), notes
    columns = build_kind(cfg).held_out_by()
    side_of = [is_held_out("\t".join(row.get(c) for c in columns), cfg.dev_share) for row in rows]
    if rows and sum(side_of) in (0, len(rows)):
        raise UserError(
            f"task {cfg.name}: by a hash of their text, task.dev_share={cfg.dev_share} holds out {sum(side_of):,} of "
            f"{len(rows):,} rows, and both sides need some: {'lower' if all(side_of) else 'raise'} it, or name rows to report "
            "on with task.dev=FILE"
        )
    notes.append(
        f"{cfg.name}: no task.dev is named, so {sum(side_of):,} of {len(rows):,} rows, chosen by a hash of their text, "
        "are held out and reported on"
    )
    return *_split(rows, side_of), notes


def place_of(folder: str | Path, file: str) -> Path:
    """Where a file of a folder is, either of them named from one's home (~) perhaps."""
    return Path(folder).expanduser() / Path(file).expanduser()


def _local_folder(cfg: TaskConfig) -> str | None:
    """The first folder of cfg.local that holds the training file; None: ask the hub."""
    if cfg.train is None:
        return None
    for folder in cfg.local:
        if place_of(folder, cfg.train).is_file():
            return folder
    if cfg.hub is None:
        looked = ", ".join(str(place_of(folder, cfg.train)) for folder in cfg.local)
        raise UserError(f"no file at {looked} (seen from {Path.cwd()}): name the training file with task.train=FILE")
    return None


def _from_hub(cfg: TaskConfig) -> tuple[Side, Side, list[str]]:
    looked = ", ".join(str(place_of(folder, cfg.train)) for folder in cfg.local) if cfg.train else "nothing"
    notes = [f"{cfg.name}: read from the Hugging Face hub ({cfg.hub}); looked locally for {looked}"]
    try:
        train, dev = (
            list(read_hub(str(cfg.hub), cfg.hub_config, split, cfg.hub_revision))
            for split in (cfg.hub_train, cfg.hub_dev)
        )
    except UserError as error:
        raise UserError(f"{error} (looked for {looked})") from None
    train, dev = (
        [
            Row({**row.fields, **{ours: row.get(theirs) for ours, theirs in cfg.hub_columns.items()}}, row.place)
            for row in rows
        ]
        for rows in (train, dev)
    )
    return _numbered("train", train), _numbered("dev", dev), notes


def _read(cfg: TaskConfig, path: Path) -> list[Row]:
    return list(
        read_rows(
            str(path),
            file_format=None if cfg.format is None else cfg.format.value,
            columns=cfg.columns,
            has_header=cfg.has_header,
            literal_quotes=cfg.literal_quotes,
        )
    )


def _numbered(name: str, rows: list[Row]) -> Side:
    return Side([f"{name}-{number}" for number in range(len(rows))], rows)


def _split(rows: list[Row], side_of: list[bool]) -> tuple[Side, Side]:
    """Rows whose side is False, and those whose side is True; ids number them all together."""
    whole = _numbered("row", rows)
    sides = (Side([], []), Side([], []))
    for name, row, is_dev in zip(whole.ids, rows, side_of, strict=True):
        sides[is_dev].ids.append(name)
        sides[is_dev].rows.append(row)
    return sides
