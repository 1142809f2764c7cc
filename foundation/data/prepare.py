"""Make a corpus once and find it ever after: documents -> spool -> tokenizer -> memory-mapped ids; streamed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from foundation.core.files import fingerprint, folder_in_progress, hash_file, write_json
from foundation.core.plain import to_plain
from foundation.data.config import DataConfig, TokenizerConfig
from foundation.data.corpus import FORMAT_VERSION, MANIFEST, TOKENIZER, Corpus
from foundation.data.reuse import same_but_for_times, with_checksums
from foundation.data.sources import describe_sources, documents
from foundation.data.split_writer import SplitWriter
from foundation.data.spool import TrainingTexts, fill_spool
from foundation.data.tokenizer import Tokenizer, tokenizer_file
from foundation.data.tokenizer_training import train_tokenizer

_LONGEST_NAME = 60
Item = TypeVar("Item")


def prepare(data: DataConfig, tokenizer: TokenizerConfig, cache_dir: Path, progress: bool = True) -> Corpus:
    """The corpus of these settings: opened if `cache_dir` holds it, made there if not.

    Whole or absent: an interrupted preparation leaves nothing, what a killed one leaves is removed by the next, and of two at
    once the first to finish serves both.
    `progress` shows bars on a terminal.
    """
    sources = describe_sources(data)
    final = cache_dir / _folder_name(data, tokenizer, sources)
    if not final.exists():
        if found := same_but_for_times(cache_dir, data, tokenizer, sources):
            return Corpus.open(found)
        try:
            with folder_in_progress(final) as folder:
                _make(folder, data, tokenizer, sources, progress)
        except OSError:
            if not final.exists():
                raise
            # Another process made the same corpus meanwhile: theirs is as good.
    return Corpus.open(final)


def _folder_name(data: DataConfig, tokenizer: TokenizerConfig, sources: list[dict[str, Any]]) -> str:
    """A readable name and a key of everything that decides the content and is known beforehand."""
    names = [
        *data.embedded,
        *(["files"] if data.files else []),
        *(source.name.rpartition("/")[2] for source in data.hub),
    ]
    cutter = "own-tokenizer" if tokenizer.path else f"{tokenizer.kind.value}{tokenizer.vocab_size}"
    key = fingerprint(
        {
            "format": FORMAT_VERSION,
            "data": to_plain(data),
            "sources": sources,
            "tokenizer": hash_file(tokenizer_file(tokenizer.path)) if tokenizer.path else to_plain(tokenizer),
        }
    )
    return f"{'-'.join(names)[:_LONGEST_NAME]}-{cutter}-{key}"


@dataclass(frozen=True, slots=True)
class _Shown(Generic[Item]):
    """An iterable with a progress bar; it starts anew each time it is iterated, as a generator would not."""

    items: Iterable[Item]
    what: str
    progress: bool
    total: int | None = None

    def __iter__(self) -> Iterator[Item]:
        # disable=None: only where a person is looking, on a terminal.
        yield from tqdm(self.items, self.what, self.total, unit=" texts", disable=None if self.progress else True)


def _make(
    folder: Path, data: DataConfig, tokenizer_cfg: TokenizerConfig, sources: list[dict[str, Any]], progress: bool
) -> None:
    """All stages, in `folder`."""
    # A given tokenizer is opened first: if it cannot be used, that is known before hours of reading.
    given = Tokenizer.load(tokenizer_file(tokenizer_cfg.path)) if tokenizer_cfg.path else None
    spool = fill_spool(folder / "spool", _Shown(documents(data), "reading", progress), data.held_out)
    texts = TrainingTexts(spool, tokenizer_cfg.train_words)
    tokenizer = given or train_tokenizer(_Shown(texts, "training the tokenizer", progress), tokenizer_cfg)
    tokenizer.save(folder / TOKENIZER)

    train, held_out = SplitWriter(folder / "train", tokenizer), SplitWriter(folder / "held_out", tokenizer)
    for document in _Shown(spool, "encoding", progress, total=spool.n_documents):
        (held_out if document.is_held_out else train).add(document.text, document.n_words)
    spool.path.unlink()
    counts = {"train": train.close(), "held_out": held_out.close()}

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    hashes = {str(path.relative_to(folder)): hash_file(path) for path in files}
    manifest = {
        "fingerprint": fingerprint(hashes),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": with_checksums(data, sources),
        "data": data,
        "tokenizer": tokenizer_cfg,
        "documents_per_source": spool.documents_per_source,
        "duplicates_dropped": spool.duplicates_dropped,
        "vocab_size": tokenizer.vocab_size,
        "id_dtype": np.dtype(tokenizer.id_dtype).name,
        "unigram_entropy_nats": _entropy_nats(train.unigrams),
        "unknown_share": float(train.unigrams[tokenizer.specials.unk] / train.unigrams.sum()),
        **counts,
        "file_bytes": {str(path.relative_to(folder)): path.stat().st_size for path in files},
        "file_hashes": hashes,
    }
    write_json(folder / MANIFEST, to_plain(manifest))


def _entropy_nats(counts: NDArray[np.int64]) -> float:
    """Entropy of the empirical distribution: the loss of a model that knows only how frequent each token is."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
