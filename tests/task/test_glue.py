"""GLUE's files as they lie in data/glue, read by the shipped task files alone; skipped where nobody has laid them."""

from pathlib import Path

import numpy as np
import pytest

from foundation.core.plain import from_plain
from foundation.task.config import TaskConfig
from foundation.task.examples import TaskData
from foundation.task.load import load_task

PROJECT = Path(__file__).parents[2]
# data/ is where a user lays data, the other where this project's own machines have them.
DATA = next((folder for folder in (PROJECT / "data", PROJECT.parent / "shared" / "data") if folder.is_dir()), None)


def task(name: str) -> TaskConfig:
    import yaml

    content = yaml.safe_load((PROJECT / "conf" / "task" / f"{name}.yaml").read_text())
    return from_plain(TaskConfig, content, name)


def load(name: str) -> TaskData:
    cfg = task(name)
    if DATA is None or not (DATA.parent / cfg.local[0].replace("data", DATA.name, 1)).is_dir():
        pytest.skip(f"no {cfg.local[0]}: lay GLUE's files there, or link data/ to a folder that has them")
    cfg.local = [str(DATA.parent / cfg.local[0].replace("data", DATA.name, 1))]
    return load_task(cfg, PROJECT / "runs")


@pytest.mark.parametrize(
    ("name", "n_train", "n_dev", "dev_labels"),
    [
        ("sst2", 67_349, 872, [428, 444]),
        ("cola", 8_551, 1_043, [322, 721]),
        ("mrpc", 3_668, 408, [129, 279]),
        ("rte", 2_490, 277, [146, 131]),
        ("stsb", 5_749, 1_500, None),
    ],
)
def test_layout_gives_the_documented_counts(name: str, n_train: int, n_dev: int, dev_labels: list[int] | None) -> None:
    data = load(name)
    assert (len(data.train), len(data.dev)) == (n_train, n_dev)
    if dev_labels is not None:
        assert np.bincount(data.dev.labels.astype(np.int64)).tolist() == dev_labels
    else:
        assert data.dev.labels.min() == 0
        assert data.dev.labels.max() == 5


def test_texts_are_whole() -> None:
    assert load("mrpc").train.text[0].startswith('Amrozi accused his brother , whom he called " the witness "')
    assert load("cola").dev.text[0] == "The sailors rode the breeze clear of the rocks."
    stsb = load("stsb")
    assert stsb.train.text_pair is not None
    assert (stsb.train.text[1], stsb.train.text_pair[1], stsb.train.labels[1]) == (
        "A man is playing a large flute.",
        "A man is playing a flute.",
        3.8,
    )
