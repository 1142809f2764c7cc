"""Run by test_loop.py, alone and under torchrun: five steps in float64; losses, weights and scores to a file."""

import sys

import torch

from foundation.core import distributed
from foundation.objective.config import SentenceTask
from foundation.train.held_out import HeldOut
from foundation.train.loop import StepReport, TrainState, train
from tests.builders import table
from tests.train.test_loop import batches_for, objective_of, state_of

torch.set_num_threads(1)
distributed.setup("cpu")
objective = objective_of(SentenceTask.nsp).double()
losses: list[float] = []


def on_event(state: TrainState, report: StepReport) -> bool:
    losses.append(float(report.losses.sum()))
    return True


state = state_of(objective, steps=5)
train(state, batches_for(SentenceTask.nsp, rows=13), seed=0, micro_batch_rows=3, on_event=on_event)
examination = HeldOut(objective, table(n_documents=40, seed=5), seq_len=40, rows=96)
assert examination.n_batches == 3
held_out = examination.metrics(state)
if distributed.is_main():
    torch.save({"losses": losses, "held_out": held_out, "weights": objective.state_dict()}, sys.argv[1])
distributed.shutdown()
