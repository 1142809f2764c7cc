"""What a run answered, item by item, as a Parquet file: every score and every comparison is a function of it.

Letters: N items · K outputs
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.files import write_atomically

# data_shard of a run that saw no part but all of the training rows.
ALL_ROWS = "1/1"


@dataclass(frozen=True, slots=True)
class Predictions:
    """One run's answers to one split, and what run it was.

    gold, predicted: (N,) class numbers, or values for regression. logits: (N, K); for regression (N, 1), the values.
    probabilities: (N, K), or (N, 0) for regression. labels: K names, or none for regression.
    foundation: fingerprint of the encoder that the run began with. arm: its name, as in small/full or small/scratch.
    data_shard: i/k, the part of the training rows that the run saw.
    """

    task: str
    split: str
    seed: int
    foundation: str
    sharing: str
    arm: str
    labels: list[str]
    item_ids: list[str]
    gold: NDArray[np.float64]
    predicted: NDArray[np.float64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    data_shard: str = ALL_ROWS

    def __len__(self) -> int:
        return len(self.item_ids)


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
            "gold": run.gold,
            "predicted": run.predicted,
            "gold_label": _names(run.gold, run.labels),
            "predicted_label": _names(run.predicted, run.labels),
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


def _schema() -> Any:
    import pyarrow as pa

    words = ("task", "split", "item_id", "gold_label", "predicted_label", "foundation", "sharing", "arm", "data_shard")
    kinds = {name: pa.string() for name in words} | {
        "gold": pa.float64(),
        "predicted": pa.float64(),
        "seed": pa.int64(),
    }
    kinds |= {
        "logits": pa.list_(pa.float32()),
        "probabilities": pa.list_(pa.float64()),
        "labels": pa.list_(pa.string()),
    }
    order = (
        "task",
        "split",
        "item_id",
        "gold",
        "predicted",
        "gold_label",
        "predicted_label",
        "logits",
        "probabilities",
    )
    return pa.schema(
        [(name, kinds[name]) for name in (*order, "seed", "foundation", "sharing", "arm", "data_shard", "labels")]
    )


def _names(numbers: NDArray[np.float64], labels: list[str]) -> list[str | None]:
    return [labels[int(number)] if labels else None for number in numbers]


def read_predictions(path: Path) -> list[Predictions]:
    """The runs of a file, in the order they were written."""
    from pyarrow import parquet

    if not path.is_file():
        raise UserError(f"no predictions at {path}: make them with python -m foundation.finetune")
    rows = parquet.read_table(path).to_pylist()
    keys = ("task", "split", "seed", "foundation", "sharing", "arm", "data_shard")
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        Predictions(
            **{key: items[0][key] for key in keys},
            labels=items[0]["labels"],
            item_ids=[item["item_id"] for item in items],
            gold=np.array([item["gold"] for item in items]),
            predicted=np.array([item["predicted"] for item in items]),
            logits=np.array([item["logits"] for item in items], dtype=np.float32),
            probabilities=np.array([item["probabilities"] for item in items], dtype=np.float64),
        )
        for items in runs.values()
    ]
