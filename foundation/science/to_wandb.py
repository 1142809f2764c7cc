"""The report as a wandb run: tables, and artifacts that name what they were made from."""

from pathlib import Path
from typing import Any

from foundation.core.wandb_log import start_wandb
from foundation.science.config import HomogenizeConfig
from foundation.science.report import Report


def send(cfg: HomogenizeConfig, settings: dict[str, Any], report: Report, folder: Path) -> None:
    """Corpus → foundation → fine-tunes → report: the last link; the others were logged when those runs were made."""
    log = start_wandb(
        cfg.logger,
        run_path=folder,
        name=f"homogenization/{folder.name}",
        group="homogenization",
        job_type="homogenize",
        config=settings,
        run_id=f"homogenization-{report.fingerprint}",
    )
    for name in report.lineage:
        log.use_artifact(name, "finetuned")
    for table in report.tables:
        log.log_table(table.name, table.columns, [list(row) for row in table.rows])
    log.log_model(folder / "report.html", f"homogenization-{report.fingerprint}", "report", {"notes": report.notes})
    for picture in report.pictures:
        path = folder / "figures" / f"{picture.name}.svg"
        log.log_model(path, f"figure-{picture.name}-{report.fingerprint}", "figure", {})
    log.finish()
