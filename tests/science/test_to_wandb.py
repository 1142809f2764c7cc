"""The report as wandb keeps it: an offline run, read back."""

import subprocess
import sys
from pathlib import Path

from foundation.config import conf_folder
from tests.core.test_wandb_log import clean_environment, records_in, values
from tests.science.stored import lay_study


def test_tables_figures_and_the_page_are_in_an_offline_run(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(3, 2, 40), tasks=("first",), variants=("full", "scratch"))
    (tmp_path / "home").mkdir()
    words = [f"runs=[{tmp_path / 'runs'}]", f"output={tmp_path / 'report'}", f"runs_dir={tmp_path / 'runs'}"]
    done = subprocess.run(
        [sys.executable, "-m", "foundation.homogenize", *words, "sizes=[2]", "wandb=true", "logger.wandb=offline"],
        env=clean_environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=conf_folder().parent,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "report").glob("wandb/offline-run-*/*.wandb")
    records = list(records_in(kept))
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.job_type, run.run_group) == ("homogenize", "homogenization")
    by_type: dict[str, set[str]] = {}
    for record in records:
        if record.HasField("artifact"):
            paths = {Path(entry.path).name for entry in record.artifact.manifest.contents}
            by_type.setdefault(record.artifact.type, set()).update(paths)
    assert by_type["report"] == {"report.html"}
    assert by_type["figure"] == {path.name for path in (tmp_path / "report" / "figures").glob("*.svg")} != set()
    logged = {key for record in records if record.HasField("history") for key in values(record.history.item)}
    tables = {path.stem for path in (tmp_path / "report" / "tables").glob("*.csv")}
    assert tables
    for name in tables:
        assert any(name in key for key in logged), name
