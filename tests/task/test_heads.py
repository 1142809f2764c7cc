"""Pooling, losses, and that a task is an objective like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from foundation.data.batches import assemble
from foundation.model.config import ModelConfig
from foundation.objective.base import Example, clean_example
from foundation.task.config import Pooling
from foundation.task.heads import LabelHead, TaskObjective, ValueHead
from foundation.train.config import AdamWConfig, ScheduleConfig, Shape
from foundation.train.optim import Updater
from tests.builders import SPECIALS, bert_config, modern_config, randomise

MODEL = bert_config(max_seq_len=12)
# Of several outputs, and of one.
HEADS = {False: LabelHead, True: ValueHead}


def rows(labels: np.ndarray, seed: int = 0) -> Example:
    draws = np.random.default_rng(seed)
    texts = [(draws.integers(5, MODEL.vocab_size, size=draws.integers(1, 8)),) for _ in labels]
    return clean_example(assemble(texts, SPECIALS, labels))


def objective(n_out: int, pooling: Pooling = Pooling.mean, dropout: float = 0.0) -> TaskObjective:
    torch.manual_seed(0)
    made = TaskObjective(
        replace(MODEL, dropout=dropout), n_out=n_out, pooling=pooling, dropout=dropout, head=HEADS[n_out == 1]
    )
    randomise(made)
    return made.double()


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_takes_the_first_token_or_the_mean_of_each_row(pooling: Pooling) -> None:
    hidden = torch.randn(9, MODEL.width, dtype=torch.float64, requires_grad=True)
    pooled = LabelHead(MODEL, 2, pooling, 0.0).double().pool(hidden, torch.tensor([2, 4, 3]))
    parts = hidden.split([2, 4, 3])
    expected = torch.stack([part[0] if pooling is Pooling.cls else part.mean(0) for part in parts])
    assert torch.allclose(pooled, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(pooled)
    one = torch.autograd.grad((pooled * weights).sum(), hidden, retain_graph=True)[0]
    other = torch.autograd.grad((expected * weights).sum(), hidden)[0]
    assert torch.allclose(one, other, rtol=0, atol=1e-12)


def plain_loss(task: TaskObjective, example: Example) -> Tensor:
    logits, labels = task.logits(example), example.labels
    assert labels is not None
    if isinstance(task.heads, ValueHead):
        return ((logits[:, 0] - labels) ** 2).mean()
    return -torch.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("n_out", [1, 2, 5])
@pytest.mark.parametrize("micro_batch_rows", [7, 3, 1])
def test_shares_of_micro_batches_add_up_to_the_mean_and_its_gradient(
    pooling: Pooling, n_out: int, micro_batch_rows: int
) -> None:
    task = objective(n_out, pooling).eval()
    draws = np.random.default_rng(1)
    example = rows(draws.normal(size=7) if n_out == 1 else draws.integers(n_out, size=7))
    totals = task.count(example)
    shares = sum(task(part, totals).sum() for part in example.split(micro_batch_rows))
    mean = plain_loss(task, example)
    assert torch.allclose(shares, mean, rtol=0, atol=1e-10)
    parameters = [p for p in task.parameters() if p.requires_grad]
    ours = torch.autograd.grad(shares, parameters, allow_unused=True)
    theirs = torch.autograd.grad(mean, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_out", [2, 7])
def test_a_fresh_head_knows_nothing(n_out: int) -> None:
    torch.manual_seed(0)
    task = TaskObjective(MODEL, n_out=n_out, pooling=Pooling.mean, dropout=0.0)
    example = rows(np.arange(64) % n_out)
    assert task(example, task.count(example)).item() == pytest.approx(np.log(n_out), abs=0.05)


@pytest.mark.parametrize("model", [MODEL, modern_config(max_seq_len=12)], ids=["bert", "modern"])
@pytest.mark.parametrize("n_out", [1, 3])
def test_one_batch_is_learnt_by_heart(n_out: int, model: ModelConfig) -> None:
    torch.manual_seed(0)
    task = TaskObjective(model, n_out=n_out, pooling=Pooling.mean, dropout=0.0, head=HEADS[n_out == 1])
    draws = np.random.default_rng(1)
    example = rows(draws.normal(size=8) if n_out == 1 else draws.integers(n_out, size=8))
    updater = Updater(task, AdamWConfig(lr=5e-3), ScheduleConfig(shape=Shape.linear, warmup_share=0), 100)
    for step in range(100):
        loss = task(example, task.count(example)).sum()
        loss.backward()
        updater.update(step, loss.detach())
    assert float(loss.detach()) < 0.01


def test_dropout_acts_in_training_only() -> None:
    task = objective(2, dropout=0.5)
    example = rows(np.zeros(4, dtype=np.int64))
    assert not torch.equal(task.train().logits(example), task.logits(example))
    assert torch.equal(task.eval().logits(example), task.logits(example))


def test_the_pooled_row_and_the_layer_behind_it_are_both_dropped() -> None:
    head = LabelHead(MODEL, 3, Pooling.mean, dropout=0.5).double().train()
    randomise(head)
    seen: list[Tensor] = []
    for part in (head.dense, head.out):
        part.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    head(torch.randn(400, MODEL.width, dtype=torch.float64), (2,) * 200)
    assert [float((each == 0).double().mean()) for each in seen] == pytest.approx([0.5, 0.5], abs=0.05)
