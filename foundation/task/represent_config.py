"""What is represented, and on which texts."""

from dataclasses import dataclass

from foundation.core.errors import UserError
from foundation.train.config import DeviceConfig


@dataclass(kw_only=True, slots=True)
class RepresentConfig:
    """runs: folders (globs too) with fine-tuned models below. n_texts: the first so many.

    input: a text a line; null: the reported texts of the first model's task. Every model represents the same ones, so that
    models of different tasks can be compared.
    """

    runs: list[str]
    output: str = "runs/representations"
    input: str | None = None
    n_texts: int = 500
    batch_rows: int = 32
    runs_dir: str = "runs"
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        found = self.trainer.problems()
        if self.n_texts < 4:
            found.append(f"n_texts={self.n_texts} must be at least 4, and some hundreds for CKA to mean something")
        if self.batch_rows < 1:
            found.append(f"batch_rows={self.batch_rows} must be at least 1")
        if found:
            raise UserError("; ".join(found))
