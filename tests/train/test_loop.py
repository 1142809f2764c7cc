"""The step: one mean over every target however the rows are cut or dealt out; every objective can learn."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.core.errors import UserError
from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.model.config import ModelConfig
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig, MaskUnit, ObjectiveConfig, SentenceTask
from foundation.objective.next_sentence import pairs_for
from foundation.objective.pretraining import PretrainingObjective
from foundation.objective.terms import Score
from foundation.train.averaging import WeightAverage
from foundation.train.config import AdamWConfig, Precision, ScheduleConfig, Shape, TrainerConfig
from foundation.train.held_out import HeldOut
from foundation.train.loop import StepReport, TrainState, compiles, train, train_step
from foundation.train.optim import Updater
from tests.builders import SPECIALS, bert_config, modern_config, table

FLAT = ScheduleConfig(shape=Shape.stable_decay, warmup_share=0.0, decay_share=0.0)
TASKS = list(SentenceTask)


def objective_of(task: SentenceTask, model: ModelConfig | None = None, seed: int = 0) -> PretrainingObjective:
    torch.manual_seed(seed)
    cfg = ObjectiveConfig(masking=MaskingConfig(unit=MaskUnit.token), sentence_task=task)
    return PretrainingObjective(cfg, model or modern_config(), SPECIALS, np.zeros(101, bool), seq_len=40)


def batches_for(task: SentenceTask, rows: int = 12) -> PretrainingBatches:
    return PretrainingBatches(
        table(), SPECIALS, BatchesConfig(rows_per_step=rows, seq_len=40, short_share=0.3), pairs=pairs_for(task), seed=0
    )


@pytest.mark.parametrize("cfg", [bert_config(), modern_config()])
def test_z_loss_is_the_weighted_mean_of_the_squared_log_of_what_softmax_divides_by(cfg: ModelConfig) -> None:
    """Against logits and torch's own logsumexp, values and gradients in float64; the other terms stay as they are."""
    plain, asked = objective_of(SentenceTask.nsp, cfg).double(), objective_of(SentenceTask.nsp, cfg).double()
    asked.cfg = replace(asked.cfg, z_loss_weight=0.03)
    example = plain.corrupt(batches_for(SentenceTask.nsp).at(0), RowRng(0, "mask", 0), 0.0)
    losses = asked(example, asked.count(example))
    hidden_TD = plain.encoder(example.ids, example.segments, example.layout())
    logits_MV = plain.heads["mlm"](hidden_TD[example.targets_at], plain.encoder.token_embedding.weight)
    expected = plain(example, plain.count(example))
    z_loss = 0.03 * logits_MV.logsumexp(-1).square().mean()
    torch.testing.assert_close(losses, torch.stack([*expected, z_loss]), rtol=1e-10, atol=0)
    losses.sum().backward()
    (expected.sum() + z_loss).backward()
    for one, other in zip(asked.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


def state_of(
    objective: PretrainingObjective, steps: int = 10, lr: float = 1e-3, precision: Precision = Precision.fp32
) -> TrainState:
    updater = Updater(objective, AdamWConfig(lr=lr, weight_decay=0.0), FLAT, steps)
    return TrainState(objective, updater, torch.device("cpu"), precision)


@pytest.mark.parametrize(
    ("asked", "device", "precision", "expected"),
    [
        (None, "cuda", Precision.bf16, True),
        (None, "cuda", Precision.fp32, False),
        (None, "cpu", Precision.bf16, False),
        (False, "cuda", Precision.bf16, False),
        (True, "cuda", Precision.fp32, True),
    ],
)
def test_steps_are_compiled_where_it_pays_or_is_asked_for(
    asked: bool | None, device: str, precision: Precision, expected: bool
) -> None:
    trainer = TrainerConfig(precision=precision, compile=asked)
    assert compiles(trainer, torch.device(device), unasked=True) is expected
    assert compiles(trainer, torch.device(device), unasked=False) is bool(asked)


def gradients(task: SentenceTask, micro_batch_rows: int) -> tuple[list[float], list[torch.Tensor]]:
    objective = objective_of(task).double()
    example = objective.corrupt(batches_for(task).at(0), RowRng(0, "mask", 0), 0.0)
    losses, _ = train_step(state_of(objective, precision=Precision.fp64), example, micro_batch_rows)
    return losses.tolist(), [p.grad for p in objective.parameters()]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("micro_batch_rows", [1, 5, 7])
def test_gradients_are_the_same_however_the_rows_are_cut(task: SentenceTask, micro_batch_rows: int) -> None:
    """Rows have uneven numbers of targets, so a mean of means would differ."""
    losses, whole = gradients(task, 0)
    cut_losses, cut = gradients(task, micro_batch_rows)
    assert cut_losses == pytest.approx(losses, rel=1e-12)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_mean_of_means_would_be_noticed() -> None:
    """The test above can fail: dividing each part by its own count gives other gradients."""
    objective = objective_of(SentenceTask.none).double()
    example = objective.corrupt(batches_for(SentenceTask.none).at(0), RowRng(0, "mask", 0), 0.0)
    parts = example.split(5)
    sum(objective(part, objective.count(part)).sum() / len(parts) for part in parts).backward()
    wrong = [p.grad for p in objective.parameters()]
    _, right = gradients(SentenceTask.none, 5)
    assert max((a - b).abs().max() / b.abs().max() for a, b in zip(wrong, right, strict=True)) > 0.01


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", [bert_config(), modern_config(local_window=8)])
def test_initial_loss_is_that_of_guessing(task: SentenceTask, model: ModelConfig) -> None:
    objective = objective_of(task, model)
    example = objective.corrupt(batches_for(task).at(0), RowRng(0, "mask", 0), 0.0)
    losses = objective(example, objective.count(example)).tolist()
    assert losses[0] == pytest.approx(math.log(101), abs=0.15)
    if task is not SentenceTask.none:
        assert losses[1] == pytest.approx(math.log(2), abs=0.1)


class OneBatch:
    """The same rows, and so the same masks, at every step."""

    def __init__(self, task: SentenceTask) -> None:
        self.batch = batches_for(task, rows=4).at(0)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        return self.batch


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", [bert_config(), modern_config(local_window=8)])
def test_every_objective_overfits_one_batch(
    task: SentenceTask, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of(task, model)
    fixed = objective.corrupt(OneBatch(task).batch, RowRng(0, "mask", 0), 0.0)
    monkeypatch.setattr(objective, "corrupt", lambda batch, rng, progress: fixed)
    seen: list[float] = []

    def on_event(state: TrainState, report: StepReport) -> bool:
        seen.append(float(report.losses.sum()))
        return seen[-1] > 0.01

    train(state_of(objective, steps=300, lr=5e-3), OneBatch(task), seed=0, micro_batch_rows=0, on_event=on_event)
    assert seen[0] > 3
    assert seen[-1] < 0.01, f"{seen[-1]} after {len(seen)} steps"


def losses_of(state: TrainState, task: SentenceTask, until: int) -> list[float]:
    seen: list[float] = []

    def on_event(state: TrainState, report: StepReport) -> bool:
        seen.append(float(report.losses.sum()))
        return state.step < until

    train(state, batches_for(task), seed=0, micro_batch_rows=0, on_event=on_event)
    return seen


def test_masks_are_drawn_anew_in_every_step_and_their_rate_moves_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, asked = objective_of(SentenceTask.none), []
    corrupt = objective.corrupt

    def noting(batch: Batch, rng: RowRng, progress: float) -> Example:
        asked.append((rng, progress))
        return corrupt(batch, rng, progress)

    monkeypatch.setattr(objective, "corrupt", noting)
    train(
        state_of(objective, steps=4),
        OneBatch(SentenceTask.none),
        seed=3,
        micro_batch_rows=0,
        on_event=lambda state, report: True,
    )
    assert asked == [(RowRng(3, "mask", step), step / 4) for step in range(4)]


def test_dropout_is_on_after_an_event_and_another_in_every_step() -> None:
    """The same rows, masks and weights at each step: losses differ by dropout alone."""
    state = state_of(objective_of(SentenceTask.none, modern_config(dropout=0.1)), steps=4, lr=0.0)
    seen: list[float] = []

    def examines(state: TrainState, report: StepReport) -> bool:
        seen.append(float(report.losses.sum()))
        state.objective.eval()
        return True

    train(state, OneBatch(SentenceTask.none), seed=0, micro_batch_rows=0, only_step=0, on_event=examines)
    assert len(set(seen)) == 4


def test_the_average_takes_part_in_steps_counted_from_one() -> None:
    state = state_of(objective_of(SentenceTask.none), steps=17)
    average = state.average = WeightAverage(state.objective, decay=0.9)
    seen: list[float] = []

    def on_event(state: TrainState, report: StepReport) -> bool:
        seen.append(sum(float(tensor.double().sum()) for tensor in average.state_tensors().values()))
        return True

    train(state, OneBatch(SentenceTask.none), seed=0, micro_batch_rows=0, on_event=on_event)
    assert [step for step in range(1, 17) if seen[step] != seen[step - 1]] == [7, 15]  # the eighth and the sixteenth


def test_going_on_from_saved_tensors_equals_not_stopping_with_dropout_on() -> None:
    task, model = SentenceTask.nsp, modern_config(dropout=0.1, attention_dropout=0.1)
    whole = state_of(objective_of(task, model), steps=12)
    expected = losses_of(whole, task, 12)

    first = state_of(objective_of(task, model), steps=12)
    got = losses_of(first, task, 5)
    second = state_of(objective_of(task, model, seed=99), steps=12)
    second.objective.load_state_dict(first.objective.state_dict())
    second.updater.load_state_tensors({k: v.clone() for k, v in first.updater.state_tensors().items()})
    second.step = first.step
    torch.manual_seed(1234)  # another history of the generator must not matter
    got += losses_of(second, task, 12)

    assert got == expected
    for name, tensor in whole.objective.state_dict().items():
        assert torch.equal(tensor, second.objective.state_dict()[name]), name


def test_forgetting_the_optimizer_would_be_noticed() -> None:
    """The test above can fail: without the optimizer's memory the losses differ."""
    task = SentenceTask.none
    expected = losses_of(state_of(objective_of(task), steps=12), task, 12)
    first = state_of(objective_of(task), steps=12)
    got = losses_of(first, task, 5)
    second = state_of(first.objective, steps=12)
    second.step = first.step
    assert got + losses_of(second, task, 12) != expected


def test_evaluation_does_not_depend_on_training_masks_and_leaves_no_trace() -> None:
    objective = objective_of(SentenceTask.nsp)
    state = state_of(objective)
    examination = HeldOut(objective, table(seed=5), seq_len=40, rows=64)
    before = examination.metrics(state)
    objective.masking = objective.masking_like(MaskingConfig(rate=0.5, final_rate=0.5))
    assert HeldOut(objective, table(seed=5), seq_len=40, rows=64).metrics(state) == before
    assert before["eval/nsp_accuracy_low"] < before["eval/nsp_accuracy"] < before["eval/nsp_accuracy_high"]
    assert 4 < before["eval/mlm_loss"] < 5.5


def test_an_examination_has_no_dropout() -> None:
    state = state_of(objective_of(SentenceTask.none, modern_config(dropout=0.1)))
    examination = HeldOut(state.objective, table(seed=5), seq_len=40, rows=8)
    found = []
    for _ in range(2):
        state.objective.train()
        found.append(examination.metrics(state))
    assert found[0] == found[1]


def test_sums_of_an_examination_are_not_rounded_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of(SentenceTask.none)
    examination = HeldOut(objective, table(seed=5), seq_len=40, rows=1)
    # More hits than float32 can count one by one, and a loss that it would round.
    exact = {"mlm": Score(0.1, 2**24 + 1, 2**25)}
    monkeypatch.setattr(PretrainingObjective, "score", lambda *_: exact)
    found = examination.metrics(state_of(objective))
    assert found == {"eval/mlm_loss": 0.1 / 2**25, "eval/mlm_accuracy": (2**24 + 1) / 2**25}


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Two gloo ranks, uneven rows, several micro-batches: the same losses, weights and held-out scores as one."""
    root = Path(__file__).parents[2]
    script = ["-m", "tests.train.two_ranks"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([sys.executable, *script, str(tmp_path / "one.pt")], check=True, timeout=120, cwd=root)
    subprocess.run([sys.executable, *launcher, *script, str(tmp_path / "two.pt")], check=True, timeout=120, cwd=root)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-6)
    assert one["held_out"] == pytest.approx(two["held_out"], rel=1e-6)
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=1e-9, atol=1e-10, msg=name)


def test_a_held_out_part_without_another_document_names_the_setting() -> None:
    with pytest.raises(
        UserError, match=r"from another document, and 1 is held out: raise data\.held_out.*objective=mlm"
    ):
        HeldOut(objective_of(SentenceTask.nsp), table(n_documents=1), seq_len=40, rows=8)
    HeldOut(objective_of(SentenceTask.none), table(n_documents=1), seq_len=40, rows=8)
