"""Tags of words: alignment to pieces, long sentences, entities."""

from dataclasses import replace

import numpy as np
import pytest
from seqeval.metrics import f1_score

from foundation.core.errors import UserError
from foundation.task.config import Metric, TagScheme, TaskKind
from foundation.task.kinds.base import Answers, Kind
from foundation.task.kinds.entities import entities_of
from foundation.task.kinds.tagging import Tagging
from foundation.task.predictions import Decisions
from tests.task.kinds.toy import examples, kind_of, letters, rows

TWO = rows({"w": ["Anna", "is", "in", "Rome"], "t": ["P", "V", "X", "P"]}, {"w": "go home", "t": "V P"})


def tagging(**settings: object) -> Kind:
    return kind_of(kind=TaskKind.tagging, text="w", label="t", **settings)


def test_words_and_tags_are_lists_or_divided_by_spaces() -> None:
    found, how = examples(tagging(), TWO)
    assert how.labels == ["P", "V", "X"]
    assert found.words == [["Anna", "is", "in", "Rome"], ["go", "home"]]
    assert [tags.tolist() for tags in found.tags] == [[0, 1, 2, 0], [1, 0]]
    assert found.text[0] == "Anna is in Rome"


def test_rows_without_any_tag_are_refused_and_an_empty_tag_is_none() -> None:
    with pytest.raises(UserError, match="no training row of task toy has a tag in column 't'"):
        examples(tagging(), rows({"w": ["go"], "t": []}, {"w": ["on"], "t": ""}))
    with pytest.raises(UserError, match=r"a:1 \(word 3\): label '' is not in the training data \(P, V\)"):
        examples(tagging(), rows({"w": ["Anna", "is", "in"], "t": ["P", "V", ""]}))


def test_tags_are_counted_word_by_word() -> None:
    kind = tagging()
    found, how = examples(kind, TWO)
    assert kind.label_counts(found, how.n_out).tolist() == [3, 2, 1]


def test_the_first_piece_of_a_word_carries_its_tag() -> None:
    kind = tagging()
    found, how = examples(kind, TWO)
    tokens = kind.encode(found, letters(), 24)
    # [CLS] A ##n ##n ##a i ##s i ##n R ##o ##m ##e [SEP]
    assert [len(row[0]) for row in tokens.rows] == [12, 6]
    assert tokens.starts[0].tolist() == [1, 5, 7, 9]
    target = kind.targets(found, tokens, how)[0]
    assert len(target) == 14
    assert {int(n): int(target[n]) for n in np.flatnonzero(target != -100)} == {1: 0, 5: 1, 7: 2, 9: 0}


@pytest.mark.parametrize("seq_len", [3, 4, 6, 8, 24])
def test_a_long_sentence_is_divided_between_words_and_every_word_is_answered(seq_len: int) -> None:
    kind = tagging()
    found, how = examples(kind, TWO)
    tokens = kind.encode(found, letters(), seq_len)
    assert tokens.row_lengths().max() <= seq_len
    assert tokens.n_cut == (2 if seq_len < 8 else 1 if seq_len == 8 else 0)
    targets = kind.targets(found, tokens, how)
    assert np.concatenate([t[t != -100] for t in targets]).tolist() == [0, 1, 2, 0, 1, 0]
    # An output that repeats the target: answers come back in the words' order.
    outputs = np.concatenate([np.eye(3, dtype=np.float32)[np.maximum(target, 0)] for target in targets])
    answers = kind.answer(outputs, tokens, how)
    assert answers.predicted.tolist() == [0, 1, 2, 0, 1, 0]
    assert [told["tags"] for told in kind.describe(found, answers, how)] == [["P", "V", "X", "P"], ["V", "P"]]


def test_a_word_of_which_the_tokenizer_leaves_nothing_is_answered_too() -> None:
    kind = tagging()
    found, _ = examples(kind, rows({"w": ["a", "\u200b", "b"], "t": ["P", "V", "P"]}))
    tokens = kind.encode(found, letters(), 24)
    assert tokens.rows[0][0][1] == letters().specials.unk
    assert tokens.starts[0].tolist() == [1, 2, 3]


def test_an_empty_sentence_to_be_answered_has_no_tags() -> None:
    kind = tagging()
    _, how = examples(kind, TWO)
    asked = kind.inputs(["a", "b"], rows({"w": ""}, {"w": "go"}))
    tokens = kind.encode(asked, letters(), 24)
    answers = kind.answer(np.zeros((int(tokens.row_lengths().sum()), 3), np.float32), tokens, how)
    assert [told["tags"] for told in kind.describe(asked, answers, how)] == [[], ["P"]]


def test_decisions_are_words_in_groups_of_sentences() -> None:
    kind = tagging()
    found, how = examples(kind, TWO)
    decisions = kind.constant(found, found, how)
    assert decisions.item_ids == ["dev-0:0", "dev-0:1", "dev-0:2", "dev-0:3", "dev-1:0", "dev-1:1"]
    assert decisions.groups == ["dev-0"] * 4 + ["dev-1"] * 2
    # The commonest tag is P.
    assert kind.score(decisions, how.labels).values["accuracy"] == pytest.approx(3 / 6)


BIO = rows(
    {"w": "EU rejects German call", "t": "B-ORG O B-MISC O"},
    {"w": "Peter Blackburn in New York City", "t": "B-PER I-PER O B-LOC I-LOC I-LOC"},
    {"w": "nothing here", "t": "O O"},
)


def test_entities_are_right_as_a_whole_or_not_at_all() -> None:
    kind = tagging(scheme=TagScheme.bio)
    found, how = examples(kind, BIO)
    decisions = kind.constant(found, found, how)
    said = decisions.gold.copy()
    said[-3] = how.labels.index("O")  # New York, not New York City
    wrong = replace(decisions, predicted=said)
    values = kind.score(wrong, how.labels).values
    assert values["entity_f1"] == pytest.approx(3 / 4)
    assert values["accuracy"] == pytest.approx(11 / 12)
    assert kind.score(decisions, how.labels).values["entity_f1"] == 0
    gold = [["B-ORG", "O", "B-MISC", "O"], ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC"], ["O", "O"]]
    shorter = [gold[0], [*gold[1][:-1], "O"], gold[2]]
    assert values["entity_f1"] == pytest.approx(f1_score(gold, shorter))


def test_entities_are_told_with_their_words() -> None:
    kind = tagging(scheme=TagScheme.bio)
    found, how = examples(kind, BIO)
    tokens = kind.encode(found, letters(), 40)
    targets = kind.targets(found, tokens, how)
    outputs = np.concatenate([np.eye(how.n_out, dtype=np.float32)[np.maximum(target, 0)] for target in targets])
    told = list(kind.describe(found, kind.answer(outputs, tokens, how), how))
    assert told[1]["entities"] == [
        {"label": "PER", "text": "Peter Blackburn", "start": 0, "end": 2},
        {"label": "LOC", "text": "New York City", "start": 3, "end": 6},
    ]
    assert told[2]["entities"] == []


def test_an_inside_tag_after_another_label_begins_an_entity() -> None:
    assert entities_of(["I-PER", "I-LOC", "O", "B-LOC", "B-LOC"]) == [
        ("PER", 0, 1), ("LOC", 1, 2), ("LOC", 3, 4), ("LOC", 4, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("metric", [Metric.accuracy, Metric.f1_macro, Metric.entity_f1])
def test_resampling_repeats_whole_sentences(metric: Metric) -> None:
    """The weighted metric of counts 2, 0, 3 is the plain one of the sentences so often."""
    kind = tagging(scheme=TagScheme.bio)
    found, how = examples(kind, BIO)
    draws = np.random.default_rng(0)
    said = [draws.integers(how.n_out, size=len(tags)) for tags in found.tags]

    def decided(numbers: list[int]) -> Decisions:
        part = replace(found.take(np.array(numbers)), ids=[str(n) for n in range(len(numbers))])
        flat = np.concatenate([said[n] for n in numbers]).astype(float)
        return kind.decide(part, Answers(flat, np.zeros((len(flat), 1), np.float32), np.zeros((len(flat), 1))), how)

    fast = kind.weighted(metric, decided([0, 1, 2]))(np.array([[1.0, 1, 1], [2, 0, 3]]))
    for value, numbers in zip(fast, ([0, 1, 2], [0, 0, 2, 2, 2]), strict=True):
        assert value == pytest.approx(kind.score(decided(numbers), how.labels).values[metric.value], abs=1e-12)


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ({"w": ["a", "b"], "t": ["P"]}, {"labels": ["P", "V"]}, "a:1: 2 words and 1 tags: give each word one tag"),
        ({"w": [], "t": []}, {"labels": ["P", "V"]}, "a:1: column 'w' has no words"),
        ({"w": "a b", "t": "P Z"}, {"labels": ["P", "V"]}, r"a:1 \(word 2\): label 'Z' is not in task.labels \(P, V\)"),
        ({"w": "a b", "t": "P Z", "LINE": [4, 5]}, {"labels": ["P", "V"]}, r"a:5: label 'Z' is not in task.labels"),
        ({"w": "a b", "t": "O P"}, {"scheme": TagScheme.bio}, "tag 'P', which is neither O nor B-… nor I-…"),
        ({"w": "a b", "t": "P P"}, {}, "every word of task toy has the tag 'P'"),
    ],
)
def test_tags_that_cannot_be_are_refused(row: dict[str, object], settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        examples(tagging(**settings), rows(row))


def test_a_model_too_short_for_a_word_is_refused() -> None:
    kind = tagging()
    assert isinstance(kind, Tagging)
    found, _ = examples(kind, TWO)
    with pytest.raises(UserError, match="the model takes 2 tokens, special ones included: too few for a word"):
        kind.encode(found, letters(), 2)
