import json

import pytest
from matplotlib.image import imread

from foundation.core.plots import plot_curves


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def full_rows(n):
    return [
        {
            "step": step,
            "train/loss": 8 / step**0.2,
            "train/mlm_loss": 7 / step**0.2,
            "optim/lr": 1e-3 * step / n,
            "optim/grad_norm": 1 / step,
            "speed/tokens_per_s": 15000.0 + step,
            **(
                {"eval/mlm_loss": 7 / step**0.2, "eval/nsp_accuracy": 0.6, "eval/words_loss": 7.9}
                | {"eval/detection_loss": 0.2}
                if step % 10 == 0
                else {}
            ),
        }
        for step in range(1, n + 1)
    ]


def test_a_whole_run_gives_a_picture_of_everything(tmp_path):
    written = plot_curves(write(tmp_path / "metrics.jsonl", full_rows(50)), tmp_path / "plots", unigram_nats=6.5)
    names = ["detection_loss.png", "grad_norm.png", "learning_rate.png", "loss.png", "pair_accuracy.png"]
    names += ["tokens_per_s.png", "total_loss.png", "words_loss.png"]
    assert sorted(path.name for path in written) == names
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == names
    for path in written:
        height, width, _ = imread(path).shape
        assert (height, width) == (540, 900)


def test_what_was_not_logged_is_not_drawn(tmp_path):
    metrics = write(tmp_path / "metrics.jsonl", [{"step": 1, "train/mlm_loss": 2.0}, {"step": 2, "eval/mlm_loss": 1.5}])
    assert [path.name for path in plot_curves(metrics, tmp_path)] == ["loss.png"]


def test_the_level_of_no_context_is_drawn_into_the_loss(tmp_path):
    metrics = write(
        tmp_path / "metrics.jsonl", [{"step": 1, "train/mlm_loss": 2.0}, {"step": 2, "train/mlm_loss": 1.5}]
    )
    (without,) = plot_curves(metrics, tmp_path / "without")
    (within,) = plot_curves(metrics, tmp_path / "within", unigram_nats=1.8)
    assert (imread(without) != imread(within)).any()


@pytest.mark.parametrize(
    "rows", [[], [{"step": 3}], [{"step": 3, "train/loss": None}], [{"step": 3, "train/loss": "nan"}]]
)
def test_a_run_without_numbers_gives_no_picture(tmp_path, rows):
    assert plot_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "plots") == []


def test_a_missing_file_gives_no_picture(tmp_path):
    assert plot_curves(tmp_path / "metrics.jsonl", tmp_path / "plots") == []


def test_one_point_and_infinite_ones_are_no_obstacle(tmp_path):
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": "inf"}, {"step": 3, "train/loss": "nan"}]
    (path,) = plot_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path)
    assert path.stat().st_size > 5000
