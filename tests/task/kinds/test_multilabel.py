"""Several labels a row."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from foundation.core.errors import UserError
from foundation.task.config import Metric, TaskKind
from foundation.task.kinds.base import Kind
from tests.task.kinds.toy import examples, kind_of, letters, rows

FOUR = rows(
    {"text": "a", "label": "joy,love"},
    {"text": "b", "label": ["anger"]},
    {"text": "c", "label": ""},
    {"text": "d", "label": " joy , "},
)
GOLD = [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]]


def labelling(**settings: object) -> Kind:
    return kind_of(kind=TaskKind.multilabel, **settings)


def test_labels_are_divided_or_listed_and_may_be_none() -> None:
    found, how = examples(labelling(), FOUR)
    assert how.labels == ["anger", "joy", "love"]
    assert found.labels.tolist() == GOLD


def test_labels_may_be_written_otherwise() -> None:
    found, _ = examples(
        labelling(labels=["joy", "anger"], spelled=["0", "1"], separator=";"), rows({"text": "a", "label": "1;joy"})
    )
    assert found.labels.tolist() == [[1, 1]]


def answered(kind: Kind, outputs: list[list[float]]) -> tuple:
    found, how = examples(kind, FOUR)
    answers = kind.answer(np.array(outputs, dtype=np.float32), kind.encode(found, letters(), 12), how)
    return found, how, answers


OUTPUTS = [[-1, 2, 0.5], [-0.1, 1, -3], [-2, -2, -2], [-1, 0.3, 0.2]]


def test_a_decision_is_one_label_of_one_row_with_the_logistic_probability() -> None:
    kind = labelling()
    found, how, answers = answered(kind, OUTPUTS)
    decisions = kind.decide(found, answers, how)
    assert decisions.item_ids[:4] == ["dev-0:anger", "dev-0:joy", "dev-0:love", "dev-1:anger"]
    assert decisions.groups[:4] == ["dev-0", "dev-0", "dev-0", "dev-1"]
    assert decisions.gold.tolist() == np.ravel(GOLD).tolist()
    assert decisions.predicted.tolist() == (np.ravel(OUTPUTS) > 0).tolist()
    assert decisions.probabilities[:, 1] == pytest.approx(1 / (1 + np.exp(-np.ravel(OUTPUTS))), abs=1e-6)
    assert decisions.labels == ["no", "yes"]


def test_scores_are_those_of_a_reference_and_by_hand() -> None:
    kind = labelling()
    found, how, answers = answered(kind, OUTPUTS)
    scores = kind.score(kind.decide(found, answers, how), how.labels)
    said = np.array(OUTPUTS) > 0
    assert scores.values["f1_micro"] == pytest.approx(f1_score(GOLD, said, average="micro", zero_division=0))
    assert scores.values["f1_micro"] == pytest.approx(2 * 3 / (4 + 5))
    assert scores.values["f1_macro"] == pytest.approx((0 + 4 / 5 + 2 / 3) / 3)
    assert scores.values["exact_match"] == 2 / 4
    assert scores.per_class["joy"] == pytest.approx({"precision": 2 / 3, "recall": 1, "f1": 4 / 5, "support": 2})


def test_a_single_label_has_the_f1_of_those_that_have_it() -> None:
    """Of its ten texts two have the label and one is found: not the accuracy, 8 of 10."""
    kind = labelling()
    found, how = examples(kind, rows(*({"text": "a", "label": "joy" if n < 2 else ""} for n in range(10))))
    outputs = np.where(np.isin(np.arange(10), [0, 9]), 1, -1)[:, None].astype(np.float32)
    decisions = kind.decide(found, kind.answer(outputs, kind.encode(found, letters(), 12), how), how)
    scores = kind.score(decisions, how.labels)
    assert how.labels == ["joy"]
    assert scores.per_class == {"joy": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}}
    for metric in (Metric.f1_micro, Metric.f1_macro):
        assert scores.values[metric.value] == 0.5
        assert kind.weighted(metric, decisions)(np.ones((1, 10))) == pytest.approx([0.5])


@pytest.mark.parametrize("metric", [Metric.f1_micro, Metric.f1_macro, Metric.exact_match])
def test_resampling_repeats_whole_rows(metric: Metric) -> None:
    kind = labelling()
    found, how, answers = answered(kind, OUTPUTS)
    fast = kind.weighted(metric, kind.decide(found, answers, how))(np.array([[1.0, 1, 1, 1], [2, 0, 1, 1]]))
    for value, numbers in zip(fast, ([0, 1, 2, 3], [0, 0, 2, 3]), strict=True):
        part = replace(found.take(np.array(numbers)), ids=[str(n) for n in range(4)])
        again = kind.answer(np.array(OUTPUTS, np.float32)[numbers], kind.encode(part, letters(), 12), how)
        assert value == pytest.approx(kind.score(kind.decide(part, again, how), how.labels).values[metric.value])


def test_what_is_told_has_the_labels_that_are_more_likely_than_not() -> None:
    kind = labelling()
    found, how, answers = answered(kind, OUTPUTS)
    told = list(kind.describe(found, answers, how))
    assert [t["labels"] for t in told] == [["joy", "love"], ["joy"], [], ["joy", "love"]]
    assert told[0]["probabilities"]["joy"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_the_constant_answer_is_the_commonest_label() -> None:
    kind = labelling()
    found, how = examples(kind, FOUR)
    said = kind.constant(found, found, how).predicted.reshape(4, 3)
    assert said.tolist() == [[0, 1, 0]] * 4


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        # Of 4, 3 and 2 rows in ten: 2·4/(10 + 9), 2·7/(20 + 9), 2·9/(30 + 9), and none is said by most rows.
        (Metric.f1_micro, [1, 1, 0]),
        (Metric.f1_macro, [1, 1, 1]),
        (Metric.exact_match, [1, 0, 0]),
    ],
)
def test_the_constant_answer_is_the_best_there_is(metric: Metric, said: list[int]) -> None:
    kind = labelling(metric=metric)
    names = ["a", "a", "a", "a", "b", "b", "b", "c", "c", ""]
    found, how = examples(kind, rows(*({"text": "x", "label": name} for name in names)))
    assert kind.constant(found, found, how).predicted.reshape(10, 3).tolist() == [said] * 10


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ([{"text": "a", "label": "joy;x"}], {"labels": ["joy", "x"]}, r"a:1: label 'joy;x' is not in task.labels \(joy, x\)"),
        ([{"text": "a", "label": ""}], {}, "no training row of task toy has a label in column 'label'"),
        ([{"text": " ", "label": "joy"}], {}, "a:1: column 'text' is empty"),
        ([{"text": "a"}], {}, "a:1: there is no column 'label'"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused(given: list, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        examples(labelling(**settings), rows(*given))
