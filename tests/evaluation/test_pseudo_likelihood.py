"""Pseudo-log-likelihood against its definition: one masked copy at a time, in float64."""

import numpy as np
import pytest
import torch

from foundation.evaluation.pseudo_likelihood import _passes, n_masked_copies, pseudo_log_likelihoods
from foundation.evaluation.subject import Subject, load_subject
from foundation.objective.base import Example
from foundation.train.config import Precision
from foundation.train.foundation import load_foundation
from tests.builders import randomise
from tests.evaluation import toy


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(folder)
    subject = load_subject(load_foundation(folder / "toy" / "final"), torch.device("cpu"), Precision.fp32)
    randomise(subject.objective.double())
    return subject


def sentences(n: int, seed: int = 0) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return [draws.integers(5, 200, draws.integers(1, 12)).astype(np.uint16) for _ in range(n)]


def by_definition(subject: Subject, sentence: np.ndarray) -> float:
    """Every token masked in turn, alone, with softmax over all of the vocabulary at its place."""
    specials, total = subject.tokenizer.specials, 0.0
    for place, token in enumerate(sentence.tolist(), start=1):
        ids = [specials.cls, *sentence.tolist(), specials.sep]
        ids[place] = specials.mask
        nothing = torch.empty(0, dtype=torch.int64)
        one = Example(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.int64), (len(ids),), nothing, nothing, None)
        with torch.no_grad():
            hidden = subject.objective.encoder(one.ids, one.segments, one.layout())
            logits = subject.objective.heads["mlm"](hidden, subject.objective.encoder.token_embedding.weight)
        total += float(logits[place].log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("batch_tokens", [1, 2000, 1_000_000])
def test_it_is_the_sum_over_tokens_each_masked_alone(subject: Subject, batch_tokens: int) -> None:
    """Some lengths are few and share a pass; of six tokens there are enough for passes of their own, and some left over."""
    texts = [*sentences(15), *np.random.default_rng(1).integers(5, 200, (12, 6)).astype(np.uint16)]
    found = pseudo_log_likelihoods(subject, texts, batch_tokens=batch_tokens)
    assert found == pytest.approx(np.array([by_definition(subject, text) for text in texts]), abs=1e-10)


def test_equal_sentences_are_computed_once_and_score_the_same(subject: Subject) -> None:
    texts = sentences(4)
    done: list[int] = []
    found = pseudo_log_likelihoods(subject, [*texts, *texts[::-1]], batch_tokens=4096, on_scored=done.append)
    assert np.array_equal(found[:4], found[:3:-1])
    assert sum(done) == n_masked_copies([*texts, *texts]) == sum(map(len, texts))


def test_nothing_of_a_sentence_changes_the_score_of_another(subject: Subject) -> None:
    first, second = sentences(2, seed=5)
    alone = pseudo_log_likelihoods(subject, [first], batch_tokens=4096)
    beside = pseudo_log_likelihoods(subject, [second, first], batch_tokens=4096)
    assert beside[1] == pytest.approx(alone[0], abs=1e-10)


def test_no_sentence_and_one_without_tokens_need_no_pass(subject: Subject) -> None:
    assert not len(pseudo_log_likelihoods(subject, [], batch_tokens=4096))
    assert pseudo_log_likelihoods(subject, [np.empty(0, dtype=np.uint16)], batch_tokens=4096).tolist() == [0.0]


@pytest.mark.parametrize("batch_tokens", [1, 300, 8192])
def test_every_copy_is_in_one_pass_and_only_left_over_ones_are_filled_up(batch_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 20, 300)
    seen: list[tuple[int, int]] = []
    mixed_tokens = 0
    for sentence, masked in _passes(lengths, batch_tokens):
        seen += zip(sentence.tolist(), masked.tolist(), strict=True)
        n_tokens = lengths[sentence].sum()
        if n_tokens % 256:
            mixed_tokens += n_tokens
            assert n_tokens < batch_tokens + lengths.max()
        else:
            assert n_tokens <= max(batch_tokens, 256 * lengths.max())
    assert sorted(seen) == [(number, at) for number, length in enumerate(lengths) for at in range(1, length - 1)]
    left_over = {n: sum(lengths == n) * (n - 2) * n % np.lcm(256, n) for n in range(2, 20)}
    assert mixed_tokens <= sum(left_over.values())
