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
from foundation.objective.pretraining import PretrainingObjective, Scores, added
from foundation.objective.terms import Score, Term
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
        self.asked, self.table = objective.asked, table
        self.n_batches = max(1, rows // self.batches.rows_per_step)

    def examples(self) -> Iterator[Example]:
        """This rank's share of the examination: masked, and asked whatever leaves the text as it is."""
        for example, batch, rng in self._masked():
            for term in self.asked:
                if not term.changes_text:
                    example = term.ask(example, batch, rng, self.table)
            yield example

    def changed_examples(self, term: Term) -> Iterator[Example]:
        """The same rows and masks as a term changes them: the other scores are those of sound text."""
        for example, batch, rng in self._masked():
            yield term.ask(example, batch, rng, self.table)

    def _masked(self) -> Iterator[tuple[Example, Batch, RowRng]]:
        for number in range(rank(), self.n_batches, world_size()):
            batch, rng = self.batches.at(number), RowRng(EVAL_SEED, "mask", number)
            yield self.masking(batch, rng, 0.0), batch, rng

    def metrics(self, state: TrainState) -> dict[str, float]:
        """eval/* of the current weights: losses in nats a target, accuracies, and these' 95 % Wilson intervals but for masks'."""
        objective = state.objective
        assert isinstance(objective, PretrainingObjective)
        objective.eval()
        # A rank that has no rows knows of the same questions.
        scores: Scores = {name: Score() for name in ("mlm", *(term.question for term in self.asked))}
        for example in self.examples():
            with state.autocast():
                scores = added(scores, objective.score(example.to(state.device)))
        for term in self.asked:
            if term.changes_text:
                for example in self.changed_examples(term):
                    with state.autocast():
                        scores = added(scores, objective.score_changed(example.to(state.device), term))
        scores = _sum_over_ranks(scores, state)
        found = {"eval/mlm_loss": scores["mlm"].nats, "eval/mlm_accuracy": scores["mlm"].accuracy}
        for term in self.asked:
            score, name = scores[term.question], f"eval/{term.question}"
            if score.targets:
                found[f"{name}_loss"] = score.nats
            if score.targets and term.has_accuracy:
                low, high = score.accuracy_interval()
                found |= {
                    f"{name}_accuracy": score.accuracy,
                    f"{name}_accuracy_low": low,
                    f"{name}_accuracy_high": high,
                }
        return found


def _sum_over_ranks(scores: Scores, state: TrainState) -> Scores:
    own = [[score.loss, score.hits, score.targets] for score in scores.values()]
    sums = sum_over_ranks(torch.tensor(own, dtype=torch.float64, device=state.device)).tolist()
    return {name: Score(loss, int(hits), int(n)) for name, (loss, hits, n) in zip(scores, sums, strict=True)}
