"""Finding, splitting and checking a task's data."""

from pathlib import Path

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.task.config import Metric, TaskConfig, TaskKind
from foundation.task.examples import Examples, TaskData
from foundation.task.kinds.tagging import Sentences
from foundation.task.load import load_task
from foundation.task.row import Row


def task(folder: Path, **settings: object) -> TaskConfig:
    defaults = {"name": "toy", "train": "train.csv", "dev": "dev.csv", "local": [str(folder)]}
    return TaskConfig(**defaults | settings)


def load(folder: Path, train_csv: str, dev_csv: str = "text,label\nz,b\n", **settings: object) -> TaskData:
    (folder / "train.csv").write_text(train_csv)
    (folder / "dev.csv").write_text(dev_csv)
    return load_task(task(folder, **settings), folder / "runs")


def test_labels_are_learnt_from_train_and_sorted(tmp_path: Path) -> None:
    data = load(tmp_path, "text,label\nx,b\ny,a\n")
    assert data.labels == ["a", "b"]
    assert data.train.labels.tolist() == [1, 0]
    assert (data.dev.ids, data.dev.text, data.dev.labels.tolist()) == (["dev-0"], ["z"], [1])


def test_configured_labels_keep_their_order_and_spelling(tmp_path: Path) -> None:
    data = load(tmp_path, "text,label\nx,1\ny,0\n", "text,label\nz,good\n", labels=["good", "bad"], spelled=["1", "0"])
    assert (data.labels, data.train.labels.tolist(), data.dev.labels.tolist()) == (["good", "bad"], [0, 1], [0])


def test_a_label_may_be_spelled_by_nothing(tmp_path: Path) -> None:
    given = "text,label\nx,*\ny,\n"
    assert load(tmp_path, given, given, labels=["bad", "good"], spelled=["*", ""]).train.labels.tolist() == [0, 1]


def test_regression_labels_are_numbers_as_they_stand(tmp_path: Path) -> None:
    data = load(tmp_path, "text,label\nx,1.5\ny,-2\n", "text,label\nz,3\n", kind=TaskKind.regression)
    assert (data.labels, data.train.labels.tolist(), data.dev.labels.tolist()) == ([], [1.5, -2.0], [3.0])


def test_pairs_have_two_texts(tmp_path: Path) -> None:
    data = load(tmp_path, "q,a,label\nx,1,b\ny,2,a\n", "q,a,label\nz,3,a\n", text="q", text_pair="a")
    assert (data.train.text, data.train.text_pair) == (["x", "y"], ["1", "2"])
    assert data.train.take(np.array([1])).text_pair == ["2"]


def test_the_first_folder_that_has_the_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    data = load(
        tmp_path / "second", "text,label\nx,b\ny,a\n", local=[str(tmp_path / "first"), str(tmp_path / "second")]
    )
    assert data.notes[0] == f"toy: read from {tmp_path / 'second'}"


def test_labels_that_were_found_are_told_and_which_of_them_f1_is_of(tmp_path: Path) -> None:
    train = "text,label\nx,1.0\ny,0.0\nw,1.0\n"
    told = "toy: labels: 0.0 (1), 1.0 (2)"
    assert load(tmp_path, train, train).notes[1] == told
    assert load(tmp_path, train, train, metric=Metric.f1).notes[1] == f"{told}; F1 is that of 1.0"
    many = "text,label\n" + "".join(f"x,{n % 30:02}\n" for n in range(90))
    assert load(tmp_path, many, many).notes[1].endswith(", 18 (3), 19 (3), and 10 more")
    several = load(tmp_path, 'text,label\nx,"a,b"\ny,b\n', GOOD, kind=TaskKind.multilabel)
    assert several.notes[1] == "toy: labels: a (1), b (2)"
    assert not any(": labels: " in note for note in load(tmp_path, train, train, labels=["0.0", "1.0"]).notes)


def test_reported_rows_that_training_has_too_are_counted(tmp_path: Path) -> None:
    train, dev = "q,a,label\nx,1,b\ny,2,a\nz,3,a\n", "q,a,label\nx,1,a\ny,3,a\nz,3,b\n"
    pairs = load(tmp_path, train, dev, text="q", text_pair="a").notes
    assert "toy: 2 of 3 reported rows have the same q and a as a training row" in pairs
    assert "toy: 3 of 3 reported rows have the same q as a training row" in load(tmp_path, train, dev, text="q").notes
    assert not any("same" in note for note in load(tmp_path, GOOD).notes)


def hold_out(folder: Path, rows: list[str]) -> TaskData:
    (folder / "train.csv").write_text("text,label\n" + "\n".join(rows))
    return load_task(task(folder, dev=None), folder)


def test_without_dev_a_fifth_is_held_out_by_hash_and_said(tmp_path: Path) -> None:
    rows = [f"text {n},{'ab'[n % 2]}" for n in range(1000)]
    data = hold_out(tmp_path, rows)
    n_dev = len(data.dev)
    assert len(data.train) + n_dev == 1000
    assert abs(n_dev - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5
    assert f"{n_dev} of 1,000 rows" in data.notes[1]
    assert set(data.train.ids).isdisjoint(data.dev.ids)


def test_a_held_out_row_stays_so_when_rows_are_added_and_twins_stay_together(tmp_path: Path) -> None:
    rows = [f"text {n},{'ab'[n % 2]}" for n in range(100)]
    before, after = hold_out(tmp_path, rows), hold_out(tmp_path, ["text new,a", *rows, *rows])
    assert set(before.dev.text) <= set(after.dev.text)
    assert set(after.train.text).isdisjoint(after.dev.text)


@pytest.mark.parametrize(("share", "n_held_out", "way"), [(0.001, 0, "raise"), (0.999, 4, "lower")])
def test_a_side_that_gets_no_rows_says_how_to_give_it_some(
    tmp_path: Path, share: float, n_held_out: int, way: str
) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    words = rf"task toy: .*task.dev_share={share} holds out {n_held_out} of 4 rows.*: {way} it, or .* task.dev=FILE"
    with pytest.raises(UserError, match=words):
        load_task(task(tmp_path, dev=None, dev_share=share), tmp_path)


def test_a_file_may_be_named_from_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(GOOD)
    assert len(load_task(TaskConfig(name="toy", train="~/a.csv", dev="~/b.csv"), tmp_path).train) == 2
    assert len(load_task(TaskConfig(name="toy", train="a.csv", dev="b.csv", local=["~"]), tmp_path).train) == 2


def test_a_column_that_decides_who_is_held_out_must_be_there(tmp_path: Path) -> None:
    """Without it all rows would go to one side, and the error be about that."""
    with pytest.raises(UserError, match=r"train.csv:2: there is no column 'review': the columns are text, label"):
        load(tmp_path, GOOD, dev=None, text="review")


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, same = (load(tmp_path, "text,label\nx,b\ny,a\n") for _ in range(2))
    other = load(tmp_path, "text,label\nx,b\ny,b\nw,a\n")
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_the_fingerprint_is_of_label_names_and_of_long_arrays_to_their_middle() -> None:
    two = Examples(["a", "b"], ["x", "y"], None, np.array([0, 1]))
    names = [TaskData(two, two, names, []).fingerprint() for names in (["neg", "pos"], ["bad", "good"])]
    assert names[0] != names[1]
    tags = np.zeros((2, 2000), np.int64)
    tags[1, 1000] = 1
    long = [Sentences(["a"], ["x"], None, np.zeros(1, np.int64), [["x"] * 2000], [row]) for row in tags]
    assert len({TaskData(one, one, ["O", "X"], []).fingerprint() for one in long}) == 2


GOOD = "text,label\nx,b\ny,a\n"


@pytest.mark.parametrize(
    ("train", "dev", "settings", "words"),
    [
        ("text,label\n", GOOD, {}, "task toy has no rows in its training split: check that its files are not empty"),
        ("", GOOD, {}, "task toy has no rows in its training split"),
        (GOOD, "text,label\n", {}, "task toy has no rows in its reported split"),
        (
            GOOD,
            "text,label\nz,c\nw,d\n",
            {},
            r"dev.csv:2: label 'c', 'd' is not in the training data \(a, b\).*the 2 rows",
        ),
        (GOOD, GOOD, {"labels": ["a", "c"]}, r"train.csv:2: label 'b' is not in task.labels \(a, c\): add it there"),
        (GOOD, GOOD, {"label": "stars"}, "train.csv:2: there is no column 'stars': the columns are text, label"),
        (GOOD, GOOD, {"text": "review"}, "train.csv:2: there is no column 'review': the columns are text, label"),
        (GOOD, GOOD, {"text_pair": "two"}, "train.csv:2: there is no column 'two'"),
        ("text,label\nx,1\ny,high\n", GOOD, {"kind": TaskKind.regression}, "train.csv:3: label 'high' is not a number"),
        ("text,label\nx,1\ny,nan\n", GOOD, {"kind": TaskKind.regression}, "train.csv:3: label 'nan' is not a number"),
        ("text,label\nx,a\n ,b\n", GOOD, {}, "train.csv:3: column 'text' is empty: give the row a text, or drop it"),
        ("text,label\nx,a\ny, \n", GOOD, {}, "train.csv:3: column 'label' is empty: give the row a label, or drop it"),
        (GOOD, "text,label\nx,a\ny,\n", {"labels": ["a", "b"]}, "dev.csv:3: column 'label' is empty: give the row a"),
        ("text,label\nx,a\ny,a\n", GOOD, {}, "every training row of task toy has the label 'a'"),
        (
            "text,label\n" + "".join(f"x,{n}\n" for n in range(90)),
            GOOD,
            {},
            "90 different labels in 90 rows: .*task.kind=regression",
        ),
        (GOOD + "z,c\n", GOOD, {"metric": Metric.f1}, "task.metric=f1 .* there are 3: choose f1_macro"),
        (GOOD, GOOD, {"train": "none.csv"}, "no file at .*none.csv .*name the training file with task.train=FILE"),
        (GOOD, GOOD, {"dev": "none.csv"}, "no file at .*none.csv: check the name"),
    ],
)
def test_data_that_cannot_work_are_refused(
    tmp_path: Path, train: str, dev: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load(tmp_path, train, dev, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"metric": Metric.pearson},
            "task.metric=pearson does not judge classification: choose one of accuracy, f1",
        ),
        (
            {"metric": Metric.f1, "kind": TaskKind.regression},
            "does not judge regression: choose one of pearson, spearman",
        ),
        ({"kind": TaskKind.regression, "labels": ["a"]}, "task.labels and task.spelled belong to classification"),
        ({"labels": ["a", "b"], "spelled": ["0"]}, "task.spelled has 1 entries for 2 task.labels"),
        ({"labels": ["a", "a"]}, "must not repeat an entry"),
        (
            {"spelled": ["yes", "no"]},
            "task.spelled says how files write task.labels, which are not given: .*task.labels=",
        ),
        ({"has_header": False}, "task.has_header=false leaves the columns without names"),
        ({"dev_share": 1.0}, "task.dev_share=1.0 must be between 0 and 1"),
        ({"train": None}, "task toy has no data: set task.train=FILE"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        task(tmp_path, **settings).check()


def test_the_hub_is_asked_when_no_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(name: str, config: str | None, split: str, revision: str | None) -> list[Row]:
        asked.append((name, config, split))
        return [Row({"text": f"x{n}", "label": "ab"[n % 2]}, f"hub:{n}") for n in range(4)]

    monkeypatch.setattr("foundation.task.load.read_hub", rows)
    data = load_task(task(tmp_path, hub="some/set", hub_config="c"), tmp_path)
    assert asked == [("some/set", "c", "train"), ("some/set", "c", "validation")]
    assert (data.dev.ids[0], data.dev.labels.tolist()) == ("dev-0", [0, 1, 0, 1])


def test_no_file_and_no_hub_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Row]:
        raise UserError("the Hugging Face hub gave no some/set")

    monkeypatch.setattr("foundation.task.load.read_hub", refuse)
    with pytest.raises(UserError, match=r"gave no some/set \(looked for .*train.csv\)"):
        load_task(task(tmp_path, hub="some/set"), tmp_path)
