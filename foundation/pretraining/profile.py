"""Where the time of a step goes: torch's profiler over a few steps, by kind of work, by operator, and as a trace."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

# Not measured: the first steps compile kernels and fill caches.
_WARM_UP_STEPS = 3
OPTIMIZER, REST = "optimizer and clipping", "other operators"
# What an operator does, by its name: the first that fits. A Function of ours is an operator, and so is its backward pass.
_KINDS = {
    "matrix products": r"aten::(mm|addmm|bmm|baddbmm|matmul|linear|mv|dot|_addmm_activation)$|mkldnn_linear",
    "loss": r"_CrossEntropy|log_softmax|nll_loss|cross_entropy|logsumexp",
    "attention, without its products": r"_Attention|attention|softmax",
    "norms, activations, rotation": r"_Norm|_GELU|_GeGLU|_Rotate|layer_norm|gelu",
    "dropout": r"dropout|bernoulli|aten::random_",
    "embeddings and picked rows": r"embedding|index|gather|scatter|take",
    OPTIMIZER: r"_foreach|_fused|clip_grad|linalg_vector_norm",
    "copies and casts": r"aten::(copy_|_to_copy|to|contiguous|clone|cat|stack|fill_|zero_|zeros.*|empty.*|new_.*|resize_|pad)$",
    "Python between operators": r"ProfilerStep",
}


class Profile(AbstractContextManager["Profile"]):
    """Profiles `steps` steps after a warm-up into `folder`: operators.txt, and trace.json for chrome://tracing. 0: nothing.

    say: is told where the time went, by kind of work; the same stands at the head of operators.txt.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], None]) -> None:
        self.folder, self.steps, self.say, self._profiler = folder, steps, say, None
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
        on_gpu = torch.cuda.is_available()
        by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        spent = by_kind(profiler.events(), on_gpu=on_gpu)
        summary = table(spent, self.steps, "the GPU" if on_gpu else "the processor")
        operators = profiler.key_averages().table(sort_by=by, row_limit=40)
        (self.folder / "operators.txt").write_text(f"{summary}\n\n{operators}", encoding="utf-8")
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        self.say(summary)


def by_kind(events: Iterable[Any], *, on_gpu: bool) -> dict[str, float]:
    """Microseconds of each kind of work, the largest first.

    events: of torch's profiler. Each counts with its own time, without that of the operators it called, so that the sum is the
    time of the steps. Everything inside an optimizer's step, matrix products too, is the optimizer's.
    """
    spent: Counter[str] = Counter()
    for event in events:
        if event.device_type.name == "CPU":
            spent[_kind(event)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {kind: microseconds for kind, microseconds in spent.most_common() if microseconds > 0}


def _kind(event: Any) -> str:
    if any(name.startswith("Optimizer.") for name in _names_upwards(event)):
        return OPTIMIZER
    return next((kind for kind, names in _KINDS.items() if re.search(names, event.name)), REST)


def _names_upwards(event: Any) -> Iterator[str]:
    while event is not None:
        yield event.name
        event = event.cpu_parent


def table(spent: dict[str, float], steps: int, where: str) -> str:
    """by_kind's, as lines: milliseconds a step and shares."""
    total = sum(spent.values())
    lines = [f"a step takes {total / steps / 1000:,.1f} ms of {where}, as profiled (profiling slows it down a little)"]
    lines += [
        f"  {kind:<32} {microseconds / steps / 1000:>10,.1f} ms {microseconds / total:>7.1%}"
        for kind, microseconds in spent.items()
    ]
    return "\n".join(lines)
