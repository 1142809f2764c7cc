"""Heads of several labels, of words, of answers' ends and of choices: losses, and that micro-batches change nothing.

Letters: R rows · L tokens of a row
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, assemble
from foundation.model.config import ModelConfig
from foundation.objective.base import Example
from foundation.objective.masked_lm import IGNORED
from foundation.task.config import Pooling
from foundation.task.heads import ChoiceHead, Head, LabelSetHead, SpanHead, TagHead, TaskObjective
from foundation.train.config import AdamWConfig, ScheduleConfig, Shape
from foundation.train.optim import Updater
from tests.builders import SPECIALS, bert_config, modern_config, randomise

MODEL = bert_config(max_seq_len=24)
MODELS = {"bert": MODEL, "modern": modern_config(max_seq_len=24)}


def pairs(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    draws = np.random.default_rng(3)
    return [
        (draws.integers(5, 101, size=draws.integers(1, 6)), draws.integers(5, 101, size=draws.integers(3, 9)))
        for _ in range(n)
    ]


def label_sets() -> Batch:
    return assemble(pairs(6), SPECIALS, np.random.default_rng(0).integers(2, size=(6, 3)))


def choices() -> Batch:
    return assemble(pairs(6), SPECIALS, np.array([0, 2]))


def tags() -> Batch:
    batch = assemble(pairs(6), SPECIALS, None)
    draws = np.random.default_rng(0)
    labels = np.where(draws.random(len(batch.ids)) < 0.4, draws.integers(3, size=len(batch.ids)), IGNORED)
    batch.labels = np.where(batch.maskable, labels, IGNORED)
    return batch


def spans() -> Batch:
    rows = pairs(6)
    # The first token of the second segment to its last; the second row has no answer.
    ends = np.array([(len(a) + 2, len(a) + 1 + len(b)) for a, b in rows])
    ends[1] = 0
    return assemble(rows, SPECIALS, ends)


def label_set_loss(outputs: Tensor, example: Example) -> Tensor:
    labels = example.labels.double()
    shares = outputs.sigmoid()
    return -(labels * shares.log() + (1 - labels) * (1 - shares).log()).mean()


def choice_loss(outputs: Tensor, example: Example) -> Tensor:
    items = [outputs[first : first + 3, 0] for first in range(0, len(outputs), 3)]
    return torch.stack([-item.log_softmax(0)[label] for item, label in zip(items, example.labels, strict=True)]).mean()


def tag_loss(outputs: Tensor, example: Example) -> Tensor:
    return F.cross_entropy(outputs[example.targets_at], example.targets)


def span_loss(outputs: Tensor, example: Example) -> Tensor:
    losses, first = [], 0
    for length, label in zip(example.lengths, example.labels, strict=True):
        second = example.segments[first : first + length].nonzero()[:, 0]
        allowed = torch.cat(
            [torch.zeros(1, dtype=torch.int64), second[:-1]]
        )  # [CLS], and the second text without [SEP]
        for end in range(2):
            scores = outputs[first : first + length, end][allowed]
            losses.append(-scores.log_softmax(0)[int((allowed == label[end]).nonzero())])
        first += length
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Case:
    head: type[Head]
    batch: Callable[[], Batch]
    loss: Callable[[Tensor, Example], Tensor]
    n_out: int
    n_targets: int | None


CASES = [
    Case(LabelSetHead, label_sets, label_set_loss, 3, 6),
    Case(ChoiceHead, choices, choice_loss, 3, 2),
    Case(TagHead, tags, tag_loss, 3, None),
    Case(SpanHead, spans, span_loss, 2, 6),
]
each_head = pytest.mark.parametrize("case", CASES, ids=lambda case: case.head.__name__)


def objective(case: Case, dtype: torch.dtype = torch.float64, model: ModelConfig = MODEL) -> TaskObjective:
    torch.manual_seed(0)
    made = TaskObjective(model, n_out=case.n_out, pooling=Pooling.mean, dropout=0.0, head=case.head)
    if dtype is torch.float64:
        randomise(made)
    return made.to(dtype)


def asked(task: TaskObjective, batch: Batch) -> Example:
    return task.corrupt(batch, RowRng(0, "mask", 0), 0.0)


@each_head
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("micro_batch_rows", [6, 4, 1])
def test_shares_of_micro_batches_add_up_to_the_plain_mean_and_its_gradient(
    case: Case, model: ModelConfig, micro_batch_rows: int
) -> None:
    task = objective(case, model=model).eval()
    example = asked(task, case.batch())
    totals = task.count(example)
    if case.n_targets is not None:
        assert totals.tolist() == [case.n_targets]
    parts = example.split(micro_batch_rows)
    assert sum(len(part.lengths) for part in parts) == 6
    shares = sum(task(part, totals).sum() for part in parts)
    mean = case.loss(task.logits(example), example)
    assert torch.allclose(shares, mean, rtol=0, atol=1e-10)
    parameters = [p for p in task.parameters() if p.requires_grad]
    ours = torch.autograd.grad(shares, parameters, allow_unused=True)
    theirs = torch.autograd.grad(mean, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert one is None or torch.allclose(one, other, rtol=0, atol=1e-10)
    assert all(one is not None for one, p in zip(ours, parameters, strict=True) if p.shape[-1:] == (MODEL.width,))


def test_the_choices_of_an_item_stay_in_one_micro_batch() -> None:
    task = objective(CASES[1])
    assert [len(part.lengths) for part in asked(task, choices()).split(4)] == [3, 3]
    assert [part.labels.tolist() for part in asked(task, choices()).split(1)] == [[0], [2]]


@each_head
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_one_batch_is_learnt_by_heart(case: Case, model: ModelConfig) -> None:
    task = objective(case, torch.float32, model)
    example = asked(task, case.batch())
    updater = Updater(task, AdamWConfig(lr=5e-3), ScheduleConfig(shape=Shape.linear, warmup_share=0), 100)
    for step in range(100):
        loss = task(example, task.count(example)).sum()
        loss.backward()
        updater.update(step, loss.detach())
    assert float(loss.detach()) < 0.02


def test_no_answer_may_end_in_the_question_or_at_a_separator() -> None:
    task = objective(CASES[3]).eval()
    example = asked(task, spans())
    outputs = task.logits(example).detach().requires_grad_()
    task.heads.error(outputs, example).backward()
    touched = outputs.grad.abs().sum(1) > 0
    starts = torch.tensor(example.lengths).cumsum(0) - torch.tensor(example.lengths)
    ends = torch.tensor(example.lengths).cumsum(0) - 1
    expected = example.segments == 1
    expected[starts], expected[ends] = True, False
    assert torch.equal(touched, expected)


@each_head
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_fresh_head_has_the_loss_of_a_guess(case: Case, model: ModelConfig) -> None:
    task = objective(case, torch.float32, model)
    example = asked(task, case.batch())
    loss = task(example, task.count(example)).item()
    if case.head is LabelSetHead:
        assert loss == pytest.approx(np.log(2), abs=0.05)
    elif case.head is not SpanHead:
        assert loss == pytest.approx(np.log(3), abs=0.05)
    else:
        rows = [len(b) + 1 for _, b in pairs(6)]
        assert loss == pytest.approx(np.mean(np.log(rows)), abs=0.05)
