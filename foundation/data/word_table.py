"""Encode running text by looking up its words: the ids are the tokenizer's, for a fraction of the work."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.data.tokenizer import FlatEncoding, Spaces, Tokenizer

# Stands before the first word of a text; every other word is one behind a space.
_START = "\0"
# The text and its words stay in the processor's second cache: two thirds of the time.
_TEXTS_AT_ONCE = 512
# Some 100 MB at most in English, where nine words in ten are among the 10,000 most frequent.
_MOST_WORDS = 1 << 19
# And what they may have together, should they be long.
_MOST_CHARACTERS = 1 << 23


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for. new: those whose ids are not known yet."""

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


class WordTable:
    """Encodes texts as `tokenizer.encode_flat` does. Remembers the ids of words; forgets them all when they are too many.

    Where white space is part of tokens, a run of it must not be cut; texts with such a run, and those with a zero, go to the
    tokenizer whole, and so does everything if the tokenizer is of an unknown make. Not for two threads at once.
    """

    def __init__(
        self, tokenizer: Tokenizer, most_words: int = _MOST_WORDS, most_characters: int = _MOST_CHARACTERS
    ) -> None:
        self._tokenizer = tokenizer
        self._most_words, self._most_characters = most_words, most_characters
        self._forget()

    def __len__(self) -> int:
        return len(self._numbers)

    def encode(self, texts: list[str]) -> FlatEncoding:
        """The ids of `texts`, in order, and the length of each."""
        if self._tokenizer.spaces is Spaces.unknown or not texts or any(_START in text for text in texts):
            return self._tokenizer.encode_flat(texts)
        if len(self._numbers) > self._most_words or self._n_characters > self._most_characters:
            self._forget()
        numbers = np.concatenate(
            [self._numbers.of(texts[first : first + _TEXTS_AT_ONCE]) for first in range(0, len(texts), _TEXTS_AT_ONCE)]
        )
        self._learn()
        n_words = np.fromiter((text.count(" ") for text in texts), np.int64, len(texts)) + 1
        if self._tokenizer.spaces is Spaces.dropped:
            return self._look_up(numbers, n_words)
        divisible = ~np.logical_or.reduceat(self._ends_in_space.values[numbers], n_words.cumsum() - n_words)
        if divisible.all():
            return self._look_up(numbers, n_words)
        whole = self._tokenizer.encode_flat([texts[index] for index in np.flatnonzero(~divisible)])
        return _merge(divisible, self._look_up(numbers[np.repeat(divisible, n_words)], n_words[divisible]), whole)

    def _forget(self) -> None:
        self._numbers, self._n_characters = _Numbers(), 0
        # Of word w: ids[starts[w] : starts[w] + lengths[w]].
        self._ids, self._starts, self._lengths = (
            _Column(dtype) for dtype in (self._tokenizer.id_dtype, np.int64, np.int64)
        )
        # So that the space behind it belongs to a run.
        self._ends_in_space = _Column(np.bool_)

    def _learn(self) -> None:
        """Have the words encoded that were seen for the first time."""
        words, self._numbers.new = self._numbers.new, []
        encoded = self._tokenizer.encode_flat([word[1:] if word.startswith(_START) else f" {word}" for word in words])
        self._starts.extend(len(self._ids.values) + encoded.lengths.cumsum() - encoded.lengths)
        self._lengths.extend(encoded.lengths)
        self._ids.extend(encoded.ids)
        self._ends_in_space.extend(np.array([not word or word[-1].isspace() for word in words], np.bool_))
        self._n_characters += sum(map(len, words))

    def _look_up(self, numbers: NDArray[np.int64], n_words: NDArray[np.int64]) -> FlatEncoding:
        """numbers: of all words, (words,). n_words: in each text, (texts,), at least one."""
        lengths = self._lengths.values[numbers]
        ends = lengths.cumsum()
        shifts = self._starts.values[numbers] - (ends - lengths)
        ids = self._ids.values[np.repeat(shifts, lengths) + np.arange(lengths.sum())]
        return FlatEncoding(ids, np.diff(ends[n_words.cumsum() - 1], prepend=0))


def _merge(is_first: NDArray[np.bool_], first: FlatEncoding, second: FlatEncoding) -> FlatEncoding:
    """Of texts that were told apart by `is_first`, (texts,), in their order."""
    lengths = np.empty(len(is_first), np.int64)
    lengths[is_first], lengths[~is_first] = first.lengths, second.lengths
    is_first_token = np.repeat(is_first, lengths)
    ids = np.empty(len(is_first_token), first.ids.dtype)
    ids[is_first_token], ids[~is_first_token] = first.ids, second.ids
    return FlatEncoding(ids, lengths)
