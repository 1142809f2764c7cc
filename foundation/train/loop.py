"""The loop: one optimizer step, and the run of them. It knows how to step, not what is learnt."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from foundation.core.device import Pace, moved
from foundation.core.distributed import rank, sum_over_ranks, world_size
from foundation.core.errors import UserError
from foundation.core.randomness import RowRng, torch_seed
from foundation.data.batches import Batch
from foundation.model.fusion import fusing
from foundation.objective.base import Example, Objective
from foundation.train.averaging import WeightAverage
from foundation.train.config import Precision, TrainerConfig
from foundation.train.optim import Updater, UpdateReport

# Batches made ahead of the step that needs them, by a thread; batch and mask are functions of the step, so nothing changes.
_AHEAD = 2


class Batches(Protocol):
    """What the loop asks of data."""

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's rows of a step: a pure function."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step. losses: mean over the step's targets of each term, (terms,), nats, over all ranks; on the device.

    n_tokens: of all ranks. seconds: of the whole step; wait_seconds: of these, spent waiting for data. On a GPU, which works on
    after the host has asked, seconds are right on the average of many steps.
    """

    losses: Tensor
    update: UpdateReport
    n_tokens: int
    seconds: float
    wait_seconds: float


@dataclass(slots=True)
class TrainState:
    """A run in progress: what a checkpoint holds, and where it lives. module: the objective, or its distributed wrapper.

    compiles: the parts of a step that model/fusion.py knows of are compiled. average: of the weights, where one is kept.
    """

    objective: Objective
    updater: Updater
    device: torch.device
    precision: Precision
    compiles: bool = False
    step: int = 0
    average: WeightAverage | None = None
    module: Objective | DistributedDataParallel = field(init=False)

    def __post_init__(self) -> None:
        if self.precision is Precision.fp64:
            self.objective.double()
        self.module = self.objective
        if world_size() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.module = DistributedDataParallel(self.objective, device_ids=ids)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of products and activations."""
        return autocast(self.device, self.precision)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the objective's weights are those to be examined and kept: averaged ones, where there is an average."""
        return nullcontext() if self.average is None else self.average.in_place()

    def memory_tensors(self) -> dict[str, Tensor]:
        """What is to be remembered beside the weights: the optimizers' state, and the average."""
        return self.updater.state_tensors() | ({} if self.average is None else self.average.state_tensors())

    def load_memory_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what memory_tensors gave."""
        self.updater.load_state_tensors(tensors if self.average is None else self.average.take_from(tensors))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which products run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16) if precision is Precision.bf16 else nullcontext()


def compiles(trainer: TrainerConfig, device: torch.device, *, unasked: bool) -> bool:
    """Whether the parts of a step are compiled. unasked: where nothing is set and it pays, in bf16 on a GPU."""
    if trainer.compile and device.type != "cuda":
        raise UserError("trainer.compile=true is for a GPU: a CPU in bf16 has fused passes of its own; leave it out")
    pays = unasked and device.type == "cuda" and trainer.precision is Precision.bf16
    return pays if trainer.compile is None else trainer.compile


def train_step(state: TrainState, example: Example, micro_batch_rows: int) -> tuple[Tensor, Tensor]:
    """Gradients of one optimizer step on this rank's rows, left in the parameters; returns (losses, tokens) over all ranks.

    The loss is a mean over every target in the step, on every rank. Dividing each micro-batch by its own count would weight a
    target by how few neighbours it has.
    """
    # Counted and cut where the rows are, in the host's memory: a GPU asked for numbers makes its host wait.
    counts = sum_over_ranks(state.objective.count(example))
    totals = moved(counts, state.device)
    losses = torch.zeros_like(totals, dtype=torch.float64 if state.precision is Precision.fp64 else torch.float32)
    parts = example.split(micro_batch_rows or len(example.lengths))
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        with _without_sync(state.module, is_last), state.autocast(), fusing(state.compiles):
            # This part's share of the means: shares add up.
            shares = state.module(part.to(state.device), totals)
            # DDP averages gradients over ranks; we want their sum.
            (shares.sum() * world_size()).backward()
        losses += shares.detach()
    return sum_over_ranks(losses), sum_over_ranks(torch.tensor(example.n_tokens))


def _without_sync(module: Objective | DistributedDataParallel, is_last: bool) -> AbstractContextManager[object]:
    """Gradients travel between ranks once a step, with the last part."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) and not is_last else nullcontext()


def train(
    state: TrainState,
    batches: Batches,
    *,
    seed: int,
    micro_batch_rows: int,
    only_step: int | None = None,
    on_event: Callable[[TrainState, StepReport], bool],
) -> None:
    """Step from state.step to the end of the run; on_event logs, evaluates and saves, and says whether to go on.

    only_step: every step gets the rows and masks of this one.
    """
    total_steps, pace = state.updater.total_steps, Pace(state.device)
    state.objective.train()
    with _Ahead(state, batches, seed, only_step) as examples:
        for step in range(state.step, total_steps):
            start = time.perf_counter()
            example = next(examples)
            wait_seconds = time.perf_counter() - start
            torch.manual_seed(torch_seed(seed, "dropout", step, rank()))
            losses, tokens = train_step(state, example, micro_batch_rows)
            update = state.updater.update(step, losses.sum())
            state.step = step + 1
            if state.average is not None:
                state.average.update(state.step)
            pace.step()
            seconds = time.perf_counter() - start
            if not on_event(state, StepReport(losses, update, int(tokens.item()), seconds, wait_seconds)):
                return
            state.objective.train()


class _Ahead(AbstractContextManager[Iterator[Example]]):
    """Corrupted rows of the coming steps, made by a thread while the current step computes."""

    def __init__(self, state: TrainState, batches: Batches, seed: int, only_step: int | None) -> None:
        self.objective, self.batches, self.seed, self.only_step = state.objective, batches, seed, only_step
        self.first, self.total_steps = state.step, state.updater.total_steps
        self.is_gpu = state.device.type == "cuda"
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def make(self, step: int) -> Example:
        step = step if self.only_step is None else self.only_step
        batch = self.batches.at(step, rank(), world_size())
        # Keyed by step and row, not by rank.
        example = self.objective.corrupt(batch, RowRng(self.seed, "mask", step), step / self.total_steps)
        return example.pinned() if self.is_gpu else example

    def __enter__(self) -> Iterator[Example]:
        return self._examples()

    def _examples(self) -> Iterator[Example]:
        waiting: list[Future[Example]] = []
        for step in range(self.first, self.total_steps + _AHEAD):
            if step < self.total_steps:
                waiting.append(self.pool.submit(self.make, step))
            if step >= self.first + _AHEAD and waiting:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
