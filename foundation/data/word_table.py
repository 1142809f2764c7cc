"""Encode running text by looking up its words: the ids are the tokenizer's, for a fraction of the work."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.data.tokenizer import FlatEncoding, Spaces, Tokenizer

# Stands before the first word of a text; every other word is one behind a space.
_START = "\0"
# So that these texts and their words fit into a core's own cache, which takes a third off the time.
_TEXTS_AT_ONCE = 512
# Some 100 MB at most in English, where nine words in ten are among the 10,000 most frequent.
_MOST_WORDS = 1 << 19
# And what they may have together, should they be long.
_MOST_CHARACTERS = 1 << 23


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for. new: those that were not there before."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.new.append(word)
        return number

    def of(self, texts: list[str]) -> NDArray[np.int64]:
        """The numbers of all words of `texts`, which are split at each space; (words,)."""
        words = (_START + f" {_START}".join(texts)).split(" ")
        return np.fromiter(map(self.__getitem__, words), np.int64, len(words))


class _Column:
    """An array that grows at its end; what that costs does not depend on how long it is."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._buffer = np.empty(1 << 10, dtype)
        self._used = 0

    @property
    def values(self) -> NDArray[Any]:
        """All there are, until the next are added."""
        return self._buffer[: self._used]

    def extend(self, values: NDArray[Any]) -> None:
        """Add `values` at the end."""
        end = self._used + len(values)
        if end > len(self._buffer):
            self._buffer = np.concatenate([self.values, np.empty(end, self._buffer.dtype)])
        self._buffer[self._used : end] = values
        self._used = end


class _Encodings:
    """The ids of numbered words: those of word w are ids[starts[w] : starts[w] + lengths[w]]."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids, self._starts, self._lengths = (_Column(dtype) for dtype in (tokenizer.id_dtype, np.int64, np.int64))
        # So that the space behind it belongs to a run.
        self._ends_in_space = _Column(np.bool_)

    def learn(self, words: list[str]) -> None:
        """Encode the words that have the next numbers."""
        encoded = self._tokenizer.encode_flat([word[1:] if word.startswith(_START) else f" {word}" for word in words])
        self._starts.extend(len(self._ids.values) + encoded.lengths.cumsum() - encoded.lengths)
        self._lengths.extend(encoded.lengths)
        self._ids.extend(encoded.ids)
        self._ends_in_space.extend(np.array([not word or word[-1].isspace() for word in words], np.bool_))

    def of(self, texts: list[str], numbers: NDArray[np.int64], n_words: NDArray[np.int64]) -> FlatEncoding:
        """The ids of `texts`. numbers: of all their words, (words,). n_words: in each text, (texts,), at least one."""
        if self._tokenizer.spaces is Spaces.dropped:
            return self._joined(numbers, n_words)
        divisible = ~np.logical_or.reduceat(self._ends_in_space.values[numbers], n_words.cumsum() - n_words)
        if divisible.all():
            return self._joined(numbers, n_words)
        whole = self._tokenizer.encode_flat([texts[index] for index in np.flatnonzero(~divisible)])
        return _merge(divisible, self._joined(numbers[np.repeat(divisible, n_words)], n_words[divisible]), whole)

    def _joined(self, numbers: NDArray[np.int64], n_words: NDArray[np.int64]) -> FlatEncoding:
        lengths = self._lengths.values[numbers]
        ends = lengths.cumsum()
        shifts = self._starts.values[numbers] - (ends - lengths)
        ids = self._ids.values[np.repeat(shifts, lengths) + np.arange(lengths.sum())]
        return FlatEncoding(ids, np.diff(ends[n_words.cumsum() - 1], prepend=0))


@dataclass(frozen=True, slots=True)
class NumberedTexts:
    """Texts whose words have numbers, (words,); n_words: of each text, (texts,). new: words that nobody has encoded yet."""

    texts: list[str]
    numbers: NDArray[np.int64]
    n_words: NDArray[np.int64]
    new: list[str]
    encodings: _Encodings

    def encode(self) -> FlatEncoding:
        """The ids. Once for each that a table numbered, in the same order, for `new` holds what later ones need."""
        self.encodings.learn(self.new)
        return self.encodings.of(self.texts, self.numbers, self.n_words)


@dataclass(frozen=True, slots=True)
class WholeTexts:
    """Texts whose words must not be looked up."""

    texts: list[str]
    tokenizer: Tokenizer

    def encode(self) -> FlatEncoding:
        """The ids, by the tokenizer."""
        return self.tokenizer.encode_flat(self.texts)


class WordTable:
    """Encodes texts as `tokenizer.encode_flat` does. Remembers the ids of words; forgets them all when they are too many.

    In two parts, which two threads can do at the same time for different texts: words get numbers, which is Python's work,
    and numbers get ids, most of which is not.

    Where white space is part of tokens, a run of it must not be cut; texts with such a run, and those with a zero, go to the
    tokenizer whole, and so does everything if the tokenizer is of an unknown make.
    """

    def __init__(
        self, tokenizer: Tokenizer, most_words: int = _MOST_WORDS, most_characters: int = _MOST_CHARACTERS
    ) -> None:
        self._tokenizer = tokenizer
        self._most_words, self._most_characters = most_words, most_characters
        self._forget()

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, texts: list[str]) -> NumberedTexts | WholeTexts:
        """The first part."""
        if self._tokenizer.spaces is Spaces.unknown or not texts or any(_START in text for text in texts):
            return WholeTexts(texts, self._tokenizer)
        if len(self._numbers) > self._most_words or self._n_characters > self._most_characters:
            self._forget()
        numbers = np.concatenate(
            [self._numbers.of(texts[first : first + _TEXTS_AT_ONCE]) for first in range(0, len(texts), _TEXTS_AT_ONCE)]
        )
        n_words = np.fromiter((text.count(" ") for text in texts), np.int64, len(texts)) + 1
        new, self._numbers.new = self._numbers.new, []
        self._n_characters += sum(map(len, new))
        return NumberedTexts(texts, numbers, n_words, new, self._encodings)

    def _forget(self) -> None:
        # New objects: texts that were numbered before still need the old ones.
        self._numbers, self._encodings, self._n_characters = _Numbers(), _Encodings(self._tokenizer), 0


def _merge(is_first: NDArray[np.bool_], first: FlatEncoding, second: FlatEncoding) -> FlatEncoding:
    """Of texts that were told apart by `is_first`, (texts,), in their order."""
    lengths = np.empty(len(is_first), np.int64)
    lengths[is_first], lengths[~is_first] = first.lengths, second.lengths
    is_first_token = np.repeat(is_first, lengths)
    ids = np.empty(len(is_first_token), first.ids.dtype)
    ids[is_first_token], ids[~is_first_token] = first.ids, second.ids
    return FlatEncoding(ids, lengths)
