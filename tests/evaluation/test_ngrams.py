"""The n-gram baselines against loops over dictionaries, written from the formulas alone."""

from collections import Counter

import numpy as np
import pytest

from foundation.data.corpus import TokenTable
from foundation.evaluation.ngrams import KneserNey, Places, Unigram, _distinct, corpus_places, sentence_scores
from tests.builders import SPECIALS

V = 11
Gram = tuple[int, ...]


def sentences(n: int, seed: int) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return [draws.zipf(1.7, draws.integers(1, 8)).clip(max=V - 5) + 4 for _ in range(n)]


def places(parts: list[np.ndarray]) -> Places:
    return Places.of(np.concatenate(parts), np.array([len(part) for part in parts]), SPECIALS)


def framed(parts: list[np.ndarray]) -> list[Gram]:
    return [(SPECIALS.cls, *part.tolist(), SPECIALS.sep) for part in parts]


class Reference:
    """Interpolated Kneser–Ney, one gram at a time."""

    def __init__(self, text: list[Gram], order: int) -> None:
        self.order = order
        raw = Counter(
            sentence[i : i + k] for sentence in text for k in range(1, order + 1) for i in range(len(sentence) - k + 1)
        )
        self.count: dict[Gram, int] = {}
        for gram, times in raw.items():
            if len(gram) == order or (gram[0] == SPECIALS.cls and len(gram) > 1):
                self.count[gram] = times
            elif gram != (SPECIALS.cls,):
                self.count[gram] = sum(1 for other in raw if len(other) == len(gram) + 1 and other[1:] == gram)
        if order == 1:
            self.count.pop((SPECIALS.cls,), None)

    def discount(self, k: int) -> float:
        of_order = [n for gram, n in self.count.items() if len(gram) == k]
        once, twice = of_order.count(1), of_order.count(2)
        return once / (once + 2 * twice) if once and twice else 0.5

    def p(self, token: int, context: Gram) -> float:
        lower = 1 / (V - 1) if not context else self.p(token, context[1:])
        k = len(context) + 1
        follow = [n for gram, n in self.count.items() if len(gram) == k and gram[:-1] == context]
        if not follow:
            return lower
        d = self.discount(k)
        return (max(self.count.get((*context, token), 0) - d, 0) + d * len(follow) * lower) / sum(follow)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("n_sentences", [3, 40])
def test_kneser_ney_equals_the_formula_gram_by_gram(order: int, n_sentences: int) -> None:
    seen, asked = sentences(n_sentences, seed=order), sentences(12, seed=99)
    model = KneserNey(places(seen), order=order, vocab_size=V, specials=SPECIALS)
    reference = Reference(framed(seen), order)
    expected = [
        0.0 if i == 0 else np.log(reference.p(sentence[i], sentence[max(0, i - order + 1) : i]))
        for sentence in framed(asked)
        for i in range(len(sentence))
    ]
    found = model.log_probabilities(places(asked))
    assert found == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("context", [[], [6], [5, 6], [9, 9, 9, 9], [10]])
def test_what_may_follow_a_context_sums_to_one(context: list[int]) -> None:
    model = KneserNey(places(sentences(30, seed=0)), order=4, vocab_size=V, specials=SPECIALS)
    total = 0.0
    for token in set(range(V)) - {SPECIALS.cls}:
        text = places([np.array([*context, token])])
        total += np.exp(model.log_probabilities(text)[len(context) + 1])
    assert total == pytest.approx(1, abs=1e-12)


def test_a_text_that_was_seen_is_likelier_than_its_reverse() -> None:
    seen = [np.array([5, 6, 7, 8, 9])] * 20
    model = KneserNey(places(seen), order=5, vocab_size=V, specials=SPECIALS)
    forward, backward = sentence_scores(model, [seen[0], seen[0][::-1]], SPECIALS)
    assert forward > backward + 5


def test_unigrams_count_tokens_and_give_every_one_a_chance() -> None:
    model = Unigram(places([np.array([5, 5, 6]), np.array([6, 5])]), vocab_size=V, specials=SPECIALS)
    found = sentence_scores(model, [np.array([5]), np.array([6, 7])], SPECIALS)
    n = 5 + (V - 2)
    assert found == pytest.approx([np.log(4 / n), np.log(3 / n) + np.log(1 / n)], abs=1e-12)


def test_the_corpus_is_read_in_whole_sentences_up_to_a_limit() -> None:
    table = TokenTable(
        np.arange(5, 15, dtype=np.uint16), np.array([0, 10], dtype=np.int64), np.array([0, 3, 7, 10], dtype=np.int64)
    )
    whole = corpus_places(table, SPECIALS, 1000)
    assert whole.tokens.tolist() == [2, 5, 6, 7, 3, 2, 8, 9, 10, 11, 3, 2, 12, 13, 14, 3]
    assert whole.depth.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]
    assert corpus_places(table, SPECIALS, 8).tokens.tolist() == whole.tokens.tolist()[:11]
    assert corpus_places(table, SPECIALS, 1).tokens.tolist() == [2, 5, 6, 7, 3]


@pytest.mark.parametrize("n", [0, 1, 500])
def test_distinct_keys_are_those_of_numpy(n: int) -> None:
    keys = np.random.default_rng(n).integers(-5, 40, n)
    found, one, number, counts = _distinct(keys)
    expected = np.unique(keys, return_inverse=True, return_counts=True)
    for ours, theirs in zip((found, number, counts), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(keys[one], found)
