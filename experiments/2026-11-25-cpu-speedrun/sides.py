"""The two that race: transformers' BertForPreTraining in a bare loop, and our pretraining. Both step, tell, and are examined.

Letters: R rows · L tokens of a padded row · M targets
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from cells import Recipe, Rules
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from torch import Tensor

from foundation.benchmark.config import SizeConfig
from foundation.benchmark.peer import PaddedStep, bert_settings, padded_steps
from foundation.config import check_choices, check_command_line, conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.randomness import RowRng, torch_seed
from foundation.data.batches import Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.data.corpus import Corpus
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig
from foundation.objective.masked_lm import Masking
from foundation.pretraining.build import make_batches, make_objective, make_state
from foundation.train.config import Precision
from foundation.train.held_out import EVAL_SEED
from foundation.train.loop import StepReport, TrainState, autocast, train, train_step
from foundation.train.pretrain_config import PretrainConfig

_CPU = torch.device("cpu")
_EXAMINED_AT_ONCE = 32
# What a side says after a step: steps done, real tokens of the step, its seconds, its loss.
Told = Callable[[int, int, float, float], None]


class Side(Protocol):
    """What the harness asks of either."""

    def one_step(self, step: int) -> None:
        """A step of a state that is thrown away, to be timed."""

    def train(self, total_steps: int, told: Told) -> None:
        """The whole run, from fresh weights, with its schedule ending at total_steps."""

    def examine(self, example: Example) -> float:
        """Summed held-out MLM loss of the trained weights as they are, nats."""


def composed(words: list[str]) -> PretrainConfig:
    """Settings as `python -m foundation.pretrain` would have them from these words."""
    register(PretrainConfig, "pretrain")
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            cfg = to_dataclass(compose("pretrain", overrides=words), PretrainConfig)
        except HydraException:
            check_command_line(words, PretrainConfig)  # says what is meant
            check_choices(words, PretrainConfig, "pretrain")
            raise
    cfg.check()
    return cfg


def examination(corpus: Corpus, rules: Rules, pairs: Pairs) -> list[Example]:
    """Foundation's own held-out rows and masks (train/held_out.py), whichever objective is examined."""
    tokenizer = corpus.tokenizer
    cfg = BatchesConfig(rows_per_step=1, seq_len=rules.seq_len, short_share=0.0)
    batches = PretrainingBatches(corpus.held_out, tokenizer.specials, cfg, pairs=pairs, seed=EVAL_SEED)
    rows = min(rules.eval_rows, len(batches))
    batches.rows_per_step = min(rows, _EXAMINED_AT_ONCE)
    masking = Masking(MaskingConfig(), tokenizer.specials, tokenizer.continues_word, row_stride=rules.seq_len)
    n_batches = max(1, rows // batches.rows_per_step)
    return [masking(batches.at(number), RowRng(EVAL_SEED, "mask", number), 0.0) for number in range(n_batches)]


class Ours:
    """Our objective, batches, updater and loop, as foundation.pretrain puts them together; only the clock is the harness's."""

    def __init__(self, cfg: PretrainConfig, corpus: Corpus) -> None:
        self.cfg, self.batches = cfg, make_batches(cfg, corpus)
        self.corpus = corpus
        self.state = self._fresh(total_steps=1_000_000)

    def _fresh(self, total_steps: int) -> TrainState:
        return make_state(self.cfg, make_objective(self.cfg, self.corpus), _CPU, total_steps)

    def one_step(self, step: int) -> None:
        """Rows made here and now: slower than in the run, where a thread makes them ahead, but on two cores hardly."""
        objective = self.state.objective
        example = objective.corrupt(self.batches.at(step), RowRng(self.cfg.seed, "mask", step), 0.0)
        losses, _ = train_step(self.state, example, self.cfg.trainer.micro_batch_rows)
        self.state.updater.update(step, losses.sum())

    def train(self, total_steps: int, told: Told) -> None:
        """foundation/train/loop.py."""
        self.state = self._fresh(total_steps)
        self.batches.ramp_over(total_steps)

        def on_event(state: TrainState, report: StepReport) -> bool:
            told(state.step, report.n_tokens, report.seconds, float(report.losses.sum()))
            return True

        train(
            self.state,
            self.batches,
            seed=self.cfg.seed,
            micro_batch_rows=self.cfg.trainer.micro_batch_rows,
            on_event=on_event,
        )

    def examine(self, example: Example) -> float:
        """Scored by the objective itself."""
        objective: Any = self.state.objective.eval()
        with self.state.averaged(), self.state.autocast():
            return float(objective.score(example)["mlm"].loss)


class Peer:
    """BertForPreTraining (BertForMaskedLM without pairs) in a loop without the Trainer's costs, rows padded before the clock."""

    def __init__(self, recipe: Recipe, rules: Rules, corpus: Corpus, seed: int) -> None:
        self.recipe, self.rules, self.seed = recipe, rules, seed
        if recipe.schedule not in ("linear", "constant"):
            raise UserError(f"the peer's schedule={recipe.schedule} must be linear or constant")
        self.precision = Precision(recipe.precision)
        tokenizer = corpus.tokenizer
        self.vocab_size = tokenizer.vocab_size
        cfg = BatchesConfig(
            rows_per_step=recipe.rows,
            seq_len=rules.seq_len,
            short_share=0.0,
            whole_sentences=recipe.whole_sentences,
        )
        pairs = Pairs.next if recipe.nsp else Pairs.none
        self.batches = PretrainingBatches(corpus.train, tokenizer.specials, cfg, pairs=pairs, seed=seed)
        self.masking = Masking(MaskingConfig(), tokenizer.specials, tokenizer.continues_word, row_stride=rules.seq_len)
        self._start(total_steps=1_000_000)

    def _start(self, total_steps: int) -> None:
        """Fresh weights and optimizer; a compiled model is compiled here, outside of the clock."""
        from transformers import BertForMaskedLM, BertForPreTraining, get_scheduler

        recipe = self.recipe
        settings = bert_settings(
            SizeConfig(vocab_size=self.vocab_size, width=recipe.width, layers=recipe.layers, heads=recipe.heads),
            self.rules.seq_len,
        )
        settings.hidden_dropout_prob = settings.attention_probs_dropout_prob = recipe.dropout
        torch.manual_seed(torch_seed(self.seed, "init"))
        self.model: Any = (BertForPreTraining if recipe.nsp else BertForMaskedLM)(settings)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=True)
        kind = "linear" if recipe.schedule == "linear" else "constant_with_warmup"
        self.scheduler = get_scheduler(
            kind,
            self.optimizer,
            num_warmup_steps=round(recipe.warmup_share * total_steps),
            num_training_steps=total_steps,
        )
        self.forward = torch.compile(self.model) if recipe.compiled else self.model
        if recipe.compiled:
            self._gradients(self._rows(0))
            self.optimizer.zero_grad()

    def _rows(self, step: int) -> PaddedStep:
        example = self.masking(self.batches.at(step), RowRng(self.seed, "mask", step), 0.0)
        (rows,) = padded_steps(example, 0, self.rules.seq_len)
        if not self.recipe.nsp:
            del rows.inputs["next_sentence_label"]
        return rows

    def _gradients(self, rows: PaddedStep) -> float:
        with autocast(_CPU, self.precision):
            loss = self.forward(**rows.inputs).loss
        loss.backward()
        return float(loss.detach())

    def _step(self, rows: PaddedStep) -> float:
        loss = self._gradients(rows)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss

    def one_step(self, step: int) -> None:
        """Of the state that __init__ made."""
        self.model.train()
        self._step(self._rows(step))

    def train(self, total_steps: int, told: Told) -> None:
        """Only the step itself is on the clock: the peer's data cost it nothing."""
        self._start(total_steps)
        for step in range(total_steps):
            rows = self._rows(step)
            self.model.train()
            torch.manual_seed(torch_seed(self.seed, "dropout", step))
            start = time.perf_counter()
            loss = self._step(rows)
            seconds = time.perf_counter() - start
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at step {step + 1} of {total_steps}")
            told(step + 1, rows.n_tokens, seconds, loss)

    @torch.no_grad()
    def examine(self, example: Example) -> float:
        """The peer's own logits at the same positions."""
        self.model.eval()
        total = 0.0
        for rows in padded_steps(example, 0, self.rules.seq_len):
            with autocast(_CPU, self.precision):
                logits_MV, targets_M = self._asked(rows.inputs)
            total += float(F.cross_entropy(logits_MV.float(), targets_M, reduction="sum"))
        return total

    def _asked(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        is_asked_RL = inputs["labels"] != -100
        known = {name: inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
        hidden_RLD = self.model.bert(**known).last_hidden_state
        head = self.model.cls.predictions
        return head(hidden_RLD[is_asked_RL]), inputs["labels"][is_asked_RL]


def nats_per_target(side: Side, examples: list[Example]) -> float:
    """Mean held-out loss over an examination's masked tokens."""
    return sum(side.examine(example) for example in examples) / max(1, sum(len(e.targets) for e in examples))


def marks(total_steps: int, evaluations: int) -> Iterator[int]:
    """Steps after which to examine: evenly spread, the last one among them."""
    yield from sorted({math.ceil(total_steps * (number + 1) / evaluations) for number in range(evaluations)})
