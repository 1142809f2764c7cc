import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError
from foundation.core.logger import Logger, read_metrics


class Terminal(io.StringIO):
    def isatty(self):
        return True


def logger(folder, *, start_step=0, total_steps=100, every_steps=10):
    return Logger(
        folder,
        LoggerConfig(every_steps=every_steps),
        total_steps=total_steps,
        start_step=start_step,
        wandb_run=None,
        description="pretrain",
    )


def run_steps(folder, first, last, **settings):
    log = logger(folder, start_step=first, **settings)
    for step in range(first + 1, last + 1):
        log.log(step, {"train/loss": 1 / step})
    log.close()


def test_each_step_is_one_line_and_on_disk_at_once(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"train/loss": 2.5, "optim/lr": 1e-3})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "train/loss": 2.5, "optim/lr": 0.001}\n'
    log.log(2, {"train/loss": 2.25})
    assert read_metrics(tmp_path / "metrics.jsonl")[1] == {"step": 2, "train/loss": 2.25}
    log.close()


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    log = logger(tmp_path)
    log.log(1, {"a": np.float32(0.5), "b": torch.tensor(3), "c": np.int64(4), "d": None, "e": torch.tensor([1.5])})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 0.5, "b": 3, "c": 4, "d": None, "e": 1.5}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_a_number_that_json_lacks_stays_readable(tmp_path, value):
    log = logger(tmp_path)
    log.log(1, {"train/loss": value})
    log.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert repr(float(row["train/loss"])) == repr(float(value))


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    run_steps(tmp_path / "whole", 0, 20)
    run_steps(tmp_path / "resumed", 0, 13)
    run_steps(tmp_path / "resumed", 10, 20)
    whole, resumed = (tmp_path / name / "metrics.jsonl" for name in ("whole", "resumed"))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_run_taken_up_at_its_beginning_starts_afresh(tmp_path):
    log = logger(tmp_path)
    log.log(0, {"eval/loss": 5.0})
    log.close()
    log = logger(tmp_path)
    log.log(0, {"eval/loss": 5.0})
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "eval/loss": 5.0}]


@pytest.mark.parametrize("torn", [b'{"step": 4, "train/lo', b'{"step": 4, "a": "\xc3', b"\0\0\0\0"])
def test_a_line_torn_by_a_kill_is_dropped(tmp_path, torn):
    run_steps(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_metrics(path)) == 3
    run_steps(tmp_path, 3, 3)
    assert path.read_bytes() == whole


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    run_steps(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    run_steps(tmp_path, 3, 3)
    assert path.read_bytes() == whole


def test_damage_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is not valid JSON"):
        logger(tmp_path, start_step=3)


def test_what_a_full_disk_refused_is_not_told_again_at_the_end(tmp_path):
    """A limit on the size of files makes a write fail as a full disk does."""
    script = """
import resource, signal, sys
from pathlib import Path
from foundation.core.config import LoggerConfig
from foundation.core.logger import Logger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Logger(Path(sys.argv[1]), LoggerConfig(), total_steps=9, start_step=0, wandb_run=None, description="x")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    log.log(1, {"train/loss": 1.0})
except OSError as error:
    print("told", error.strerror)
log.close()
print("closed")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["told File too large", "closed"], done.stderr


def test_numbers_are_due_at_the_interval_and_at_the_end(tmp_path):
    log = logger(tmp_path, total_steps=25)
    assert [step for step in range(1, 26) if log.is_due(step)] == [10, 20, 25]
    log.close()


def test_without_a_terminal_there_are_few_plain_lines(tmp_path, capsys):
    log = logger(tmp_path)
    for step in range(1, 101):
        log.progress(step, loss=4.2134, tokens_per_s=15234.4)
    log.close()
    error = capsys.readouterr().err
    assert "\r" not in error
    first, last = error.splitlines()
    assert first.startswith("pretrain   1% | step 1/100, loss 4.213, 15,234 tokens/s, 00:0")
    assert last.startswith("pretrain 100% | step 100/100,")
    assert last.endswith("00:00 left")


def test_on_a_terminal_there_is_one_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    log = logger(tmp_path, start_step=50)
    log.progress(75, loss=4.2134, tokens_per_s=15234.4)
    log.say("evaluated")
    log.progress(100, loss=4.0, tokens_per_s=15000)
    log.close()
    shown = sys.stderr.getvalue()
    assert "pretrain  50% |" in shown
    assert "pretrain 100% |" in shown
    assert "100/100" in shown
    assert "loss 4.000, 15,000 tokens/s" in shown
    assert capsys.readouterr().out == "evaluated\n"
