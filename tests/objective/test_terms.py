"""A term that the project does not know: nothing but its own class and a place among the others makes it one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.model.config import ModelConfig
from foundation.objective import pretraining
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig, ObjectiveConfig
from foundation.objective.masked_lm import summed_cross_entropy
from foundation.objective.pretraining import PretrainingObjective
from foundation.objective.terms import Reads, Score, States, Term, classes_score
from foundation.train.config import AdamWConfig, Precision, ScheduleConfig, Shape
from foundation.train.held_out import HeldOut
from foundation.train.loop import TrainState, train, train_step
from foundation.train.optim import Updater
from tests.builders import SPECIALS, bert_config, modern_config, table


class RowLength(Term):
    """Is the row longer than 20 tokens? Asked of its first token."""

    question = "length"
    weight = 2.0
    reads = Reads.firsts
    has_accuracy = True

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.classify = nn.Linear(model.width, 2)

    def begin(self) -> None:
        nn.init.constant_(self.classify.bias, 0.25)

    def ask(self, example: Example, batch: Batch, rng: RowRng, table: TokenTable | None) -> Example:
        assert table is not None
        return replace(example, of_rows=example.of_rows | {"long": torch.from_numpy((batch.lengths > 20).astype(int))})

    def count(self, example: Example) -> Tensor:
        return torch.tensor(len(example.lengths))

    def summed_loss(self, states: States, example: Example, embedding_VD: Tensor) -> Tensor:
        return summed_cross_entropy(self.classify(states.at_firsts_RD), example.of_rows["long"])

    def score(self, states: States, example: Example, embedding_VD: Tensor) -> Score:
        return classes_score(self.classify(states.at_firsts_RD), example.of_rows["long"])


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "make_terms", lambda cfg, model, *_, **__: {"rows": RowLength(model)})


def objective_of(model: ModelConfig | None = None) -> PretrainingObjective:
    torch.manual_seed(0)
    cfg = ObjectiveConfig(masking=MaskingConfig())
    ordinary = np.zeros(101, bool)
    return PretrainingObjective(cfg, model or modern_config(), SPECIALS, ordinary, seq_len=40, table=table())


def batches() -> PretrainingBatches:
    cfg = BatchesConfig(rows_per_step=12, seq_len=40, short_share=0.5)
    return PretrainingBatches(table(), SPECIALS, cfg, pairs=Pairs.none, seed=0)


def state_of(objective: PretrainingObjective, steps: int = 60) -> TrainState:
    flat = ScheduleConfig(shape=Shape.stable_decay, warmup_share=0.0, decay_share=0.0)
    updater = Updater(objective, AdamWConfig(lr=5e-3, weight_decay=0.0), flat, steps)
    return TrainState(objective, updater, torch.device("cpu"), Precision.fp32)


def test_it_is_a_term_of_the_loss_under_its_weight() -> None:
    objective = objective_of().double()
    assert objective.terms == ("mlm_loss", "length_loss")
    assert objective.state_dict().keys() >= {"heads.rows.classify.weight", "heads.rows.classify.bias"}
    example = objective.corrupt(batches().at(0), RowRng(0, "mask", 0), 0.0)
    _, found = objective(example, objective.count(example))
    hidden_TD = objective.encoder(example.ids, example.segments, example.layout())
    logits = objective.asked[0].classify(hidden_TD[example.first_tokens])
    expected = 2 * nn.functional.cross_entropy(logits, example.of_rows["long"])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_what_it_reads_counts_as_read() -> None:
    """Of 40 tokens six are masked, and the first is read; of every token where a term reads them all."""
    objective = objective_of()
    assert objective.read_share(40) == pytest.approx(0.15 + 1 / 40)
    objective.asked[0].reads = Reads.tokens
    assert objective.read_share(40) == 1.0


def test_it_begins_as_it_says() -> None:
    assert (objective_of().heads["rows"].classify.bias == 0.25).all()


@pytest.mark.parametrize("model", [bert_config(), modern_config()])
@pytest.mark.parametrize("micro_batch_rows", [1, 5])
def test_gradients_are_the_same_however_the_rows_are_cut(model: ModelConfig, micro_batch_rows: int) -> None:
    found = []
    for rows in (0, micro_batch_rows):
        objective = objective_of(model).double()
        example = objective.corrupt(batches().at(0), RowRng(0, "mask", 0), 0.0)
        losses, _ = train_step(state_of(objective), example, rows)
        found.append((losses.tolist(), [parameter.grad for parameter in objective.parameters()]))
    (losses, whole), (cut_losses, cut) = found
    assert cut_losses == pytest.approx(losses, rel=1e-6)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_it_is_learnt_and_examined() -> None:
    objective = objective_of()
    state, examination = state_of(objective), HeldOut(objective, table(seed=1), seq_len=40, rows=64)
    before = examination.metrics(state)
    train(state, batches(), seed=0, micro_batch_rows=0, on_event=lambda *_: True)
    after = examination.metrics(state)
    names = {"eval/length_loss", *(f"eval/length_accuracy{end}" for end in ("", "_low", "_high"))}
    assert after.keys() == {"eval/mlm_loss", "eval/mlm_accuracy"} | names
    assert after["eval/length_loss"] < before["eval/length_loss"]
    assert after["eval/length_accuracy_low"] < after["eval/length_accuracy"] <= after["eval/length_accuracy_high"]
