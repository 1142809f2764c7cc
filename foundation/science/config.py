"""What a report on homogenization reads, and where it goes."""

from dataclasses import dataclass, field

from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError


@dataclass(kw_only=True, slots=True)
class HomogenizeConfig:
    """runs: folders (globs too) with predictions.parquet files below, or such files.

    tasks: only these. sizes: k of SF_k. groups: a table (CSV, TSV, JSONL) with the columns task, item_id, and one for each
    grouping. specialists: task → beginning of the names of foundations made for it. representations: the folder that
    foundation.represent wrote. runs_dir: where packaged data lie. wandb: also send a copy, with its lineage.
    """

    runs: list[str]
    output: str = "runs/homogenization"
    tasks: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=lambda: [2, 3])
    groups: str | None = None
    specialists: dict[str, str] = field(default_factory=dict)
    representations: str | None = None
    runs_dir: str = "runs"
    wandb: bool = False
    logger: LoggerConfig

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        found = []
        if not self.runs:
            found.append("runs is empty: name folders with predictions, as in  runs=[runs/a/finetune,runs/b/finetune]")
        if not self.sizes:
            found.append('sizes is empty: name the k of "k models all fail", as in  sizes=[2,3]')
        if bad := [size for size in self.sizes if size < 2]:
            found.append(f"sizes={bad} must be 2 or more: one model alone has nobody to fail with")
        if found:
            raise UserError("; ".join(found))
