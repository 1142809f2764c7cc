"""Answers in texts: windows, offsets, the best span, and the measures of SQuAD."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.task.config import Metric, TaskKind
from foundation.task.kinds.answers import answer_f1, exact_match, normalise
from foundation.task.kinds.base import Kind
from foundation.task.kinds.spans import Span, Window, best_spans, window_starts
from foundation.task.load import load_task
from tests.task.kinds.toy import examples, kind_of, letters, rows

CONTEXT = "Café water boils at 100 °C, and freezes at 0."
TWO = rows(
    {"id": "q1", "question": "boils?", "context": CONTEXT, "answers": {"text": ["100 °C"], "answer_start": [20]}},
    {
        "id": "q2",
        "question": "freezes?",
        "context": CONTEXT,
        "answers": {"text": ["0", "at 0"], "answer_start": [43, 40]},
    },
)
NONE = rows({"id": "q3", "question": "melts?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}})


def asking(**settings: object) -> Kind:
    return kind_of(kind=TaskKind.question_answering, text="question", text_pair="context", label="answers", **settings)


@pytest.mark.parametrize(("n", "room", "stride"), [(1, 5, 3), (5, 5, 3), (6, 5, 3), (23, 5, 3), (23, 5, 9), (0, 5, 3)])
def test_windows_show_every_token_and_the_last_reaches_the_end(n: int, room: int, stride: int) -> None:
    starts = list(window_starts(n, room, stride))
    assert {t for first in starts for t in range(first, min(first + room, n))} == set(range(n))
    assert starts[-1] + room >= n
    assert all(first + room < n for first in starts[:-1])


@pytest.mark.parametrize(("stride", "starts"), [(3, [0, 3, 6]), (2, [0, 2, 4, 6]), (5, [0, 5]), (9, [0, 5])])
def test_windows_overlap_as_the_stride_says_and_never_leave_a_gap(stride: int, starts: list[int]) -> None:
    assert list(window_starts(10, 5, stride)) == starts


def test_questions_about_one_text_are_held_out_together(tmp_path: Path) -> None:
    """A text of the reported rows that training saw, with other questions, would be half known."""
    lines = [
        {"question": f"which {part}?", "context": f"text {n}", "answers": {"text": [f"{n}"], "answer_start": [5]}}
        for n in range(10)
        for part in ("one", "two", "three")
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    cfg = replace(asking().cfg, train="train.jsonl", local=[str(tmp_path)], dev_share=0.5)
    data = load_task(cfg, tmp_path)
    sides = [set(side.text_pair or []) for side in (data.train, data.dev)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert len(data.train) == 3 * len(sides[0]) and len(data.dev) == 3 * len(sides[1])


@pytest.mark.parametrize("seq_len", [16, 24, 32, 64])
def test_targets_point_at_the_answer_in_every_window_that_has_all_of_it(seq_len: int) -> None:
    kind = asking(doc_stride=4)
    found, how = examples(kind, TWO)
    tokens = kind.encode(found, letters(), seq_len)
    assert tokens.row_lengths().max() <= seq_len
    targets = kind.targets(found, tokens, how)
    hit = set()
    for row, window, (first, last) in zip(tokens.rows, tokens.windows, targets, strict=True):
        whole = np.concatenate([[0], row[0], [0], row[1], [0]])
        if (first, last) != (0, 0):
            hit.add(window.item)
            pieces = [letters().decode([int(token)]).replace("##", "") for token in whole[first : last + 1]]
            assert "".join(pieces) == ("100°C", "0")[window.item]
            start = window.offsets[first - window.begin, 0]
            assert CONTEXT[start : window.offsets[last - window.begin, 1]] == ("100 °C", "0")[window.item]
    assert hit == {0, 1}
    if seq_len == 64:
        assert len(tokens.rows) == 2 and tokens.n_cut == 0


def test_the_best_spans_are_those_of_a_search_through_all() -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        n, begin, longest = int(draws.integers(1, 12)), 3, int(draws.integers(1, 6))
        outputs = draws.normal(size=(begin + n + 1, 2)).astype(np.float32)
        window = Window(0, begin, np.stack([np.arange(n) * 2, np.arange(n) * 2 + 1], axis=1))
        every = [
            Span(2 * i, 2 * j + 1, float(outputs[begin + i, 0]) + float(outputs[begin + j, 1]))
            for i, j in product(range(n), range(n))
            if 0 <= j - i < longest
        ]
        found = best_spans(outputs, window, longest)
        expected = sorted(every, key=lambda span: -span.score)[:20]
        assert [(s.start, s.end) for s in found] == [(s.start, s.end) for s in expected]
        assert [s.score for s in found] == pytest.approx([s.score for s in expected])


def pointing(kind: Kind, tokens: object, targets: np.ndarray, height: float = 9.0) -> np.ndarray:
    """Outputs of a head that is sure of the targets."""
    parts = []
    for length, (first, last) in zip(tokens.row_lengths(), targets, strict=True):
        part = np.zeros((length, 2), np.float32)
        part[first, 0] = part[last, 1] = height
        parts.append(part)
    return np.concatenate(parts)


@pytest.mark.parametrize("seq_len", [16, 24, 64])
@pytest.mark.parametrize("unanswerable", [False, True])
def test_a_head_that_points_at_the_targets_is_read_off_exactly(seq_len: int, unanswerable: bool) -> None:
    kind = asking(unanswerable=unanswerable, doc_stride=4)
    found, how = examples(kind, [*TWO, *NONE] if unanswerable else TWO)
    tokens = kind.encode(found, letters(), seq_len)
    answers = kind.answer(pointing(kind, tokens, kind.targets(found, tokens, how)), tokens, how)
    told = list(kind.describe(found, answers, how))
    assert [t["answer"] for t in told[:2]] == ["100 °C", "0"]
    assert [CONTEXT[t["start"] : t["end"]] for t in told[:2]] == ["100 °C", "0"]
    if unanswerable:
        assert (told[2]["answer"], told[2]["start"]) == (None, None)
    decisions = kind.decide(found, answers, how)
    scores = kind.score(decisions, how.labels)
    assert scores.values["exact_match"] == scores.values["answer_f1"] == 1
    assert decisions.probabilities[:, 1].min() > 0.5
    assert set(decisions.groups) == {"text-0"}


def test_without_unanswerable_questions_there_always_is_an_answer() -> None:
    kind = asking()
    found, how = examples(kind, TWO)
    tokens = kind.encode(found, letters(), 64)
    answers = kind.answer(pointing(kind, tokens, np.zeros((2, 2), int)), tokens, how)
    assert all(text for text in answers.texts)


def test_the_probability_of_accepted_answers_is_their_sum() -> None:
    kind = asking()
    found, how = examples(kind, TWO[1:])
    tokens = kind.encode(found, letters(), 64)
    (first, last), begin = kind.targets(found, tokens, how)[0], tokens.windows[0].begin
    outputs = np.full((int(tokens.row_lengths()[0]), 2), -20, np.float32)
    outputs[last, 1] = outputs[first, 0] = 0
    outputs[first - 2, 0] = 0  # "at 0" is accepted too, and as probable
    decisions = kind.decide(found, kind.answer(outputs, tokens, how), how)
    assert begin < first - 2
    assert decisions.probabilities[0, 1] == pytest.approx(1, abs=1e-6)


def test_measures_agree_with_a_reference() -> None:
    reference = pytest.importorskip("torchmetrics.functional.text").squad
    texts = ["The cat, sat.", "a cat", "cat", "dog the", "An  old cat sat", "", "the", "U.S.", "us", "42%"]
    for said, gold, other in product(texts, texts, texts[:4]):
        accepted = [gold, other]
        if not all(map(normalise, accepted)):
            continue  # the reference scores an empty gold answer differently from SQuAD 2.0's script
        found = reference(
            [{"prediction_text": said, "id": "q"}],
            [{"answers": {"text": accepted, "answer_start": [0, 0]}, "id": "q"}],
        )
        assert exact_match(said, accepted) * 100 == pytest.approx(float(found["exact_match"]))
        assert answer_f1(said, accepted) * 100 == pytest.approx(float(found["f1"]), abs=1e-4)


@pytest.mark.parametrize(
    ("said", "accepted", "exact", "f1"),
    [
        ("", [], 1, 1),
        ("anything", [], 0, 0),
        ("", ["a cat"], 0, 0),
        ("The Cat!", ["cat"], 1, 1),
        ("black cat", ["the white cat"], 0, 0.5),
        ("black cat", ["dog", "black cats here"], 0, 0.4),
    ],
)
def test_measures_by_hand(said: str, accepted: list[str], exact: float, f1: float) -> None:
    assert (exact_match(said, accepted), answer_f1(said, accepted)) == (exact, pytest.approx(f1))


@pytest.mark.parametrize("metric", [Metric.exact_match, Metric.answer_f1])
def test_resampling_repeats_the_questions_of_a_text_together(metric: Metric) -> None:
    kind = asking(unanswerable=True)
    other = rows({"question": "x", "context": "Another text.", "answers": {"text": ["text"], "answer_start": [8]}})
    found, how = examples(kind, [*TWO, *NONE, *other])
    decisions = kind.constant(found, found, how)  # right about q3 only
    fast = kind.weighted(metric, decisions)(np.array([[1.0, 1], [2, 1]]))
    assert fast == pytest.approx([1 / 4, 2 / 7])
    assert kind.score(decisions, how.labels).values[metric.value] == pytest.approx(fast[0])
    assert kind.score(decisions, how.labels).values[f"{metric.value}_unanswerable"] == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"answers": {"text": ["100 C"], "answer_start": [20]}},
            r"a:1: question 'q1': the answer '100 C' should begin at character 20 .* there stands '100 °'",
        ),
        ({"answers": {"text": ["0"], "answer_start": [400]}}, r"there stands ''"),
        ({"answers": {"text": [], "answer_start": []}}, "a:1: question 'q1' has no answer: .* task.unanswerable=true"),
        ({"answers": {"text": ["0"], "answer_start": []}}, r"a:1: column 'answers' is .* where answers should be"),
        ({"answers": "0"}, r"a:1: column 'answers' is '0' where answers should be"),
        ({"context": " "}, "a:1: column 'context' is empty"),
        ({"question": " "}, "a:1: column 'question' is empty"),
        ({"id": "q2"}, "a:2: question id 'q2' stands at a:1 too"),
    ],
)
def test_questions_that_cannot_be_are_refused(changed: dict[str, object], words: str) -> None:
    first = {"id": "q1", "question": "boils?", "context": CONTEXT, "answers": {"text": ["0"], "answer_start": [43]}}
    second = {"id": "q2", "question": "?", "context": CONTEXT, "answers": {"text": ["0"], "answer_start": [43]}}
    with pytest.raises(UserError, match=words):
        examples(asking(), rows(first | changed, second))
