"""Text files to token ids on disk, held against the tokenizers library alone and against the peer's way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foundation.benchmark.config import PreparationCase
from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.benchmark.text import open_corpus
from foundation.data.config import DataConfig, TokenizerConfig
from foundation.data.corpus import TOKENIZER
from foundation.data.prepare import prepare
from foundation.data.sources import documents
from foundation.data.text_files import file_texts

# Texts in one call of the library; its own default in datasets' map.
_TEXTS_AT_ONCE = 1000


def source_file(case: PreparationCase, data: DataConfig, runs_dir: str) -> Path:
    """A text file of the case's words, made once from the corpus' documents; where they are too few, again with a number."""
    path = Path(runs_dir) / "bench" / f"{case.name}-{case.words}.txt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n\n" for text in _endless(case.words, data))
        partial.rename(path)
    return path


def _endless(n_words: int, data: DataConfig) -> Iterator[str]:
    left, lap = n_words, 0
    while left > 0:
        for document in documents(data):
            text = "\n".join(line for line in document.text.split("\n") if line.strip())
            yield f"{lap} {text}" if lap else text  # else the second lap would be dropped as duplicates
            left -= len(text.split())
            if left <= 0:
                return
        lap += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OurPreparation(Contender):
    """Read, clean, drop duplicates, split, encode, write, hash: all of `prepare` but the tokenizer's training."""

    case: PreparationCase
    data: DataConfig

    def build(self, setup: Setup) -> Work:
        """A tokenizer that is there."""
        tokenizer = TokenizerConfig(
            path=str(open_corpus(self.data, self.case.vocab_size, setup.runs_dir).path / TOKENIZER)
        )
        data = DataConfig(files=[str(source_file(self.case, self.data, setup.runs_dir))])

        def work() -> Done:
            with TemporaryDirectory() as folder:
                corpus = prepare(data, tokenizer, Path(folder), progress=False)
                return Done(corpus.manifest["train"]["words"] + corpus.manifest["held_out"]["words"])

        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEncoding(Contender):
    """encode_batch_fast of the tokenizers library over texts in memory: no file read, nothing kept."""

    case: PreparationCase
    data: DataConfig

    def build(self, setup: Setup) -> Work:
        """The texts in memory, in the batches that the library gets."""
        import tokenizers

        corpus = open_corpus(self.data, self.case.vocab_size, setup.runs_dir)
        backend = tokenizers.Tokenizer.from_file(str(corpus.path / TOKENIZER))
        texts = list(file_texts(source_file(self.case, self.data, setup.runs_dir), "text"))
        n_words = sum(len(text.split()) for text in texts)
        batches = [texts[first : first + _TEXTS_AT_ONCE] for first in range(0, len(texts), _TEXTS_AT_ONCE)]

        def work() -> Done:
            for batch in batches:
                backend.encode_batch_fast(batch, add_special_tokens=False)
            return Done(n_words)

        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPreparation(Contender):
    """datasets' load and map with a fast tokenizer, batched, as run_mlm.py does it; into Arrow files."""

    case: PreparationCase
    data: DataConfig

    def build(self, setup: Setup) -> Work:
        """The same tokenizer, as transformers opens it."""
        import datasets
        import transformers

        datasets.disable_progress_bars()
        corpus = open_corpus(self.data, self.case.vocab_size, setup.runs_dir)
        fast: Any = transformers.PreTrainedTokenizerFast
        tokenizer = fast(tokenizer_file=str(corpus.path / TOKENIZER))
        path = source_file(self.case, self.data, setup.runs_dir)
        n_words = len(path.read_text(encoding="utf-8").split())

        def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            encoded: dict[str, list[list[int]]] = tokenizer(rows["text"], return_special_tokens_mask=True)
            return encoded

        def work() -> Done:
            with TemporaryDirectory() as folder:
                table = datasets.load_dataset(
                    "text", data_files=str(path), cache_dir=folder, split="train", sample_by="paragraph"
                )
                table.map(encode, batched=True, remove_columns=["text"], load_from_cache_file=False)
            return Done(n_words)

        return work
