"""What may be asked, of which models, and within what limits."""

from dataclasses import dataclass
from typing import Any

from foundation.core.errors import UserError
from foundation.task.config import Pooling
from foundation.train.config import DeviceConfig


def as_list(runs: Any) -> list[str]:
    """What run= or runs= was given: one, or several in brackets. Raises UserError for anything else."""
    found = [runs] if isinstance(runs, str) else runs
    if not isinstance(found, list) or not found or not all(isinstance(run, str) for run in found):
        raise UserError(f"run={runs} must be a folder, or several of them in brackets: run=[FOLDER,FOLDER]")
    if len(set(found)) < len(found):
        raise UserError(f"run={runs} names a folder twice: name each once".replace("'", ""))
    return found


def at_least_one(cfg: object, *names: str) -> list[str]:
    """A sentence for each of these settings that is below 1."""
    return [f"{name}={getattr(cfg, name)} must be at least 1" for name in names if getattr(cfg, name) < 1]


def refuse(problems: list[str]) -> None:
    """Raise UserError with every problem at once, if there is one."""
    if problems:
        raise UserError("; ".join(problems))


@dataclass(kw_only=True, slots=True)
class PredictConfig:
    """Which fine-tuned models answer which texts. "-": standard input or output.

    run: a task's folder (its first seed answers), a seed's, or a `final`; or several in brackets: a line then has the
    answer of each under its task's name. text, text_pair: columns; null: those of the task, or else `text`.
    format: csv, tsv, jsonl or txt; null: from the extension, txt for "-".
    batch_tokens: most tokens in a forward pass. chunk_rows: rows read before the first of them is answered; inside a
    chunk rows of similar length go together.
    """

    run: Any
    input: str
    output: str = "-"
    text: str | None = None
    text_pair: str | None = None
    format: str | None = None
    batch_tokens: int = 4096
    chunk_rows: int = 4096
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        as_list(self.run)
        refuse(at_least_one(self, "batch_tokens", "chunk_rows") + self.trainer.problems())


@dataclass(kw_only=True, slots=True)
class EmbedConfig:
    """Vectors of the texts of a file, and which of them are nearest to a query.

    foundation: NAME (of <runs_dir>/NAME/final) or a folder: a foundation's, or a fine-tuned task's. output: .npy (vectors
    only) or .parquet (texts and vectors); null with a query: vectors are not kept. query: a text, or a file of texts.
    neighbours: JSONL of the k nearest texts of each query, by cosine; null: only printed. text: column of the input.
    max_tokens: longer texts are cut, and counted; null: as the model was trained.
    """

    foundation: str
    input: str
    output: str | None = None
    pooling: Pooling = Pooling.mean
    query: str | None = None
    k: int = 5
    neighbours: str | None = None
    text: str = "text"
    format: str | None = None
    max_tokens: int | None = None
    batch_tokens: int = 4096
    chunk_rows: int = 4096
    runs_dir: str = "runs"
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        found = at_least_one(self, "k", "batch_tokens", "chunk_rows") + self.trainer.problems()
        if self.max_tokens is not None and self.max_tokens < 3:
            found.append(f"max_tokens={self.max_tokens} must be at least 3: two of them are special tokens")
        if self.output is None and self.query is None:
            found.append("there is nothing to do: set output=vectors.npy (or .parquet), or query=TEXT, or both")
        if self.output is not None and not self.output.endswith((".npy", ".parquet")):
            found.append(f"output={self.output} must end in .npy (vectors) or .parquet (texts and vectors)")
        if self.neighbours is not None and self.query is None:
            found.append(f"neighbours={self.neighbours} needs a query=TEXT or query=FILE")
        refuse(found)


@dataclass(kw_only=True, slots=True)
class ServeConfig:
    """Which fine-tuned models answer over HTTP, where, and within what limits.

    runs: as `run` of predict. host: 127.0.0.1 is this machine alone; there is no password, so think before 0.0.0.0.
    port: 0 takes a free one. Limits of a request: body_bytes, rows, and text_chars of each text. Rows of requests that
    come within wait_ms of each other are computed together, up to batch_rows; when waiting_rows wait already, the answer
    is 503. batch_tokens: most tokens in a forward pass. stop_seconds: how long open requests may finish when it is told to stop.
    """

    runs: Any
    host: str = "127.0.0.1"
    port: int = 8000
    body_bytes: int = 1 << 20
    rows: int = 64
    text_chars: int = 20_000
    batch_rows: int = 64
    batch_tokens: int = 4096
    wait_ms: float = 2.0
    waiting_rows: int = 1024
    stop_seconds: int = 10
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        as_list(self.runs)
        found = at_least_one(self, "body_bytes", "rows", "text_chars", "batch_rows", "batch_tokens", "stop_seconds")
        found += self.trainer.problems()
        if not 0 <= self.port < 1 << 16:
            found.append(f"port={self.port} must be between 0 (any free one) and {(1 << 16) - 1}")
        if not 0 <= self.wait_ms <= 1000:
            found.append(f"wait_ms={self.wait_ms} must be between 0 and 1000")
        if self.waiting_rows < self.rows:
            found.append(f"waiting_rows={self.waiting_rows} must be at least rows={self.rows}: one request must fit")
        refuse(found)
