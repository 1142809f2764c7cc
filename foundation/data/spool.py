"""Cleaned, distinct documents on disk: the tokenizer is trained from them, then they are encoded."""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundation.core.errors import UserError
from foundation.data.sentences import split_sentences
from foundation.data.sources import Document

_HEADER = struct.Struct("<QQQ")  # hash, words, bytes of text
_HASHES = 1 << 64


@dataclass(frozen=True, slots=True)
class SpooledText:
    """A document on its way into the corpus."""

    text: str
    n_words: int
    is_held_out: bool


@dataclass(frozen=True, slots=True)
class Spool:
    """Documents in one file, in the order of arrival. Those with a hash below the bound are held out."""

    path: Path
    held_out_below: int
    n_words: int
    duplicates_dropped: int
    documents_per_source: Counter[str]

    @property
    def n_documents(self) -> int:
        """Distinct documents, both splits."""
        return self.documents_per_source.total()

    def __iter__(self) -> Iterator[SpooledText]:
        with self.path.open("rb") as file:
            while header := file.read(_HEADER.size):
                key, n_words, n_bytes = _HEADER.unpack(header)
                text = file.read(n_bytes).decode()
                yield SpooledText(text, n_words, key < self.held_out_below)


def text_hash(text: str) -> int:
    """64 bits: two different texts among 10 million share one with chance 3e-6, and then the second is dropped."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class HashesSeen:
    """A set of 64-bit hashes in eight bytes each, where Python's own takes about ninety: ten million documents are 80 MB.

    New ones wait in a Python set until they are worth a merge into the sorted array.
    """

    def __init__(self, merge_at: int = 1 << 20) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._new: set[int] = set()
        self._merge_at = merge_at
        self.smallest, self.largest = _HASHES, -1

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def add(self, key: int) -> bool:
        """Remember it; False where it was there."""
        if key in self._new:
            return False
        at = int(np.searchsorted(self._sorted, np.uint64(key)))
        if at < len(self._sorted) and int(self._sorted[at]) == key:
            return False
        self._new.add(key)
        self.smallest, self.largest = min(self.smallest, key), max(self.largest, key)
        if len(self._new) >= self._merge_at:
            new = np.fromiter(self._new, np.uint64, len(self._new))
            self._sorted = np.sort(np.concatenate([self._sorted, new]))
            self._new = set()
        return True


def fill_spool(path: Path, stream: Iterable[Document], held_out: float) -> Spool:
    """Write each distinct document of `stream`, stripped, to `path`; empty ones are left out.

    Membership depends on the text alone, so a document stays on its side when others come or go. The only exception are
    corpora so small that one side would be empty: the smallest (or largest) hash then goes there.
    """
    seen = HashesSeen()
    n_words = duplicates = 0
    per_source: Counter[str] = Counter()
    with path.open("wb") as file:
        for document in stream:
            text = document.text.strip()
            if not text:
                continue
            key = text_hash(text)
            if not seen.add(key):
                duplicates += 1
                continue
            encoded, words = text.encode(), len(text.split())
            file.write(_HEADER.pack(key, words, len(encoded)))
            file.write(encoded)
            n_words += words
            per_source[document.source] += 1
    if len(seen) < 2:
        raise UserError(
            f"the corpus is too small: its sources hold {len(seen)} distinct documents that are not empty, and two are "
            "needed, one to train on and one to hold out (in .txt files a blank line separates documents)"
        )
    bound = min(max(int(held_out * _HASHES), seen.smallest + 1), seen.largest)
    return Spool(path, bound, n_words, duplicates, per_source)


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """What the tokenizer is trained on: training documents, or at most `max_words` words of theirs, taken evenly."""

    spool: Spool
    max_words: int | None

    def __iter__(self) -> Iterator[str]:
        share = 1.0 if self.max_words is None else self.max_words / self.spool.n_words
        owed = 0.0
        for document in self.spool:
            if document.is_held_out:
                continue
            if share >= 1:
                yield document.text
                continue
            # Each word adds its share to what is owed; a sentence is taken when that pays for it.
            for sentence in split_sentences(document.text):
                n_words = len(sentence.split())
                owed += share * n_words
                if owed >= n_words:
                    owed -= n_words
                    yield sentence
