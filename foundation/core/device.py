"""The device a run computes on, and stopping it politely."""

import os
import signal
from contextlib import AbstractContextManager
from types import FrameType

import torch
from torch import Tensor

from foundation.core import distributed
from foundation.core.errors import UserError


def choose_device(wanted: str) -> torch.device:
    """auto, cpu or cuda as a device; with torchrun, each rank its own GPU. Raises UserError where there is none."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise UserError(f"trainer.device={wanted} must be auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "trainer.device=cuda, but torch sees no GPU here: use trainer.device=cpu, or install a CUDA build of torch"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def device_of(device: torch.device, process: int, n_gpus: int) -> torch.device:
    """Where the process-th of several on one machine computes, from 0: the GPUs in turn, if it is to be a GPU."""
    return torch.device("cuda", process % n_gpus) if device.type == "cuda" and n_gpus else device


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on another device; to a GPU from page-locked memory, so that the host need not wait for the copy."""
    source = tensor.pin_memory() if device.type == "cuda" and not (tensor.is_cuda or tensor.is_pinned()) else tensor
    return source.to(device, non_blocking=True)


def synchronize(device: torch.device) -> None:
    """A GPU works on after the call that asked it has returned: wait until it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Pace:
    """Keeps the host one step ahead of a GPU and no more: there is always work, and a step's seconds are the device's."""

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._before: torch.cuda.Event | None = None

    def step(self) -> None:
        """A step has been asked for: wait for the one before it."""
        if not self._is_gpu:
            return
        asked = torch.cuda.Event(blocking=True)
        asked.record()
        if self._before is not None:
            self._before.synchronize()
        self._before = asked


class StopRequest(AbstractContextManager["StopRequest"]):
    """Inside the block, Ctrl-C and SIGTERM only leave a note, so that the step can be finished; a second Ctrl-C stops at once.

    status: what a program that was stopped so exits with, as a shell has it; a rank that heard of it from another has SIGTERM's.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._asked = False
        self.status = 128 + signal.SIGTERM

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked, self.status = True, 128 + number

    def is_set(self) -> bool:
        """Whether any rank was asked to stop: all of them then do."""
        return distributed.any_over_ranks(self._asked)
