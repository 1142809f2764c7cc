"""Encode documents and append them to the files of one split, a batch at a time."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.corpus import DOCUMENTS, IDS, SENTENCES, SplitCounts
from foundation.data.sentences import split_sentences
from foundation.data.tokenizer import FlatEncoding, Tokenizer
from foundation.data.word_table import NumberedTexts, WholeTexts, WordTable

# Enough work for every core, while what the library keeps for a token (about 100 bytes) stays below some 100 MB.
_SENTENCES_PER_BATCH = 8192


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Documents to encode. ends: how many sentences there are up to each document's end. sizes: its words and bytes."""

    sentences: list[str]
    ends: list[int]
    sizes: list[tuple[int, int]]


class SplitWriter:
    """Collects documents and writes their ids and bounds; what encodes to nothing leaves no trace."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        folder.mkdir()
        self._folder = folder
        self._words = WordTable(tokenizer)
        self._ids, self._documents, self._sentences = (
            (folder / name).open("wb") for name in (IDS, DOCUMENTS, SENTENCES)
        )
        for bounds in (self._documents, self._sentences):
            bounds.write(np.zeros(1, dtype=np.int64).data)
        self._waiting = _Waiting([], [], [])
        self._ahead: tuple[_Waiting, Future[list[FlatEncoding]]] | None = None
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoding")
        self._n_documents = self._n_sentences = self._n_words = self._n_bytes = self._n_tokens = 0
        self.unigrams: NDArray[np.int64] = np.zeros(tokenizer.vocab_size, dtype=np.int64)

    def add(self, text: str, n_words: int) -> None:
        """Append one document."""
        waiting = self._waiting
        waiting.sentences.extend(split_sentences(text))
        waiting.ends.append(len(waiting.sentences))
        waiting.sizes.append((n_words, len(text.encode())))
        if len(waiting.sentences) >= _SENTENCES_PER_BATCH:
            self._encode_ahead()

    def close(self) -> SplitCounts:
        """Write what is left, flush it to the disk, and say how much it was in all."""
        self._encode_ahead()
        self._write()
        self._encoder.shutdown()
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

    def _encode_ahead(self) -> None:
        """Have a thread encode what waits, while the caller reads on; and write what it encoded before."""
        waiting, self._waiting = self._waiting, _Waiting([], [], [])
        ahead = (
            (waiting, self._encoder.submit(_encode, self._numbered(waiting.sentences))) if waiting.sentences else None
        )
        self._write()
        self._ahead = ahead

    def _numbered(self, sentences: list[str]) -> list[NumberedTexts | WholeTexts]:
        """In parts, since one document may be a whole library."""
        return [
            self._words.number(sentences[start : start + _SENTENCES_PER_BATCH])
            for start in range(0, len(sentences), _SENTENCES_PER_BATCH)
        ]

    def _write(self) -> None:
        """Append the documents that were encoded ahead."""
        if self._ahead is None:
            return
        (waiting, encoding), self._ahead = self._ahead, None
        parts = encoding.result()
        for part in parts:
            self._ids.write(part.ids.data)
            self.unigrams += np.bincount(part.ids, minlength=len(self.unigrams))
        lengths = np.concatenate([part.lengths for part in parts])
        ends = self._n_tokens + lengths.cumsum()
        document_ends = ends[np.array(waiting.ends) - 1]
        has_tokens = np.diff(document_ends, prepend=self._n_tokens) > 0
        self._n_sentences += self._write_bounds(self._sentences, ends[lengths > 0])
        self._n_documents += self._write_bounds(self._documents, document_ends[has_tokens])
        n_words, n_bytes = np.array(waiting.sizes)[has_tokens].sum(axis=0).tolist()
        self._n_words += n_words
        self._n_bytes += n_bytes
        self._n_tokens = int(ends[-1])

    @staticmethod
    def _write_bounds(file: BinaryIO, bounds: NDArray[np.int64]) -> int:
        file.write(bounds.data)
        return len(bounds)


def _encode(parts: list[NumberedTexts | WholeTexts]) -> list[FlatEncoding]:
    """The interpreter goes on meanwhile: most of the time is the library's."""
    return [part.encode() for part in parts]
