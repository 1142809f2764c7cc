import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from foundation.core import distributed

TWO_RANKS = """
import json, sys, time, torch
from pathlib import Path
from foundation.core import distributed as d
from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError
from foundation.core.logger import Logger
from foundation.core.run import open_run
d.setup("cpu")
folder = Path(sys.argv[1])
mine = torch.tensor([1.0, 10.0]) * (d.rank() + 1)
total = d.sum_over_ranks(mine)
with d.main_first():
    if d.is_main():
        time.sleep(0.3)
        (folder / "made").write_text("whole")
    seen = (folder / "made").read_text()
failure, went_on = "", False
try:
    with d.main_first():
        if d.is_main():
            raise OSError("disk full")
        went_on = True
except (OSError, UserError) as error:
    failure = str(error)
with open_run(folder / "run", {"a": 1}, resume=False, speed_only=frozenset(), command=["x"]) as run:
    with d.main_first():  # one after the other, so that a second writer would show
        logger = Logger(run.path, LoggerConfig(), total_steps=1, start_step=0, wandb_run=None, description="x")
        logger.log(1, {"train/loss": 0.5 + d.rank()})
        logger.say(f"rank {d.rank()}")
        logger.close()
    run.update(ledger={"seconds": 1 + d.rank()})
    run_id = run.id
d.barrier()
report = dict(
    rank=d.rank(), world=d.world_size(), main=d.is_main(), mine=mine.tolist(), total=total.tolist(), seen=seen,
    any=[d.any_over_ranks(d.rank() == 1), d.any_over_ranks(False)], failure=failure, went_on=went_on, run_id=run_id,
    launcher=d.launcher(),
)
(folder / f"report{d.rank()}.json").write_text(json.dumps(report))
d.shutdown()
assert d.world_size() == 1
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What each of two real processes saw, and the files they left."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(folder)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [{"folder": folder, **json.loads((folder / f"report{rank}.json").read_text())} for rank in range(2)]


def test_two_processes_know_their_places(reports):
    assert [(report["rank"], report["world"], report["main"]) for report in reports] == [(0, 2, True), (1, 2, False)]


def test_two_processes_are_started_again_as_two(reports):
    assert [report["launcher"] for report in reports] == [["torchrun", "--nproc-per-node", "2"]] * 2


def test_several_machines_are_told_apart_from_several_processes_on_one(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert distributed.launcher() == ["torchrun", "--nnodes", "2", "--nproc-per-node", "8"]


def test_a_sum_over_ranks_is_the_same_everywhere_and_not_in_place(reports):
    assert [report["total"] for report in reports] == [[3.0, 30.0]] * 2
    assert [report["mine"] for report in reports] == [[1.0, 10.0], [2.0, 20.0]]


def test_one_flag_is_seen_by_all(reports):
    assert [report["any"] for report in reports] == [[True, False]] * 2


def test_the_others_find_what_the_first_rank_made(reports):
    assert [report["seen"] for report in reports] == ["whole", "whole"]


def test_when_the_first_rank_fails_the_others_stop_and_say_so(reports):
    assert reports[0]["failure"] == "disk full"
    assert reports[1]["failure"].startswith("rank 1 stops because rank 0 failed")
    assert not any(report["went_on"] for report in reports)


def test_only_the_first_rank_writes_the_run(reports):
    folder = reports[0]["folder"]
    record = json.loads((folder / "run" / "run.json").read_text())
    assert reports[0]["run_id"] == reports[1]["run_id"] == record["id"]
    assert [session["ledger"] for session in record["sessions"]] == [{"seconds": 1}]
    assert (folder / "run" / "metrics.jsonl").read_text() == '{"step": 1, "train/loss": 0.5}\n'


def test_one_process_needs_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    distributed.setup("cpu")
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert (distributed.any_over_ranks(True), distributed.any_over_ranks(False)) == (True, False)
    assert distributed.launcher() == ["python"]
    distributed.barrier()
    with distributed.main_first():
        pass
    distributed.shutdown()


def test_torchrun_with_one_process_needs_no_group(monkeypatch):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    distributed.setup("cpu")
    assert not torch.distributed.is_initialized()


def test_the_sum_is_a_new_tensor_without_gradient():
    value = torch.ones(2, requires_grad=True)
    total = distributed.sum_over_ranks(value)
    total += 1
    assert value.tolist() == [1.0, 1.0]
    assert not total.requires_grad
