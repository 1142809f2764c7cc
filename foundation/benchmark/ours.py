"""Our own steps, as a run makes them."""

from dataclasses import dataclass
from itertools import cycle

import torch

from foundation.benchmark.config import FinetuningCase, PretrainingCase
from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.benchmark.text import (
    bert_shape,
    classified_rows,
    cross_to,
    modern_shape,
    open_corpus,
    pretraining_examples,
)
from foundation.core.memory import keep_freed_memory
from foundation.core.randomness import RowRng
from foundation.data.config import DataConfig
from foundation.objective.base import Objective
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from foundation.task.batches import TaskBatches
from foundation.task.config import Pooling
from foundation.task.heads import TaskObjective
from foundation.train.config import AdamWConfig, Precision, ScheduleConfig, Shape
from foundation.train.loop import TrainState, train_step
from foundation.train.optim import Updater

# No measurement ends a run, so the schedule must not either.
_TOTAL_STEPS = 1_000_000


def _state(objective: Objective, setup: Setup, precision: Precision, *, compiles: bool = False) -> TrainState:
    """compiles: as pretraining does unasked on a GPU."""
    keep_freed_memory()
    device = torch.device(setup.device)
    objective = objective.to(device).train()
    updater = Updater(
        objective, AdamWConfig(lr=5e-5), ScheduleConfig(shape=Shape.linear, warmup_share=0.0), _TOTAL_STEPS
    )
    compiles = compiles and device.type == "cuda" and precision is Precision.bf16
    return TrainState(objective, updater, device, precision, compiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class OurPretraining(Contender):
    """Forward, backward, clip, AdamW, on rows that are ready."""

    case: PretrainingCase
    data: DataConfig
    precision: Precision
    is_modern: bool = False

    def build(self, setup: Setup) -> Work:
        """A model of random weights and its steps."""
        corpus = open_corpus(self.data, self.case.size.vocab_size, setup.runs_dir)
        examples = cross_to(pretraining_examples(self.case, corpus), setup.device)
        torch.manual_seed(0)
        shape = (modern_shape if self.is_modern else bert_shape)(self.case.size, self.case.seq_len)
        cfg = ObjectiveConfig(masking=MaskingConfig(), sentence_task=SentenceTask.nsp)
        tokenizer = corpus.tokenizer
        objective = PretrainingObjective(
            cfg, shape, tokenizer.specials, tokenizer.continues_word, seq_len=self.case.seq_len
        )
        state, steps = _state(objective, setup, self.precision, compiles=True), cycle(examples)

        def work() -> Done:
            example = next(steps)
            losses, _ = train_step(state, example, micro_batch_rows=0)
            state.updater.update(state.step, losses.sum())
            state.step += 1
            return Done(example.n_tokens)

        return work


@dataclass(frozen=True, slots=True, kw_only=True)
class OurFinetuning(Contender):
    """Epochs over texts that are tokenised; batches are put together inside the clock."""

    case: FinetuningCase
    data: DataConfig
    precision: Precision

    def build(self, setup: Setup) -> Work:
        """A model of random weights, and the texts."""
        tokenizer = open_corpus(self.data, self.case.size.vocab_size, setup.runs_dir).tokenizer
        rows, labels = classified_rows(self.case, self.data, tokenizer)
        batches = TaskBatches(rows, labels, batch_rows=self.case.rows, seed=0)
        torch.manual_seed(0)
        shape = bert_shape(self.case.size, self.case.seq_len)
        state = _state(TaskObjective(shape, n_out=2, pooling=Pooling.cls, dropout=shape.dropout), setup, self.precision)

        def work() -> Done:
            n_tokens = 0
            for _ in range(batches.steps_per_epoch):
                rng = RowRng(0, "mask", state.step)
                example = state.objective.corrupt(batches.at(state.step), rng, 0.0).to(state.device)
                losses, _ = train_step(state, example, micro_batch_rows=0)
                state.updater.update(state.step, losses.sum())
                state.step += 1
                n_tokens += example.n_tokens
            return Done(n_tokens)

        return work
