"""Weights and optimizer to disk and back: ours whole, flushed and verified by checksum; the peer's as its Trainer does.

What is timed of a save is how long a training would wait; ours is written beside it, and until then a line of its own tells.
A load is a first one, with no optimizer's memory of an earlier one to give back.
"""

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import load, save

from foundation.benchmark.config import CheckpointCase
from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.benchmark.peer import bert_settings
from foundation.benchmark.text import bert_shape
from foundation.core.memory import keep_freed_memory
from foundation.model.encoder import Encoder
from foundation.train.checkpoint import Checkpoints, load_into
from foundation.train.config import AdamWConfig, ScheduleConfig, Shape
from foundation.train.optim import Updater

_SEQ_LEN = 512


def _step_once(model: torch.nn.Module) -> None:
    """A gradient for every weight, so that the optimizer has something to remember."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)


@dataclass(frozen=True, slots=True, kw_only=True)
class OurCheckpoint(Contender):
    """saves: time the save, else the load; each piece of work does both. to_disk: the save until all is on the disk."""

    case: CheckpointCase
    saves: bool
    to_disk: bool = False

    def build(self, setup: Setup) -> Work:
        """An encoder and its optimizer after one step."""
        encoder = Encoder(bert_shape(self.case.size, _SEQ_LEN))

        def fresh() -> Updater:
            return Updater(encoder, AdamWConfig(lr=1e-4), ScheduleConfig(shape=Shape.linear), 10)

        updater = fresh()
        _step_once(encoder)
        updater.update(0, torch.zeros(()))
        keep_freed_memory()  # as pretraining does
        folder = TemporaryDirectory(dir=_folder(setup))
        checkpoints = Checkpoints(Path(folder.name), keep=1)
        steps = count()  # a step that is there already would not be written again

        def work() -> Done:
            nonlocal updater
            start = time.perf_counter()
            assert folder.name  # held here: it goes when the work does
            checkpoints.save(next(steps), encoder.state_dict(), updater.state_tensors(), {})
            copied = time.perf_counter()
            checkpoints.wait()
            written = time.perf_counter()
            updater = fresh()
            reading = time.perf_counter()
            loaded = checkpoints.load_last()
            load_into(encoder, loaded.model, "bench")
            updater.load_state_tensors(loaded.optim)
            end = time.perf_counter()
            saved = written if self.to_disk else copied
            return Done(1, saved - start if self.saves else end - reading)

        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCheckpoint(Contender):
    """save_pretrained and a pickled optimizer, and back."""

    case: CheckpointCase
    saves: bool

    def build(self, setup: Setup) -> Work:
        """A model and its optimizer after one step."""
        from transformers import BertModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        model: Any = BertModel(bert_settings(self.case.size, _SEQ_LEN), add_pooling_layer=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
        _step_once(model)
        optimizer.step()
        temporary = TemporaryDirectory(dir=_folder(setup))

        def work() -> Done:
            folder = Path(temporary.name)
            start = time.perf_counter()
            model.save_pretrained(folder)
            save(optimizer.state_dict(), folder / "optimizer.pt")
            middle = time.perf_counter()
            again = BertModel.from_pretrained(folder, add_pooling_layer=False)
            fresh = torch.optim.AdamW(again.parameters(), lr=5e-5, fused=True)
            fresh.load_state_dict(load(folder / "optimizer.pt"))
            end = time.perf_counter()
            return Done(1, middle - start if self.saves else end - middle)

        return work


def _folder(setup: Setup) -> Path:
    """Beside the runs, so that the disk is the one that runs are written to."""
    folder = Path(setup.runs_dir) / "bench" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
