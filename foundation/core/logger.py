"""Numbers of a run: metrics.jsonl for programs, always; a progress bar for people; wandb as a copy."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from tqdm import tqdm

from foundation.core.config import LoggerConfig
from foundation.core.distributed import is_main
from foundation.core.errors import UserError
from foundation.core.files import write_atomically
from foundation.core.metric_names import STEP
from foundation.core.wandb_log import WandbLog

METRICS_FILE = "metrics.jsonl"
# Where no terminal shows a bar (CI, a file), a line at most this often.
_PLAIN_LINE_SECONDS = 30.0
_BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"


class Logger:
    """Records and shows one run. Only rank 0 acts; elsewhere every method does nothing.

    Args:
        run_path: the run folder.
        total_steps, start_step: where the run ends, and where this session takes it up. What an interrupted session
            wrote beyond start_step is dropped: those steps come again. At 0, everything is.
        wandb_run: gets a copy of every metric.
        description: stands before the bar.
    """

    def __init__(
        self,
        run_path: Path,
        cfg: LoggerConfig,
        *,
        total_steps: int,
        start_step: int,
        wandb_run: WandbLog | None,
        description: str,
    ) -> None:
        self._every_steps, self._total_steps, self._start_step = cfg.every_steps, total_steps, start_step
        self._wandb, self._description = wandb_run, description
        self._active = is_main()
        if not self._active:
            return
        path = run_path / METRICS_FILE
        _rewind(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        self._started = time.monotonic()
        self._last_line = -math.inf
        self._bar = _bar(description, total_steps, start_step) if cfg.bar and sys.stderr.isatty() else None

    def is_due(self, step: int) -> bool:
        """Whether this step's numbers are wanted; the others need not leave the GPU."""
        return step % self._every_steps == 0 or step == self._total_steps

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl, whole or not at all. The same metric of a step comes once."""
        if not self._active:
            return
        plain = {STEP: step, **{name: _plain(value) for name, value in metrics.items()}}
        self._file.write(json.dumps({name: _valid(value) for name, value in plain.items()}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(plain)

    def progress(self, step: int, loss: float, tokens_per_s: float) -> None:
        """Show how far the run is."""
        if not self._active:
            return
        numbers = f"loss {loss:.3f}, {tokens_per_s:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.set_postfix_str(numbers, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line < _PLAIN_LINE_SECONDS and step < self._total_steps:
            return
        self._last_line = now
        seconds_left = (now - self._started) / max(1, step - self._start_step) * (self._total_steps - step)
        print(
            f"{self._description} {step / self._total_steps:4.0%} | step {step}/{self._total_steps}, {numbers}, "
            f"{tqdm.format_interval(seconds_left)} left",
            file=sys.stderr,
            flush=True,
        )

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._active:
            tqdm.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """End the bar and the file. wandb has an end of its own."""
        if not self._active:
            return
        # Each line was flushed when it was written: what cannot be written here was told there.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._bar is not None:
            self._bar.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl in order, without a last one that a killed process left half written.

    "nan", "inf" and "-inf" stand for numbers that JSON does not have: float() reads them.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            if number == len(lines):
                break
            raise UserError(f"line {number} of {path} is not valid JSON: delete that line and start again") from None
        rows.append(row)
    return rows


def _rewind(path: Path, start_step: int) -> None:
    """Leave what an uninterrupted run would have written up to and with start_step."""
    kept = [row for row in read_metrics(path) if 0 < start_step >= row[STEP]]
    content = "".join(json.dumps(row) + "\n" for row in kept).encode()
    if path.exists() and path.read_bytes() != content:
        with write_atomically(path) as file:
            file.write(content)


def _bar(description: str, total_steps: int, start_step: int) -> "tqdm[Any]":
    return tqdm(
        total=total_steps,
        initial=start_step,
        desc=description,
        bar_format=_BAR_FORMAT,
        dynamic_ncols=True,
        file=sys.stderr,
    )


def _plain(value: Any) -> float | int | str | None:
    """A Python number from whatever holds one: a NumPy scalar, a tensor of one element."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    assert isinstance(value, SupportsFloat), f"{value!r} is not a number"
    return float(value)


def _valid(value: float | int | str | None) -> float | int | str | None:
    """JSON has no nan and no infinity; their names read back by float()."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
