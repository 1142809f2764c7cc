"""What a run answered, item by item, as a Parquet file: every score and every comparison is a function of it.

Letters: N items · K outputs
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.files import write_atomically

# Columns that say which run a row is of.
_ORIGIN = ("task", "split", "seed", "foundation", "sharing", "arm", "data_shard")
# data_shard of a run that saw no part but all of the training rows.
ALL_ROWS = "1/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What a model answered beside what is right, an item a decision: the label of a text or of a word, a choice.

    labels: K names, or none for regression. gold, predicted: (N,) class numbers, or values for regression. logits: (N, K); for
    regression (N, 1), the values. probabilities: (N, K), or (N, 0) for regression.
    groups: items of one group, such as the words of a sentence, are not independent; none: every item is a group.
    credit: (N,) what each answer is worth, from 0 to 1; None: 1 where it is the right one.
    gold_text, predicted_text: answers that are texts.
    """

    labels: list[str]
    item_ids: list[str]
    gold: NDArray[np.float64]
    predicted: NDArray[np.float64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    groups: list[str] = field(default_factory=list)
    credit: NDArray[np.float64] | None = None
    gold_text: list[str] | None = None
    predicted_text: list[str] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(set(self.groups)) or len(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions(Decisions):
    """One run's answers to one split, and what run it was.

    foundation: fingerprint of the encoder that the run began with. arm: its name, as in small/full or small/scratch.
    data_shard: i/k, the part of the training rows that the run saw.
    """

    task: str
    split: str
    seed: int
    foundation: str
    sharing: str
    arm: str
    data_shard: str = ALL_ROWS

    @classmethod
    def of(cls, found: Decisions, **origin: Any) -> "Predictions":
        """Decisions, with where they come from: the fields that Predictions adds."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(Decisions)}, **origin)


def write_predictions(path: Path, runs: Sequence[Predictions]) -> None:
    """Write the answers of some runs, a row an item and run."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for run in runs:
        columns = {
            "task": [run.task] * len(run),
            "split": [run.split] * len(run),
            "item_id": run.item_ids,
            "group": run.groups or run.item_ids,
            "gold": run.gold,
            "predicted": run.predicted,
            "credit": _credit(run),
            "gold_label": run.gold_text or _names(run.gold, run.labels),
            "predicted_label": run.predicted_text or _names(run.predicted, run.labels),
            "logits": list(run.logits),
            "probabilities": list(run.probabilities),
            "seed": [run.seed] * len(run),
            "foundation": [run.foundation] * len(run),
            "sharing": [run.sharing] * len(run),
            "arm": [run.arm] * len(run),
            "data_shard": [run.data_shard] * len(run),
            "labels": [run.labels] * len(run),
        }
        tables.append(pa.table(columns, schema=_schema()))
    with write_atomically(path) as file:
        parquet.write_table(pa.concat_tables(tables), file)


def _credit(run: Decisions) -> Any:
    """Nothing for regression, where no answer is right to the letter."""
    if run.credit is not None:
        return run.credit
    return (run.gold == run.predicted).astype(np.float64) if run.labels else [None] * len(run)


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            ("task", text),
            ("split", text),
            ("item_id", text),
            ("group", text),
            ("gold", number),
            ("predicted", number),
            ("credit", number),
            ("gold_label", text),
            ("predicted_label", text),
            ("logits", pa.list_(pa.float32())),
            ("probabilities", pa.list_(number)),
            ("seed", pa.int64()),
            ("foundation", text),
            ("sharing", text),
            ("arm", text),
            ("data_shard", text),
            ("labels", pa.list_(text)),
        ]
    )


def _names(numbers: NDArray[np.float64], labels: list[str]) -> list[str | None]:
    return [labels[int(number)] if labels else None for number in numbers]


def read_predictions(path: Path) -> list[Predictions]:
    """The runs of a file, in the order they were written."""
    from pyarrow import parquet

    if not path.is_file():
        raise UserError(f"no predictions at {path}: make them with python -m foundation.finetune")
    table = parquet.read_table(path)
    rows_of: dict[tuple[Any, ...], list[int]] = {}
    for number, origin in enumerate(zip(*(table[key].to_pylist() for key in _ORIGIN), strict=True)):
        rows_of.setdefault(origin, []).append(number)
    return [_run(table.take(rows)) for rows in rows_of.values()]


def _run(table: Any) -> Predictions:
    """Of a pyarrow table that holds one run."""
    labels = table["labels"][0].as_py()
    gold, predicted = (table[name].to_numpy() for name in ("gold", "predicted"))
    texts = {"gold": table["gold_label"].to_pylist(), "predicted": table["predicted_label"].to_pylist()}
    # Names of labels say nothing new.
    names = {"gold": _names(gold, labels), "predicted": _names(predicted, labels)}
    return Predictions(
        **{key: table[key][0].as_py() for key in _ORIGIN},
        labels=labels,
        item_ids=table["item_id"].to_pylist(),
        groups=table["group"].to_pylist(),
        gold=gold,
        predicted=predicted,
        credit=table["credit"].to_numpy() if labels else None,
        logits=_matrix(table["logits"]),
        probabilities=_matrix(table["probabilities"]),
        gold_text=None if texts["gold"] == names["gold"] else texts["gold"],
        predicted_text=None if texts["predicted"] == names["predicted"] else texts["predicted"],
    )


def _matrix(column: Any) -> NDArray[Any]:
    """(N, K) of a column of lists of one length."""
    matrix: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return matrix
