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
    rows = parquet.read_table(path).to_pylist()
    keys = ("task", "split", "seed", "foundation", "sharing", "arm", "data_shard")
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [_run(items, keys) for items in runs.values()]


def _run(items: list[dict[str, Any]], keys: Sequence[str]) -> Predictions:
    labels = items[0]["labels"]
    columns: dict[str, Any] = {
        name: np.array([item[name] for item in items], dtype=np.float64)
        for name in ("gold", "predicted", "probabilities")
    }
    texts = {name: [item[f"{name}_label"] for item in items] for name in ("gold", "predicted")}
    # Names of labels say nothing new.
    own: dict[str, Any] = {
        f"{name}_text": None if said == _names(columns[name], labels) else said for name, said in texts.items()
    }
    return Predictions(
        **{key: items[0][key] for key in keys},
        **columns,
        **own,
        labels=labels,
        item_ids=[item["item_id"] for item in items],
        groups=[item["group"] for item in items],
        credit=np.array([item["credit"] for item in items]) if labels else None,
        logits=np.array([item["logits"] for item in items], dtype=np.float32),
    )
