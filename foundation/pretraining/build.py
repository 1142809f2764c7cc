"""The parts of a pretraining run from its settings, in the order of the floors, and how long it shall be."""

import time
from functools import partial
from pathlib import Path

import torch

from foundation.core import distributed
from foundation.core.device import synchronize
from foundation.core.errors import UserError
from foundation.core.randomness import RowRng, torch_seed
from foundation.data.batches import PretrainingBatches
from foundation.data.corpus import Corpus
from foundation.data.prepare import prepare
from foundation.objective.next_sentence import pairs_for
from foundation.objective.pretraining import PretrainingObjective
from foundation.train.averaging import WeightAverage
from foundation.train.duration import seconds as budget_seconds
from foundation.train.duration import seconds_per_step
from foundation.train.held_out import HeldOut
from foundation.train.loop import TrainState, compiles, train_step
from foundation.train.optim import Updater
from foundation.train.pretrain_config import PretrainConfig


def make_corpus(cfg: PretrainConfig) -> Corpus:
    """Prepared, or found where it was prepared before; by one rank for all."""
    with distributed.main_first():
        return prepare(cfg.data, cfg.tokenizer, Path(cfg.runs_dir) / "corpora", progress=distributed.is_main())


def make_batches(cfg: PretrainConfig, corpus: Corpus) -> PretrainingBatches:
    """The training rows."""
    pairs = pairs_for(cfg.objective.sentence_task)
    return PretrainingBatches(corpus.train, corpus.tokenizer.specials, cfg.batches, pairs=pairs, seed=cfg.seed)


def make_objective(cfg: PretrainConfig, corpus: Corpus) -> PretrainingObjective:
    """Fresh weights: a function of the seed alone."""
    tokenizer = corpus.tokenizer
    if tokenizer.vocab_size != cfg.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} entries: set tokenizer.vocab_size={tokenizer.vocab_size}"
        )
    torch.manual_seed(torch_seed(cfg.seed, "init"))
    return PretrainingObjective(
        cfg.objective,
        cfg.model,
        tokenizer.specials,
        tokenizer.continues_word,
        seq_len=cfg.batches.seq_len,
        table=corpus.train,
    )


def make_state(
    cfg: PretrainConfig, objective: PretrainingObjective, device: torch.device, total_steps: int
) -> TrainState:
    """The objective on its device, with its optimizers."""
    objective, trainer = objective.to(device), cfg.trainer
    updater = Updater(objective, cfg.optim, cfg.schedule, total_steps)
    state = TrainState(objective, updater, device, trainer.precision, compiles(trainer, device, unasked=True))
    if cfg.ema_decay:
        state.average = WeightAverage(objective, cfg.ema_decay)
    return state


def make_held_out(cfg: PretrainConfig, objective: PretrainingObjective, corpus: Corpus) -> HeldOut:
    """The examination."""
    return HeldOut(objective, corpus.held_out, seq_len=cfg.batches.seq_len, rows=cfg.trainer.eval_rows)


def plan_steps(
    cfg: PretrainConfig, corpus: Corpus, batches: PretrainingBatches, device: torch.device, spent_seconds: float
) -> dict[str, float | int]:
    """`total_steps`, and what it was derived from. A budget is turned into steps here, once; time never steers the run.

    Args:
        spent_seconds: of the budget, before this call.
    """
    duration = cfg.duration
    if duration.steps is not None:
        return {"total_steps": duration.steps}
    if duration.epochs is not None:
        return {"total_steps": max(1, round(duration.epochs * len(batches) / cfg.batches.mean_rows))}
    if duration.tokens is not None:
        special_tokens = 2 if batches.pairs.value == "none" else 3
        per_row = corpus.manifest["train"]["tokens"] / len(batches) + special_tokens
        return {"total_steps": max(1, round(duration.tokens / (per_row * cfg.batches.mean_rows)))}
    assert duration.budget is not None
    start = time.perf_counter()
    step_seconds, eval_seconds = _measure(cfg, corpus, batches, device)
    spent_seconds += time.perf_counter() - start
    # Evaluations share the budget with the steps: every eval_every_steps, and one at the end.
    interval = cfg.trainer.eval_every_steps
    of_evaluations = eval_seconds / interval if interval else 0.0
    per_step = step_seconds * cfg.batches.mean_rows / cfg.batches.rows_per_step + of_evaluations
    steps = int((budget_seconds(duration.budget) - spent_seconds - eval_seconds) / per_step)
    # Clocks differ between ranks; the number of steps must not: rank 0's counts.
    steps = int(distributed.sum_over_ranks(torch.tensor(steps if distributed.is_main() else 0, device=device)))
    if steps < 1:
        raise UserError(
            f"budget={duration.budget} leaves no time for a step: {spent_seconds:.0f} s went into preparation and a step takes "
            f"{step_seconds:.1f} s; give more time (the corpus is kept, so the next start is faster)"
        )
    return {"total_steps": steps, "seconds_per_step": step_seconds, "seconds_per_evaluation": eval_seconds}


def _measure(
    cfg: PretrainConfig, corpus: Corpus, batches: PretrainingBatches, device: torch.device
) -> tuple[float, float]:
    """Seconds of a step and of an evaluation on a state that is then thrown away; means over ranks, so that all agree."""
    objective = make_objective(cfg, corpus)
    state = make_state(cfg, objective, device, total_steps=1_000_000)
    held_out = make_held_out(cfg, objective, corpus)

    def one_step(step: int) -> None:
        batch = batches.at(step, distributed.rank(), distributed.world_size())
        example = objective.corrupt(batch, RowRng(cfg.seed, "mask", step), 0.0).to(device)
        losses, _ = train_step(state, example, cfg.trainer.micro_batch_rows)
        state.updater.update(step, losses.sum())

    step_seconds = seconds_per_step(one_step, settle=partial(synchronize, device))
    start = time.perf_counter()
    held_out.metrics(state)
    times = torch.tensor([step_seconds, time.perf_counter() - start], dtype=torch.float64, device=device)
    step_mean, eval_mean = (distributed.sum_over_ranks(times) / distributed.world_size()).tolist()
    return step_mean, eval_mean
