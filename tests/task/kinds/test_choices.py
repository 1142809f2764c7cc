"""One of a few texts, and an order of texts."""

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.task.config import Metric, TaskKind
from foundation.task.kinds.base import Answers, Kind
from foundation.task.row import Row
from tests.task.kinds.toy import examples, kind_of, letters, rows

TWO = rows(
    {"q": "one", "s": "It", "a": "is", "b": "was", "c": "will", "right": "1"},
    {"q": "two", "s": "He", "a": "came", "b": "went", "c": "sat", "right": "2"},
)


def choosing(**settings: object) -> Kind:
    defaults = {"kind": TaskKind.multiple_choice, "text": "q", "choices": ["a", "b", "c"], "label": "right"}
    return kind_of(**defaults | settings)


def test_every_choice_is_a_row_after_the_question() -> None:
    kind = choosing(text_pair="s")
    found, how = examples(kind, TWO)
    tokens = kind.encode(found, letters(), 24)
    assert (len(tokens.rows), len(tokens), tokens.rows_per_unit) == (6, 2, 3)
    assert [letters().decode(part) for part in tokens.rows[4]] == ["two", "He went"]
    assert found.labels.tolist() == [1, 2]
    assert how.labels == ["0", "1", "2"]


def test_choices_may_be_a_list_and_labels_have_names() -> None:
    kind = choosing(choices=["options"], spelled=["A", "B"])
    found, _ = examples(kind, rows({"q": "x", "options": ["yes", "no"], "right": "B"}))
    assert (found.choices, found.labels.tolist()) == ([["yes", "no"]], [1])


def test_units_are_never_separated_in_batches() -> None:
    kind = choosing()
    found, _ = examples(kind, TWO)
    tokens = kind.encode(found, letters(), 24)
    batch = tokens.batch(np.array([1]), found.labels)
    assert (batch.n_rows, batch.labels.tolist()) == (3, [2])
    assert batch.lengths.sum() == tokens.lengths()[1]


def test_the_choice_of_the_highest_score_is_told() -> None:
    kind = choosing()
    found, how = examples(kind, TWO)
    answers = kind.answer(np.array([[0], [1], [2], [5], [3], [4]], np.float32), kind.encode(found, letters(), 24), how)
    told = list(kind.describe(found, answers, how))
    assert [(t["choice"], t["answer"]) for t in told] == [(2, "will"), (0, "came")]
    assert sum(told[0]["probabilities"]) == pytest.approx(1)
    decisions = kind.decide(found, answers, how)
    assert kind.score(decisions, how.labels).values == {"accuracy": 0}
    assert kind.weighted(Metric.accuracy, decisions)(np.ones((1, 2))) == pytest.approx([0])
    assert kind.score(kind.constant(found, found, how), how.labels).values == {"accuracy": 0.5}


def test_rows_to_be_answered_may_have_different_numbers_of_choices() -> None:
    kind = choosing(choices=["options"])
    _, how = examples(kind, rows({"q": "x", "options": ["a", "b", "c"], "right": "0"}))
    asked = kind.inputs(["0", "1"], rows({"q": "x", "options": ["a", "b", "c"]}, {"q": "y", "options": ["d", "e"]}))
    tokens = kind.encode(asked, letters(), 24)
    told = list(kind.describe(asked, kind.answer(np.array([[0], [0], [9], [0], [9]], np.float32), tokens, how), how))
    assert [t["answer"] for t in told] == ["c", "e"]
    assert [len(t["probabilities"]) for t in told] == [3, 2]


@pytest.mark.parametrize(
    ("changed", "settings", "words"),
    [
        ({"right": "3"}, {}, r"a:1: label '3' is not one of the 3 choices \(0, 1, 2\): mend it"),
        ({"right": "D"}, {"spelled": ["A", "B", "C"]}, r"a:1: label 'D' is not one of the 3 choices \(A, B, C\)"),
        ({"a": ""}, {}, "a:1: column 'a, b, c' is empty"),
        ({"q": " "}, {}, "a:1: column 'q' is empty"),
        ({}, {"choices": ["a"]}, "a:1: 1 choice in a where there should be some"),
        ({}, {"choices": ["a", "z"]}, "a:1: there is no column 'z'"),
        ({}, {"spelled": ["A", "B"]}, "task.spelled has 2 entries for 3 choices: give one for each"),
    ],
)
def test_choices_that_cannot_be_are_refused(changed: dict, settings: dict[str, object], words: str) -> None:
    first = {"q": "one", "a": "is", "b": "was", "c": "will", "right": "1"}
    with pytest.raises(UserError, match=words):
        examples(choosing(**settings), rows(first | changed))


def test_training_needs_the_same_number_of_choices_in_every_row() -> None:
    given = rows({"q": "x", "o": ["a", "b"], "right": "0"}, {"q": "y", "o": ["a", "b", "c"], "right": "0"})
    with pytest.raises(UserError, match="a:2: 3 choices where the others have 2: mend or drop the row"):
        examples(choosing(choices=["o"]), given)


def ranking(**settings: object) -> Kind:
    return kind_of(**{"kind": TaskKind.retrieval, "text": "q", "text_pair": "r", "n_candidates": 4} | settings)


REPLIES = rows(*({"q": f"question {n}", "r": f"reply {n}"} for n in range(50)), {"q": "again", "r": "reply 7"})


def test_candidates_are_drawn_among_the_other_rows_each_once_and_always_the_same() -> None:
    kind = ranking()
    found, how = examples(kind, REPLIES)
    again, _ = examples(kind, REPLIES)
    assert found.choices == again.choices
    for choices, right, row in zip(found.choices, found.labels, REPLIES, strict=True):
        assert len(set(choices)) == 4
        assert choices[right] == row.get("r")
    assert set(found.labels.tolist()) == {0, 1, 2, 3}
    assert how.n_out == 4


def test_as_many_candidates_as_there_are_texts_can_be_had() -> None:
    found, _ = examples(ranking(n_candidates=3), rows(*({"q": f"q{n}", "r": f"r{n % 3}"} for n in range(20))))
    assert all(set(choices) == {"r0", "r1", "r2"} for choices in found.choices)


class Counted(str):
    """A text that counts how often it is looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        Counted.looked_up += 1
        return str.__hash__(self)


def test_drawing_candidates_does_not_go_through_all_texts_for_every_row() -> None:
    given = [Row({"q": f"question {n}", "r": Counted(f"reply {n}")}, f"a:{n}") for n in range(300)]
    Counted.looked_up = 0
    found, _ = examples(ranking(), given)
    assert len(found) == 300
    assert Counted.looked_up < 10 * 300


@pytest.mark.parametrize(("replies", "n"), [(["one", "two"], 2), ([], 0)])
def test_a_list_of_right_texts_is_refused_in_training(replies: list[str], n: int) -> None:
    given = [*REPLIES, *rows({"q": "one more", "r": replies})]
    with pytest.raises(
        UserError, match=rf"a:1: column 'r' has a list of {n} texts where one right text .*task.choices"
    ):
        examples(ranking(), given)


def test_ranks_recalls_and_reciprocal_ranks_by_hand() -> None:
    kind = ranking()
    found, how = examples(kind, REPLIES[:4])
    found = type(found)(found.ids, found.text, None, np.array([0, 1, 2, 3]), found.choices)
    logits = np.array([[9, 1, 2, 3], [9, 8, 2, 3], [5, 6, 4, 3], [1, 1, 1, 1]], np.float32)
    decisions = kind.decide(found, Answers(logits.argmax(1).astype(float), logits, logits), how)
    values = kind.score(decisions, how.labels).values
    # Ranks 1, 2, 3, and among equals the last, 4.
    assert values == pytest.approx(
        {"mrr": (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, "recall_at_1": 1 / 4, "recall_at_2": 2 / 4, "recall_at_5": 1}
    )
    counts = np.array([[1.0, 1, 1, 1], [0, 2, 0, 2]])
    assert kind.weighted(Metric.mrr, decisions)(counts) == pytest.approx([values["mrr"], 3 / 8])
    assert kind.weighted(Metric.recall_at_2, decisions)(counts) == pytest.approx([2 / 4, 1 / 2])


def test_candidates_to_be_answered_are_a_list_and_come_back_in_order() -> None:
    kind = ranking()
    _, how = examples(kind, REPLIES)
    asked = kind.inputs(["0"], rows({"q": "x", "r": ["a", "b", "c"]}))
    told = list(
        kind.describe(
            asked, kind.answer(np.array([[1], [3], [2]], np.float32), kind.encode(asked, letters(), 24), how), how
        )
    )
    assert [(c["text"], c["candidate"]) for c in told[0]["ranked"]] == [("b", 1), ("c", 2), ("a", 0)]


def test_candidates_may_be_given() -> None:
    kind = ranking(text_pair=None, choices=["c"], label="right", n_candidates=10)
    found, how = examples(kind, rows({"q": "x", "c": ["a", "b"], "right": "1"}))
    assert (found.choices, found.labels.tolist(), how.n_out) == ([["a", "b"]], [1], 2)


def test_too_few_texts_to_draw_from_are_refused() -> None:
    with pytest.raises(UserError, match="task toy has 3 different texts in column 'r' of a split, and 4 candidates"):
        examples(ranking(), REPLIES[:3])
