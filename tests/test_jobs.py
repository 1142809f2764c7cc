"""Cells at the same time, each in a process of its own: the same numbers, only missing cells, nothing lost when one fails."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.core import distributed
from foundation.core.device import device_of
from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.task.config import TaskConfig
from foundation.task.protocol import finetune
from foundation.task.study_config import FinetuneConfig
from foundation.task.suite import Member, SuiteResult, run_suite
from tests.task import toy
from tests.test_sharing import shared


def three_tasks(runs: Path, jobs: int) -> SuiteResult:
    """The second starts from the first one's encoder; two methods, which share the arm of random weights."""
    toy.lay_foundation(runs)
    first = toy.lay_task(runs / "data")
    members = []
    for sharing in (toy.settings(runs, first).sharing, shared("top_k")):
        for name in ("first", "second", "third"):
            cfg = toy.settings(runs, replace(first, name=name), compare="scratch", sharing=sharing, epochs=1, jobs=jobs)
            members.append(Member(cfg, to_plain(cfg)))
    return run_suite("three", members, {"second": "first"})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, SuiteResult]]:
    """One suite by one process and by two."""
    found = {}
    for jobs in (1, 2):
        runs = tmp_path_factory.mktemp(f"jobs{jobs}")
        found[jobs] = (runs, three_tasks(runs, jobs))
    return found


def test_two_processes_give_the_models_and_tables_of_one(both: dict[int, tuple[Path, SuiteResult]]) -> None:
    (one, alone), (two, beside) = both[1], both[2]
    models = sorted(path.relative_to(one) for path in one.rglob("seed-*/final/model.safetensors"))
    assert len(models) == 3 * 3 * 2  # tasks, arms, seeds
    for path in models:
        first, second = load_file(one / path), load_file(two / path)
        assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert [(method, list(of)) for method, of in beside.studies.items()] == [
        (method, list(of)) for method, of in alone.studies.items()
    ]
    for method, of in alone.studies.items():
        for task, study in of.items():
            other = beside.studies[method][task]
            assert study.difference is not None
            assert other.difference is not None
            assert study.difference.interval == other.difference.interval
            assert [arm.summary["mean"] for arm in study.arms] == [arm.summary["mean"] for arm in other.arms]


def test_only_the_missing_cell_is_run_again(both: dict[int, tuple[Path, SuiteResult]]) -> None:
    runs, _ = both[2]
    cells = {path: path.stat().st_mtime_ns for path in runs.rglob("seed-*/scores.json")}
    missing = next(path for path in cells if path.parent.parent.name == "top_k")
    missing.unlink()
    three_tasks(runs, 2)
    assert [path for path in cells if path.stat().st_mtime_ns != cells[path]] == [missing]


def settings(folder: Path, **changed: object) -> FinetuneConfig:
    toy.lay_foundation(folder)
    return toy.settings(folder, toy.lay_task(folder / "data"), **({"jobs": 2, "keep_models": False} | changed))


def test_a_cell_that_fails_is_named_and_the_others_stay(tmp_path: Path) -> None:
    cfg = settings(tmp_path, seeds=3)
    arm = tmp_path / "small/finetune/toy/full"
    finetune(replace(cfg, seeds=1), to_plain(cfg))
    (arm / "seed-2").write_text("not a folder")
    with pytest.raises(UserError, match=r"toy/small/full/seed-2 ended with status 1: see what it printed above"):
        finetune(cfg, to_plain(cfg))
    assert (arm / "seed-0/scores.json").is_file()


def test_a_stop_ends_both_processes_and_the_command_goes_on(tmp_path: Path) -> None:
    cfg = settings(tmp_path, epochs=2000)
    arm = tmp_path / "small/finetune/toy/full"

    def stop() -> None:
        while len(list(arm.glob("seed-*/metrics.jsonl"))) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(UserError, match=r"stopped in .*toy/small/full/seed-[01].*the same command goes on from there"):
        finetune(cfg, to_plain(cfg))
    assert not list(arm.glob("seed-*/scores.json"))


def test_gpus_are_taken_in_turn() -> None:
    """No GPU is here: what is handed over is looked at, not what runs there."""
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert [device_of(gpu, process, 2).index for process in range(5)] == [0, 1, 0, 1, 0]
    assert [device_of(gpu, process, 1).index for process in range(2)] == [0, 0]
    assert device_of(cpu, 3, 2) == device_of(cpu, 3, 0) == cpu


def test_ranks_have_no_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings(tmp_path)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="jobs=2 is for one process: leave it out under torchrun"):
        finetune(cfg, to_plain(cfg))


def test_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="jobs=0 must be at least 1"):
        toy.settings(tmp_path, TaskConfig(name="toy", train="a.csv"), jobs=0).check()
