"""States of some positions: those that all of them would have, from a last layer that leaves the others out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.model.attention import Layout, picked
from foundation.model.config import FeedForward, ModelConfig, ShareLayers
from foundation.model.encoder import Encoder
from foundation.model.row_memory import RememberingEncoder
from foundation.model.sharing.apply import share
from foundation.model.sharing.config import AdapterConfig, LoraConfig, Matrix, PrefixConfig
from foundation.model.sharing.frozen import FrozenEncoder
from foundation.objective.base import Example
from foundation.objective.config import DetectionConfig, MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.next_sentence import pairs_for
from foundation.objective.pretraining import PretrainingObjective
from foundation.task.config import Pooling
from foundation.task.heads import TaskObjective
from tests.builders import SPECIALS, bert_config, modern_config, randomise, table

LENGTHS = (11, 3, 16)
IDS = torch.randint(5, 101, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
# Out of order, one twice, the first and the last of all.
AT = torch.tensor([7, 0, 29, 7, 13, 11])
SHAPES = {
    "bert": bert_config(),
    "modern": modern_config(),
    "local windows": modern_config(layers=3, local_window=4, global_every=2),
    "one layer": bert_config(layers=1),
    "all layers one": bert_config(share_layers=ShareLayers.all),
    "rotary, gelu": modern_config(feed_forward=FeedForward.gelu),
}


def encoder_of(cfg: ModelConfig) -> Encoder:
    encoder = Encoder(cfg).double()
    randomise(encoder)
    return encoder


def states(encoder: nn.Module, at: Tensor | None) -> Tensor:
    hidden: Tensor = encoder(IDS, torch.zeros_like(IDS), Layout.of(LENGTHS), at)
    return hidden


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_states_and_gradients_are_those_of_all_positions(shape: str) -> None:
    encoder = encoder_of(SHAPES[shape])
    weights = torch.randn(len(AT), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    some, chosen = states(encoder, AT), states(encoder, None)[AT]
    torch.testing.assert_close(some, chosen, rtol=1e-10, atol=1e-10)
    assert_same(gradients(encoder, (some * weights).sum()), gradients(encoder, (chosen * weights).sum()))


@pytest.mark.parametrize(
    "cfg",
    [LoraConfig(matrices=list(Matrix)), AdapterConfig(width=4), PrefixConfig(length=3)],
    ids=lambda cfg: str(cfg.method.value),
)
def test_ways_of_sharing_act_at_the_positions_that_are_read(cfg: Any) -> None:
    encoder = share(encoder_of(bert_config()), cfg).double()
    randomise(encoder)
    torch.testing.assert_close(states(encoder, AT), states(encoder, None)[AT], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("remembers", [RememberingEncoder, FrozenEncoder])
def test_encoders_that_remember_rows_give_the_same(remembers: type[Encoder]) -> None:
    plain = encoder_of(bert_config()).eval()
    expected = states(plain, None)[AT]
    remembering = remembers(plain)
    for _ in range(2):
        torch.testing.assert_close(states(remembering, AT), expected, rtol=1e-12, atol=1e-12)


def test_the_same_tokens_in_other_segments_are_another_row() -> None:
    plain = encoder_of(bert_config()).eval()
    remembering = RememberingEncoder(plain)
    for segments in (torch.zeros_like(IDS), torch.ones_like(IDS)):
        inputs = IDS, segments, Layout.of(LENGTHS)
        torch.testing.assert_close(remembering(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)


def rows_in_last_feed_forward(encoder: Encoder, run: Any) -> int:
    seen: list[int] = []
    last = encoder.layers[-1].feed_forward
    handle = last.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    run()
    handle.remove()
    return seen[-1]


def pretraining(task: SentenceTask, detection: float = 0.0) -> tuple[PretrainingObjective, Example]:
    """Enough rows that targets, filled up, are fewer than tokens."""
    cfg = ObjectiveConfig(
        masking=MaskingConfig(), sentence_task=task, sentence_weight=0.5, detection=DetectionConfig(weight=detection)
    )
    torch.manual_seed(0)
    objective = PretrainingObjective(
        cfg, bert_config(), SPECIALS, torch.zeros(101, dtype=torch.bool).numpy(), seq_len=40
    )
    objective = objective.double()
    randomise(objective)
    batches = PretrainingBatches(
        table(), SPECIALS, BatchesConfig(rows_per_step=24, seq_len=40), pairs=pairs_for(task), seed=0
    )
    return objective, objective.corrupt(batches.at(0), RowRng(0, "mask", 0), 0.0)


@pytest.mark.parametrize("task", [SentenceTask.none, SentenceTask.nsp])
def test_pretraining_reads_targets_and_first_tokens_and_loses_nothing(
    task: SentenceTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, example = pretraining(task)

    def once() -> tuple[Tensor, dict[str, Tensor]]:
        losses = objective(example, objective.count(example))
        return losses.detach(), gradients(objective, losses.sum())

    read = 128 + (24 if task is SentenceTask.nsp else 0)
    assert rows_in_last_feed_forward(objective.encoder, once) == read < example.n_tokens
    losses, grads = once()
    scores = objective.score(example)
    inner = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, i, s, layout, at=None: picked(inner(self, i, s, layout), at))
    plain_losses, plain_grads = once()
    torch.testing.assert_close(losses, plain_losses, rtol=1e-10, atol=1e-10)
    assert_same(grads, plain_grads)
    plain = objective.score(example)
    assert scores.keys() == plain.keys() == {"mlm", task.value} - {"none"}
    for name, score in scores.items():
        assert score.loss == pytest.approx(plain[name].loss, rel=1e-10) and score.hits == plain[name].hits


def test_what_is_asked_of_every_token_is_computed_for_every_token() -> None:
    objective, example = pretraining(SentenceTask.nsp, detection=1.0)
    seen = rows_in_last_feed_forward(objective.encoder, lambda: objective(example, objective.count(example)))
    assert seen >= example.n_tokens


@pytest.mark.parametrize("pooling", Pooling)
def test_a_task_that_looks_at_first_tokens_reads_only_them(pooling: Pooling) -> None:
    objective = TaskObjective(bert_config(), n_out=3, pooling=pooling, dropout=0.0).double().eval()
    randomise(objective)
    nothing = torch.empty(0, dtype=torch.int64)
    example = Example(IDS, torch.zeros_like(IDS), LENGTHS, nothing, nothing, None)
    n_rows = rows_in_last_feed_forward(objective.encoder, lambda: objective.logits(example))
    assert n_rows == len(LENGTHS) if pooling is Pooling.cls else n_rows >= len(IDS)
    expected = objective.heads(objective.encoder(IDS, torch.zeros_like(IDS), Layout.of(LENGTHS)), LENGTHS)
    torch.testing.assert_close(objective.logits(example), expected, rtol=1e-10, atol=1e-10)
