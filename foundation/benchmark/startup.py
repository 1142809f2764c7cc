"""Seconds until a command answers, or until its first step is logged."""

import shlex
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from foundation.benchmark.config import StartupCase
from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.core.errors import UserError
from foundation.core.memory import peak_memory_bytes_of_children

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Contender):
    """One of our own commands in a fresh interpreter, settings of the bench put in for {runs_dir}, {device} and {name}."""

    case: StartupCase

    def build(self, setup: Setup) -> Work:
        """The words of the command."""

        def work() -> Done:
            name = f"bench-startup-{uuid.uuid4().hex[:8]}"
            fields = {"runs_dir": setup.runs_dir, "device": setup.device, "name": name}
            command = [sys.executable, *(word.format(**fields) for word in self.case.command)]
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            seconds = None
            if self.case.until_step:
                seconds = _until_first_line(Path(setup.runs_dir) / name / "metrics.jsonl", process, start)
            _, said = process.communicate()
            seconds = seconds or time.perf_counter() - start
            shutil.rmtree(Path(setup.runs_dir) / name, ignore_errors=True)
            if process.returncode != self.case.status:
                raise UserError(f"{shlex.join(command)} ended with status {process.returncode}: {said[-300:]}")
            return Done(1, seconds, peak_memory_bytes_of_children())

        return work


def _until_first_line(path: Path, process: subprocess.Popen[str], start: float) -> float | None:
    while process.poll() is None:
        if path.is_file() and path.stat().st_size:
            return time.perf_counter() - start
        time.sleep(_POLL_SECONDS)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerImports(Contender):
    """What run_mlm.py imports before it can answer --help."""

    def build(self, setup: Setup) -> Work:
        """The imports, in a fresh interpreter."""
        code = (
            "import datasets, torch, transformers\n"
            "from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, HfArgumentParser, TrainingArguments\n"
            "from transformers import DataCollatorForLanguageModeling, Trainer\n"
            "HfArgumentParser((TrainingArguments,)).format_help()\n"
        )

        def work() -> Done:
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            return Done(1, peak_bytes=peak_memory_bytes_of_children())

        return work
