"""A prepared corpus: token ids with document and sentence bounds in memory maps, its tokenizer, and a manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.files import hash_file, read_json
from foundation.data.tokenizer import Tokenizer

FORMAT_VERSION = 1  # part of the cache key: raise it whenever the same settings would give other files
IDS, DOCUMENTS, SENTENCES = "ids.bin", "documents.bin", "sentences.bin"
TOKENIZER, MANIFEST = "tokenizer.json", "manifest.json"
_ALWAYS_IN_MANIFEST = {
    "format_version",
    "fingerprint",
    "tokenizer_fingerprint",
    "id_dtype",
    "file_bytes",
    "file_hashes",
}


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of one split, without [CLS] and [SEP].

    ids: (n_tokens,) uint16 or uint32.
    documents: (n_documents + 1,) int64. Document i is ids[documents[i] : documents[i + 1]]; the last entry is n_tokens.
    sentences: (n_sentences + 1,) int64, likewise; every entry of documents is among them.
    No document and no sentence is empty.
    """

    ids: NDArray[np.unsignedinteger]
    documents: NDArray[np.int64]
    sentences: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """How much text one split holds; a word is what white space separates, bytes are those of UTF-8."""

    documents: int
    sentences: int
    words: int
    bytes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Both splits, memory-mapped, with the tokenizer that made them.

    manifest: content of manifest.json: counts of each split (see SplitCounts), settings, hashes.
    """

    path: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    train: TokenTable
    held_out: TokenTable

    @property
    def fingerprint(self) -> str:
        """A hash of contents alone: the same tokens give the same one, whenever and wherever they were made."""
        return str(self.manifest["fingerprint"])

    @classmethod
    def open(cls, path: Path, verify: bool = False) -> "Corpus":
        """Open a prepared folder; sizes are always checked, contents with `verify` (which reads every byte)."""
        if not path.is_dir():
            raise UserError(f"no corpus at {path}: make one by running a pretraining, or name another folder")
        manifest = _read_manifest(path)
        for name, size in manifest["file_bytes"].items():
            file = path / name
            if not file.is_file():
                raise _damaged(path, f"{name} is missing")
            if file.stat().st_size != size:
                raise _damaged(path, f"{name} has {file.stat().st_size} bytes instead of {size}")
            if verify and hash_file(file) != manifest["file_hashes"][name]:
                raise _damaged(path, f"the content of {name} has changed")
        tokenizer = Tokenizer.load(path / TOKENIZER)
        if tokenizer.fingerprint != manifest["tokenizer_fingerprint"]:
            raise _damaged(path, f"{TOKENIZER} is not the one that made it")
        train, held_out = (open_table(path / split, manifest["id_dtype"]) for split in ("train", "held_out"))
        return cls(path, manifest, tokenizer, train, held_out)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict):
        raise _damaged(folder, f"its {MANIFEST} is not a JSON object")
    if missing := _ALWAYS_IN_MANIFEST - manifest.keys():
        raise _damaged(folder, f"its {MANIFEST} lacks {', '.join(sorted(missing))}")
    if manifest["format_version"] != FORMAT_VERSION:
        raise _damaged(folder, f"it has format {manifest['format_version']}, while this version reads {FORMAT_VERSION}")
    return manifest


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(f"the corpus at {folder} is damaged: {what}. Delete the folder and it will be made again")


def open_table(folder: Path, id_dtype: str) -> TokenTable:
    """The files that a SplitWriter left in `folder`, memory-mapped."""
    return TokenTable(
        ids=np.memmap(folder / IDS, dtype=id_dtype, mode="r"),
        documents=np.memmap(folder / DOCUMENTS, dtype=np.int64, mode="r"),
        sentences=np.memmap(folder / SENTENCES, dtype=np.int64, mode="r"),
    )
