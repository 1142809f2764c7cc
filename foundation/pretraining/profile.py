"""Where the time of a step goes: torch's profiler over a few steps, as a table and as a trace."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch

# Not measured: the first steps compile kernels and fill caches.
_WARM_UP_STEPS = 3


class Profile(AbstractContextManager["Profile"]):
    """Profiles `steps` steps after a warm-up into `folder`: operators.txt, and trace.json for chrome://tracing. 0: nothing."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps, self._profiler = folder, steps, None
        if steps:
            plan = torch.profiler.schedule(wait=0, warmup=_WARM_UP_STEPS, active=steps, repeat=1)
            self._profiler = torch.profiler.profile(schedule=plan, on_trace_ready=self._write)

    def __enter__(self) -> "Profile":
        if self._profiler is not None:
            self._profiler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._profiler is not None:
            self._profiler.stop()

    def step(self) -> None:
        """A step has ended."""
        if self._profiler is not None:
            self._profiler.step()

    def _write(self, profiler: torch.profiler.profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=40)
        (self.folder / "operators.txt").write_text(table, encoding="utf-8")
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
