"""experiments/2026-11-25-homogenization: which cells are done."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent.parent / "experiments" / "2026-11-25-homogenization"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py as a module; it finds grid.py beside itself."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("homogenization_study", HERE / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_mark_counts_for_the_command_it_holds(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = replace(study.read_grid(HERE / "smoke.yaml"), runs_dir=str(tmp_path))
    cell = next(cell for cell in study.cells(grid) if cell.name == "pretrain/tiny-0")
    path = study.mark(grid, cell)
    path.parent.mkdir()
    path.write_text(json.dumps({"command": ["-m", "foundation.pretrain", *cell.arguments], "seconds": 3}))
    longer = replace(cell, arguments=[*cell.arguments, "steps=60"])
    study.show([cell, longer], grid, jobs=1)
    done, other = capsys.readouterr().out.splitlines()[:2]
    assert done.split() == ["done", "3", "s", "pretrain/tiny-0"]
    assert other.split() == ["20", "s", "pretrain/tiny-0"]
