"""Encode documents and append them to the files of one split, a batch at a time."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.corpus import DOCUMENTS, IDS, SENTENCES, SplitCounts
from foundation.data.sentences import split_sentences
from foundation.data.tokenizer import Tokenizer

# Enough work for every core, while what the library keeps for a token (about 100 bytes) stays below some 100 MB.
_SENTENCES_PER_BATCH = 8192


class SplitWriter:
    """Collects documents and writes their ids and bounds; what encodes to nothing leaves no trace."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir()
        self._folder = folder
        self._tokenizer = tokenizer
        self._ids, self._documents, self._sentences = (
            (folder / name).open("wb") for name in (IDS, DOCUMENTS, SENTENCES)
        )
        for bounds in (self._documents, self._sentences):
            bounds.write(np.zeros(1, dtype=np.int64).data)
        self._waiting: list[str] = []  # sentences
        self._ends: list[int] = []  # for each waiting document, how many sentences wait up to its end
        self._sizes: list[tuple[int, int]] = []  # words and bytes of each waiting document
        self._n_documents = self._n_sentences = self._n_words = self._n_bytes = self._n_tokens = 0
        self.unigrams: NDArray[np.int64] = np.zeros(tokenizer.vocab_size, dtype=np.int64)

    def add(self, text: str, n_words: int) -> None:
        """Append one document."""
        self._waiting.extend(split_sentences(text))
        self._ends.append(len(self._waiting))
        self._sizes.append((n_words, len(text.encode())))
        if len(self._waiting) >= _SENTENCES_PER_BATCH:
            self._flush()

    def close(self) -> SplitCounts:
        """Write what is left, flush it to the disk, and say how much it was in all."""
        self._flush()
        for file in (self._ids, self._documents, self._sentences):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if not self._n_tokens:
            raise UserError(f"no document of the {self._folder.name} split has a single token: give more text")
        return SplitCounts(
            documents=self._n_documents,
            sentences=self._n_sentences,
            words=self._n_words,
            bytes=self._n_bytes,
            tokens=self._n_tokens,
        )

    def _flush(self) -> None:
        if not self._waiting:
            return
        lengths = np.concatenate(
            [self._write_ids(start) for start in range(0, len(self._waiting), _SENTENCES_PER_BATCH)]
        )
        ends = self._n_tokens + lengths.cumsum()
        document_ends = ends[np.array(self._ends) - 1]
        has_tokens = np.diff(document_ends, prepend=self._n_tokens) > 0
        self._n_sentences += self._write_bounds(self._sentences, ends[lengths > 0])
        self._n_documents += self._write_bounds(self._documents, document_ends[has_tokens])
        n_words, n_bytes = np.array(self._sizes)[has_tokens].sum(axis=0).tolist()
        self._n_words += n_words
        self._n_bytes += n_bytes
        self._n_tokens = int(ends[-1])
        self._waiting, self._ends, self._sizes = [], [], []

    def _write_ids(self, start: int) -> NDArray[np.int64]:
        """Encode one batch of the waiting sentences; returns their lengths."""
        flat = self._tokenizer.encode_flat(self._waiting[start : start + _SENTENCES_PER_BATCH])
        self._ids.write(flat.ids.data)
        self.unigrams += np.bincount(flat.ids, minlength=len(self.unigrams))
        return flat.lengths

    @staticmethod
    def _write_bounds(file: BinaryIO, bounds: NDArray[np.int64]) -> int:
        file.write(bounds.data)
        return len(bounds)
