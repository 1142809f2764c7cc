"""One session of a pretraining run: start or go on, train, and leave `final/` or a checkpoint to go on from."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from foundation.core import distributed
from foundation.core.device import StopRequest, choose_device
from foundation.core.errors import UserError
from foundation.core.files import fingerprint, is_full_disk
from foundation.core.logger import Logger
from foundation.core.memory import keep_freed_memory, peak_memory_bytes
from foundation.core.plain import to_plain
from foundation.core.run import Run, open_run, refuse_other_settings, remove_run, run_exists
from foundation.core.wandb_log import start_wandb
from foundation.model import native
from foundation.model.flops import flops_per_token
from foundation.pretraining.announce import announce
from foundation.pretraining.beginning import begun_with, load_beginning
from foundation.pretraining.build import (
    make_batches,
    make_corpus,
    make_held_out,
    make_objective,
    make_state,
    plan_steps,
)
from foundation.pretraining.profile import Profile
from foundation.pretraining.resume import command_to_go_on, full_disk, take_corpus
from foundation.train.checkpoint import Checkpoints, load_into
from foundation.train.config import Precision
from foundation.train.foundation import Foundation
from foundation.train.loop import StepReport, TrainState, compiles, train
from foundation.train.pretrain_config import SPEED_ONLY, PretrainConfig


def pretrain(cfg: PretrainConfig, settings: dict[str, Any]) -> None:
    """Run it, or go on with it. A user's mistake raises UserError and loses nothing.

    settings: the same as cfg, plain, as run.json and wandb keep them.
    """
    keep_freed_memory()
    device = choose_device(cfg.trainer.device)
    compiles(cfg.trainer, device, unasked=True)  # a mistake there is said before the corpus is made
    distributed.setup(device.type)
    try:
        _refuse_idle_ranks(cfg)
        if cfg.trainer.threads:
            torch.set_num_threads(cfg.trainer.threads)
        _run(cfg, settings, device)
    finally:
        distributed.shutdown()


def _refuse_idle_ranks(cfg: PretrainConfig) -> None:
    ranks, rows = distributed.world_size(), cfg.batches.fewest_rows
    if rows < ranks:
        raise UserError(
            f"{ranks} ranks want a row each, and the smallest step has {rows}: start at most {rows} of them (--nproc-per-node), "
            "or raise batches.rows_per_step, or batches.ramp_from where there is one"
        )


def _run(cfg: PretrainConfig, settings: dict[str, Any], device: torch.device) -> None:
    cfg, settings, beginning = begun_with(cfg, settings)
    path = Path(cfg.runs_dir) / cfg.name
    if cfg.resume.lower() == "again":
        with distributed.main_first():
            if distributed.is_main():
                remove_run(path)
    resume = cfg.resume.lower() == "true" or (cfg.resume.lower() == "auto" and run_exists(path))
    if resume and (path / "final" / "config.json").is_file():
        refuse_other_settings(path, settings, SPEED_ONLY)
        print(f"{path} is finished: its foundation is in {path / 'final'}")
        return
    try:
        command = distributed.command_line("pretrain")
        with open_run(path, settings, resume=resume, speed_only=SPEED_ONLY, command=command) as run:
            status = Session(cfg, settings, run, device, beginning).run_to_end()
    except OSError as error:
        if is_full_disk(error) and run_exists(path):
            raise full_disk(error, path) from error
        raise
    if status:
        sys.exit(status)  # what is behind it on a command line, `&& …finetune`, wants a foundation


class Session:
    """The run's parts, and what is done after every step."""

    def __init__(
        self,
        cfg: PretrainConfig,
        settings: dict[str, Any],
        run: Run,
        device: torch.device,
        beginning: Foundation | None,
    ) -> None:
        self.cfg, self.settings, self.run, self.device, self.beginning = cfg, settings, run, device, beginning
        self.started = time.perf_counter()
        self.corpus = make_corpus(cfg)
        self.unigram_nats = float(self.corpus.manifest["unigram_entropy_nats"])
        self.checkpoints = Checkpoints(run.path / "checkpoints", cfg.trainer.keep)
        take_corpus(run, self.corpus, beginning, has_checkpoint=bool(self.checkpoints.steps()))
        not_the_result = {name.partition(".")[0] for name in SPEED_ONLY}
        result_settings = {key: value for key, value in settings.items() if key not in not_the_result}
        self.passes = native.passes(device, bf16=cfg.trainer.precision is Precision.bf16)
        run.note(
            ranks=distributed.world_size(),
            device=device.type,
            threads=torch.get_num_threads(),
            micro_batch_rows=cfg.trainer.micro_batch_rows,
            passes=to_plain(self.passes),
        )
        parents = [] if beginning is None else [beginning.fingerprint]
        self.foundation_id = fingerprint([result_settings, self.corpus.fingerprint, *parents])
        self.batches = make_batches(cfg, self.corpus)
        if "plan" not in run.record:
            spent_seconds = time.perf_counter() - self.started
            run.set_plan(plan_steps(cfg, self.corpus, self.batches, device, spent_seconds))
        self.total_steps = int(run.record["plan"]["total_steps"])
        self.batches.ramp_over(self.total_steps)
        self.objective = make_objective(cfg, self.corpus)
        self.fresh_heads = [] if beginning is None else load_beginning(self.objective, beginning)
        self.state = make_state(cfg, self.objective, device, self.total_steps)
        self.held_out = make_held_out(cfg, self.objective, self.corpus)
        self.tokens, self.trained_seconds, self.last_eval = 0, 0.0, dict[str, float]()
        self.window_tokens, self.window_seconds, self.window_wait = 0, 0.0, 0.0
        if self.checkpoints.steps():
            self._restore()
        self.tokens_before = self.tokens
        seq_len = cfg.batches.seq_len
        predictions, read = cfg.objective.predictions_per_token(seq_len), self.objective.read_share(seq_len)
        self.flops_per_token = flops_per_token(cfg.model, seq_len, predictions, read)

    def _restore(self) -> None:
        loaded = self.checkpoints.load_last()
        load_into(self.objective, loaded.model, str(self.checkpoints.folder))
        self.state.load_memory_tensors(loaded.optim)
        self.state.updater.skipped = loaded.state["skipped"], loaded.state["skipped_in_a_row"]
        self.state.step, self.tokens = loaded.state["step"], loaded.state["tokens"]
        self.trained_seconds, self.last_eval = loaded.state["seconds"], loaded.state["last_eval"]

    def run_to_end(self) -> int:
        """Train, then write `final/` and the plots; stopped early, say how to go on. Returns the exit status: 0 when finished."""
        cfg = self.cfg
        self.wandb = start_wandb(
            cfg.logger,
            run_path=self.run.path,
            name=cfg.name,
            group=self.foundation_id,
            job_type="pretrain",
            config=self.settings,
            run_id=self.run.id,
        )
        self.logger = Logger(
            self.run.path,
            cfg.logger,
            total_steps=self.total_steps,
            start_step=self.state.step,
            wandb_run=self.wandb,
            description=cfg.name,
        )
        ended_well = False
        try:
            announce(self)
            with (
                StopRequest() as self.stop,
                Profile(self.run.path / "profile", cfg.trainer.profile_steps, self.logger.say) as self.profile,
                self.checkpoints,
            ):
                train(
                    self.state,
                    self.batches,
                    seed=cfg.seed,
                    micro_batch_rows=cfg.trainer.micro_batch_rows,
                    only_step=cfg.batches.only_step,
                    on_event=self._on_event,
                )
            if self.state.step == self.total_steps:
                # Here: what draws curves takes a second to import, and the first step would wait for it.
                from foundation.pretraining.finish import finish

                finish(self)
            else:
                self._say_how_to_go_on()
            ended_well = True
        finally:
            self.logger.close()
            self.wandb.finish(ended_well=ended_well)
        return 0 if self.state.step == self.total_steps else self.stop.status

    def _on_event(self, state: TrainState, report: StepReport) -> bool:
        """After every step: log, evaluate, save, stop; each decides by the step."""
        trainer, step, is_last = self.cfg.trainer, state.step, state.step == self.total_steps
        self.tokens += report.n_tokens
        self.trained_seconds += report.seconds
        self.profile.step()
        self._log(report)
        if is_last or (trainer.eval_every_steps and step % trainer.eval_every_steps == 0):
            self.evaluate()
        stop_now = self.stop.is_set()
        if is_last or stop_now or (trainer.save_every_steps and step % trainer.save_every_steps == 0):
            self._save()
        return not stop_now

    def _log(self, report: StepReport) -> None:
        self.window_tokens += report.n_tokens
        self.window_seconds += report.seconds
        self.window_wait += report.wait_seconds
        if not (self.logger.is_due(self.state.step) or report.update.skipped):
            return
        losses = report.losses.tolist()
        tokens_per_s = self.window_tokens / self.window_seconds
        metrics: dict[str, float] = {"train/loss": sum(losses)}
        metrics |= {f"train/{term}": loss for term, loss in zip(self.objective.terms, losses, strict=True)}
        metrics |= {
            "train/below_unigram": self.unigram_nats - losses[0],
            "train/tokens": self.tokens,
            "optim/lr": report.update.lr,
            "optim/grad_norm": report.update.grad_norm,
            "optim/skipped": self.state.updater.skipped[0],
            "speed/tokens_per_s": tokens_per_s,
            "speed/wait_share": self.window_wait / self.window_seconds,
        }
        self.logger.log(self.state.step, metrics)
        self.logger.progress(self.state.step, sum(losses), tokens_per_s)
        self.window_tokens, self.window_seconds, self.window_wait = 0, 0.0, 0.0

    def evaluate(self) -> None:
        """Held-out scores of the weights that would be kept now, logged and said."""
        with self.state.averaged():
            found = self.held_out.metrics(self.state)
        below = self.unigram_nats - found["eval/mlm_loss"]
        self.last_eval = {**found, "eval/below_unigram": below}
        self.logger.log(self.state.step, self.last_eval)
        text = f"step {self.state.step}: held-out MLM loss {found['eval/mlm_loss']:.3f} nats"
        text += f" ({abs(below):.2f} {'below' if below > 0 else 'ABOVE'} the unigram entropy)"
        text += f", accuracy {found['eval/mlm_accuracy']:.1%}"
        for question in (term.question for term in self.objective.asked):
            if (name := f"eval/{question}_accuracy") in found:
                text += f", {question.upper()} accuracy {found[name]:.1%} "
                text += f"[{found[f'{name}_low']:.1%}, {found[f'{name}_high']:.1%}]"
            elif (name := f"eval/{question}_loss") in found:
                text += f", {question} {found[name]:.3f} nats"
        self.logger.say(text)

    def _save(self) -> None:
        updater = self.state.updater
        skipped, skipped_in_a_row = updater.skipped
        with distributed.main_first():
            if distributed.is_main():
                state = {
                    "tokens": self.tokens,
                    "seconds": self.trained_seconds,
                    "skipped": skipped,
                    "skipped_in_a_row": skipped_in_a_row,
                    "last_eval": self.last_eval,
                }
                self.checkpoints.save(self.state.step, self.objective.state_dict(), self.state.memory_tensors(), state)
        self.note_costs()

    def note_costs(self) -> None:
        """This session's totals so far; run.json adds the sessions up."""
        tokens = self.tokens - self.tokens_before
        self.run.update(
            ledger={
                "seconds": time.perf_counter() - self.started,
                "tokens": tokens,
                "flops": tokens * self.flops_per_token,
                "peak_memory_bytes": peak_memory_bytes(self.device.type),
            }
        )

    def _say_how_to_go_on(self) -> None:
        self.run.close("stopped when asked to")
        self.logger.say(
            f"stopped after step {self.state.step} of {self.total_steps}, and saved; go on with:\n  {command_to_go_on()}"
        )
