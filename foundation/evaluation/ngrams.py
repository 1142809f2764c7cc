"""The baselines that know no grammar beyond a few neighbours: unigrams, and interpolated Kneser–Ney n-grams.

Every distinct n-gram of order k has a number. That of order k ending at a place is found from the number of the order k − 1
ending one place before and the token there, so that a text of any length is a few sorts and look-ups of whole arrays.

Letters: P places of all sentences laid end to end, each [CLS] … [SEP] · G_k distinct k-grams · V vocabulary
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.data.corpus import TokenTable
from foundation.data.tokenizer import SpecialIds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_UNSEEN = -1
# Where so few n-grams occur once or twice that their ratio says nothing.
_USUAL_DISCOUNT = 0.5


@dataclass(frozen=True, slots=True)
class Places:
    """Sentences laid end to end. tokens: (P,) ids. depth: (P,) how many places lie between here and the sentence's [CLS]."""

    tokens: Ints
    depth: Ints

    @classmethod
    def of(cls, ids: NDArray[np.integer], lengths: Ints, specials: SpecialIds) -> "Places":
        """Put [CLS] before and [SEP] behind each sentence; lengths are the sentences' without them."""
        starts = (lengths + 2).cumsum() - (lengths + 2)
        depth = np.arange(int((lengths + 2).sum())) - starts.repeat(lengths + 2)
        tokens = np.full(len(depth), specials.cls, dtype=np.int64)
        tokens[starts + lengths + 1] = specials.sep
        inside = (depth > 0) & (depth <= lengths.repeat(lengths + 2))
        tokens[inside] = ids
        return cls(tokens, depth)


@dataclass(frozen=True, slots=True)
class _Grams:
    """The distinct k-grams of a text, each (G_k,). keys: sorted, number of the first k − 1 tokens · V + last token.

    raw: how often they occur. opens: whether they start with [CLS]. last: number of the (k − 1)-gram that they end with.
    """

    keys: Ints
    raw: Ints
    opens: NDArray[np.bool_]
    last: Ints


@dataclass(frozen=True, slots=True)
class _Order:
    """All k-grams of one order k. Their contexts are the (k − 1)-grams, by number.

    keys: (G_k,) sorted, number of the context · V + last token. counts: (G_k,) adjusted. mass, types: of each context, the sum
    and the number of the counts of what follows. discount: taken from every count.
    """

    keys: Ints
    counts: Floats
    mass: Floats
    types: Ints
    discount: float


class KneserNey:
    """p(token | the order − 1 tokens before it), interpolated over all shorter contexts down to the uniform distribution.

    p_k(w | c) = max(a(cw) − d_k, 0) / a(c·) + d_k · N(c·) / a(c·) · p_{k−1}(w | c'), with c' the context without its first
    token, N(c·) how many different tokens follow, and d_k = n1 / (n1 + 2·n2). The count a(g) of the highest order is how often
    g occurs; below, how many different tokens stand before it; a g at the start of a sentence, where nothing stands before,
    keeps how often it occurs (Kneser & Ney 1995; Chen & Goodman 1999, eq. 26; Heafield et al. 2013, 3.2).
    [CLS] is a context and is never predicted; [SEP] is predicted as a sentence's end.

    Args:
        text: what is counted. on_counted: told after the n-grams of each order beyond the first, which takes a while.
    """

    def __init__(
        self,
        text: Places,
        *,
        order: int,
        vocab_size: int,
        specials: SpecialIds,
        on_counted: Callable[[], object] = lambda: None,
    ) -> None:
        self.vocab_size = vocab_size
        ids = np.arange(vocab_size)
        grams = [_Grams(ids, np.bincount(text.tokens, minlength=vocab_size), ids == specials.cls, np.zeros_like(ids))]
        numbers = text.tokens  # of the k-gram that ends at each place
        for k in range(2, order + 1):
            above, numbers = _longer_grams(text, numbers, k, vocab_size)
            grams.append(above)
            on_counted()
        self.orders = []
        for k, gram in enumerate(grams, start=1):
            counts = gram.raw
            if k < order:
                before = np.bincount(grams[k].last, minlength=len(gram.keys))
                counts = np.where(gram.opens, gram.raw, before)
            if k == 1:
                counts = np.where(gram.opens, 0, counts)
            self.orders.append(_order(gram.keys, counts, len(grams[k - 2].keys) if k > 1 else 1, vocab_size))

    def log_probabilities(self, text: Places) -> Floats:
        """(P,) ln p of each token, given its own sentence up to it; 0 at [CLS]."""
        predicted = text.depth > 0
        p = np.full(len(text.tokens), 1 / (self.vocab_size - 1))
        before = np.zeros_like(text.tokens)  # number of the context of order k − 1 that ends one place before
        for k, order in enumerate(self.orders, start=1):
            known = predicted & (text.depth >= k - 1) & (before != _UNSEEN)
            known[known] = order.mass[before[known]] > 0
            context = before[known]
            number = _look_up(order.keys, context * self.vocab_size + text.tokens[known])
            count = np.where(number == _UNSEEN, 0.0, order.counts[number])
            kept = np.maximum(count - order.discount, 0)
            freed = order.discount * order.types[context]
            p[known] = (kept + freed * p[known]) / order.mass[context]
            here = text.tokens if k == 1 else np.full_like(text.tokens, _UNSEEN)
            if k > 1:
                here[known] = number
            before = np.concatenate([[_UNSEEN], here[:-1]])
        return np.where(predicted, np.log(p), 0.0)


def _longer_grams(text: Places, numbers: Ints, k: int, vocab_size: int) -> tuple[_Grams, Ints]:
    """The k-grams of a text from the numbers of its (k − 1)-grams, and the number of the one that ends at each place."""
    at = np.flatnonzero(text.depth >= k - 1)
    keys, one, number, raw = _distinct(numbers[at - 1] * vocab_size + text.tokens[at])
    here = np.full_like(text.tokens, _UNSEEN)
    here[at] = number
    return _Grams(keys, raw, text.depth[at[one]] == k - 1, numbers[at[one]]), here


def _distinct(keys: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Sorted distinct keys, where some occurrence of each lies, which of them stands at each place, and how often each does.

    np.unique's answer; but torch sorts by radix on all cores, in a fifth of numpy's time.
    """
    in_order, order = (part.numpy() for part in torch.from_numpy(keys).sort())
    is_new = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=is_new[1:])
    number = np.empty_like(keys)
    number[order] = is_new.cumsum() - 1
    starts = np.flatnonzero(is_new)
    return in_order[starts], order[starts], number, np.diff(starts, append=len(keys))


def _order(keys: Ints, raw_or_adjusted: Ints, n_contexts: int, vocab_size: int) -> _Order:
    counts = raw_or_adjusted.astype(np.float64)
    contexts = keys // vocab_size
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return _Order(
        keys=keys,
        counts=counts,
        mass=np.bincount(contexts, weights=counts, minlength=n_contexts).astype(np.float64),
        types=np.bincount(contexts[counts > 0], minlength=n_contexts),
        discount=once / (once + 2 * twice) if once and twice else _USUAL_DISCOUNT,
    )


def _look_up(keys: Ints, wanted: Ints) -> Ints:
    """Where each of `wanted` stands among the sorted keys, _UNSEEN where it does not."""
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, at, _UNSEEN)


class Unigram:
    """p(token) from its count in the text, one added to each so that none is 0; the sentence's end is not predicted."""

    def __init__(self, text: Places, *, vocab_size: int, specials: SpecialIds) -> None:
        counts = np.bincount(text.tokens, minlength=vocab_size) + 1.0
        counts[[specials.cls, specials.sep]] = 0
        with np.errstate(divide="ignore"):
            self.log_p = np.log(counts / counts.sum())
        self.log_p[[specials.cls, specials.sep]] = 0

    def log_probabilities(self, text: Places) -> Floats:
        """(P,) ln p of each token; 0 at [CLS] and [SEP]."""
        return self.log_p[text.tokens]


def corpus_places(table: TokenTable, specials: SpecialIds, max_tokens: int) -> Places:
    """The sentences of a corpus, whole ones of its first max_tokens tokens."""
    bounds = np.asarray(table.sentences)
    last = max(2, int(np.searchsorted(bounds, max_tokens, side="right")))
    bounds = bounds[:last]
    return Places.of(table.ids[: bounds[-1]], np.diff(bounds), specials)


def sentence_scores(
    model: KneserNey | Unigram, sentences: Sequence[NDArray[np.integer]], specials: SpecialIds
) -> Floats:
    """(S,) ln p of whole sentences, given as ids without special tokens."""
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    places = Places.of(np.concatenate(sentences), lengths, specials)
    found: Floats = np.add.reduceat(model.log_probabilities(places), np.flatnonzero(places.depth == 0))
    return found
