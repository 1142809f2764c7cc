"""What is written is what is read."""

from pathlib import Path

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.task.predictions import Predictions, read_predictions, write_predictions


def run(seed: int, labels: list[str]) -> Predictions:
    logits = np.array([[0.5, -1], [2, 3], [0, 0.1]], dtype=np.float32)[:, : len(labels) or 1]
    return Predictions(
        task="t",
        split="dev",
        seed=seed,
        foundation="f00",
        sharing="full",
        arm="small/full",
        labels=labels,
        item_ids=["dev-0", "dev-1", "dev-2"],
        gold=np.array([1.0, 0, 1]),
        predicted=np.array([0.0, 1, 1]),
        logits=logits,
        probabilities=np.abs(logits.astype(np.float64))[:, : len(labels)],
        groups=["dev-0", "dev-0", "dev-2"],
        credit=np.array([0, 0.5, 1]) if labels else None,
    )


@pytest.mark.parametrize("labels", [["no", "yes"], []])
def test_predictions_of_several_runs_come_back(tmp_path: Path, labels: list[str]) -> None:
    path = tmp_path / "predictions.parquet"
    written = [run(seed, labels) for seed in (0, 1)]
    write_predictions(path, written)
    for before, after in zip(written, read_predictions(path), strict=True):
        for name in Predictions.__slots__:
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert after.logits.dtype == np.float32
        assert after.probabilities.shape == (3, len(labels))


def test_the_file_names_labels_for_whoever_reads_it_without_us(tmp_path: Path) -> None:
    from pyarrow import parquet

    write_predictions(tmp_path / "p.parquet", [run(0, ["no", "yes"])])
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["item_id"], row["gold_label"], row["predicted_label"]) for row in rows] == [
        ("dev-0", "yes", "no"),
        ("dev-1", "no", "yes"),
        ("dev-2", "yes", "yes"),
    ]


def test_no_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no predictions at .*: make them with python -m foundation.finetune"):
        read_predictions(tmp_path / "none.parquet")
