"""Reading pairs, counting points, and how sure an accuracy is."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from foundation.core.errors import UserError
from foundation.evaluation.minimal_pairs import Paradigm, estimate, points, read_paradigms
from foundation.evaluation.pair_scores import _read, _write, pairs_table
from tests.evaluation import toy


def lay(folder: Path, name: str, rows: list[dict[str, str]]) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def pair(good: str, bad: str, **more: str) -> dict[str, str]:
    return {"sentence_good": good, "sentence_bad": bad, **more}


def test_paradigms_come_from_the_column_or_the_file(tmp_path: Path) -> None:
    first = lay(
        tmp_path, "a.jsonl", [pair("A b.", "B a.", UID="x"), pair("C d.", "D c.", UID="y"), pair("E f.", "F.", UID="x")]
    )
    second = lay(tmp_path, "mine.more.jsonl", [pair("A.", "B.")])
    found = read_paradigms([first, second], toy.pairs())
    assert [(p.name, p.items, p.good) for p in found] == [
        ("x", ["a.jsonl:1", "a.jsonl:3"], ["A b.", "E f."]),
        ("y", ["a.jsonl:2"], ["C d."]),
        ("mine", ["mine.more.jsonl:1"], ["A."]),
    ]


def test_identical_pairs_are_dropped_before_the_first_so_many_are_taken(tmp_path: Path) -> None:
    file = lay(tmp_path, "a.jsonl", [pair("A.", "A. "), pair("B.", "C."), pair("D.", "E."), pair("F.", "G.")])
    (found,) = read_paradigms([file], toy.pairs(max_pairs=2))
    assert (found.items, found.bad, found.n_identical) == (["a.jsonl:2", "a.jsonl:3"], ["C.", "E."], 1)


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = lay(tmp_path, "a.jsonl", [{"yes": "A.", "no": "B.", "kind": "k"}])
    (found,) = read_paradigms([file], toy.pairs(good="yes", bad="no", paradigm="kind"))
    assert (found.name, found.good, found.bad) == ("k", ["A."], ["B."])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([pair("A.", "B."), {"sentence_good": "A."}], r"a.jsonl:2: there is no column 'sentence_bad'"),
        ([pair("A.", " ")], r"a.jsonl:1: sentence_bad is empty: mend the line"),
        ([pair("A.", "A.")], r"there is no pair of different sentences in a: "),
        ([], r"there is no pair of different sentences in evaluation.files"),
    ],
)
def test_what_is_no_pair_is_said(tmp_path: Path, rows: list[dict[str, str]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_paradigms([lay(tmp_path, "a.jsonl", rows)], toy.pairs())


def test_ties_count_half_and_rounding_is_a_tie() -> None:
    good, bad = np.array([-3.0, -5.0, -4.0, -4.0]), np.array([-5.0, -3.0, -4.0, -4.0 + 1e-9])
    assert points(good, bad).tolist() == [1, 0, 0.5, 0.5]


def test_the_interval_of_one_paradigm_is_the_binomial_one() -> None:
    values = np.repeat([0.0, 1.0], [140, 260])
    found = estimate([values], "test")
    low, high = stats.binom.ppf([0.025, 0.975], 400, 0.65) / 400
    assert found.value == pytest.approx(0.65)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.01 / 400)


def test_every_paradigm_weighs_the_same_whatever_its_size() -> None:
    large, small = np.ones(1000), np.repeat([0.0, 1.0], 8)
    found = estimate([large, small], "test")
    assert found.value == pytest.approx(0.75)
    expected = stats.bootstrap((small,), np.mean, method="percentile", rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx(((1 + expected.low) / 2, (1 + expected.high) / 2), abs=0.04)


def test_certainty_has_no_width() -> None:
    found = estimate([np.ones(10)], "test")
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_mean_of_a_scorer_that_predicts_the_end_is_over_the_end_too(tmp_path: Path) -> None:
    """-3 nats of two tokens are less a token than -4.2 of three, and more a token once both ends are counted."""
    paradigm = Paradigm("x", ["a:1"], ["A b."], ["A b c."], 0)
    sums = {name: np.array([-3.0, -4.2]) for name in ("foundation", "3-gram", "unigram")}
    _write(tmp_path / "x.parquet", paradigm, [np.arange(2), np.arange(3)], sums)
    scored = _read(tmp_path / "x.parquet", paradigm)
    right = {name: (scored.points(name, False).item(), scored.points(name, True).item()) for name in sums}
    assert right == {"foundation": (1, 0), "3-gram": (1, 1), "unigram": (1, 0)}


def test_the_table_has_the_sum_with_its_interval_and_then_the_mean() -> None:
    cells = {"sum": {"value": 0.6, "low": 0.5, "high": 0.7}, "mean": {"value": 0.1, "low": 0.0, "high": 0.2}}
    found = {"scorers": ["s"], "paradigms": {"x": {"pairs": 3, "s": cells}}, "overall": {"s": cells}}
    counts = {"pairs": 3, "max_pairs": None, "identical_dropped": 0, "same_tokens": 0, "difference_of_sums": {}}
    row = next(line for line in pairs_table(found | counts, "n").splitlines() if line.startswith("x "))
    assert row.split() == ["x", "3", "60.0", "[50.0,", "70.0]", "10.0"]
