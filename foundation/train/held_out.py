"""Held-out scores of a pretraining objective: fixed rows, fixed masks at a fixed rate, whatever training does."""

from collections.abc import Iterator

import torch

from foundation.core.distributed import rank, sum_over_ranks, world_size
from foundation.core.errors import UserError
from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig
from foundation.objective.next_sentence import pairs_for
from foundation.objective.pretraining import PretrainingObjective, Scores
from foundation.train.loop import TrainState

# Of no relation to any run's seed: two runs are always measured on the same rows and masks.
EVAL_SEED = 20_190_524
_ROWS_AT_ONCE = 32


class HeldOut:
    """The examination: the first `rows` held-out rows in a fixed order, masked once and for all at BERT's 15 %."""

    def __init__(self, objective: PretrainingObjective, table: TokenTable, *, seq_len: int, rows: int) -> None:
        specials = objective.masking.specials
        pairs = pairs_for(objective.cfg.sentence_task)
        if pairs is Pairs.next and (n_documents := len(table.documents) - 1) < 2:
            raise UserError(
                f"the examination's broken pairs take a text from another document, and {n_documents} is held out: raise "
                "data.held_out, the share of the documents, give more of them, or ask for no pairs (objective=mlm)"
            )
        cfg = BatchesConfig(rows_per_step=1, seq_len=seq_len, short_share=0.0)
        self.batches = PretrainingBatches(table, specials, cfg, pairs=pairs, seed=EVAL_SEED)
        rows = min(rows, len(self.batches))
        self.batches.rows_per_step = min(rows, _ROWS_AT_ONCE)
        self.masking = objective.masking_like(MaskingConfig())
        self.words = None if objective.words is None else objective.words.of(table)
        self.spoiling = objective.spoiling
        self.n_batches = max(1, rows // self.batches.rows_per_step)

    def examples(self) -> Iterator[Example]:
        """This rank's share of the examination."""
        for example, batch, rng in self._masked():
            yield example if self.words is None else self.words.ask(example, batch, rng)

    def spoilt_examples(self) -> Iterator[Example]:
        """The same rows and masks with tokens spoilt, where that is trained: the other scores are those of sound text."""
        if self.spoiling is not None:
            for example, batch, rng in self._masked():
                yield self.spoiling(example, batch, rng)

    def _masked(self) -> Iterator[tuple[Example, Batch, RowRng]]:
        for number in range(rank(), self.n_batches, world_size()):
            batch, rng = self.batches.at(number), RowRng(EVAL_SEED, "mask", number)
            yield self.masking(batch, rng, 0.0), batch, rng

    def metrics(self, state: TrainState) -> dict[str, float]:
        """eval/* of the current weights: losses in nats a target, accuracies, and the 95 % Wilson interval of the pairs'."""
        objective = state.objective
        assert isinstance(objective, PretrainingObjective)
        objective.eval()
        scores = Scores()
        for example in self.examples():
            with state.autocast():
                scores += objective.score(example.to(state.device))
        for example in self.spoilt_examples():
            with state.autocast():
                scores += objective.score_detection(example.to(state.device))
        scores = _sum_scores_over_ranks(scores, state)
        found = {
            "eval/mlm_loss": scores.mlm_loss / max(1, scores.mlm_targets),
            "eval/mlm_accuracy": scores.mlm_hits / max(1, scores.mlm_targets),
        }
        if scores.words_targets:
            found["eval/words_loss"] = scores.words_loss / scores.words_targets
        if scores.detection_targets:
            found["eval/detection_loss"] = scores.detection_loss / scores.detection_targets
        if scores.pair_targets:
            # Here: half of the time to the first step would go into importing it.
            from scipy.stats import binomtest

            task = objective.cfg.sentence_task.value
            interval = binomtest(scores.pair_hits, scores.pair_targets).proportion_ci(method="wilson")
            found |= {
                f"eval/{task}_loss": scores.pair_loss / scores.pair_targets,
                f"eval/{task}_accuracy": scores.pair_hits / scores.pair_targets,
                f"eval/{task}_accuracy_low": interval.low,
                f"eval/{task}_accuracy_high": interval.high,
            }
        return {name: float(value) for name, value in found.items()}


def _sum_scores_over_ranks(scores: Scores, state: TrainState) -> Scores:
    names = list(Scores.__slots__)
    own = torch.tensor([getattr(scores, name) for name in names], dtype=torch.float64, device=state.device)
    sums = sum_over_ranks(own)
    return Scores(*(value if "loss" in name else int(value) for name, value in zip(names, sums.tolist(), strict=True)))
