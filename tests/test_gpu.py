"""What a GPU computes, against the same in float32 on the CPU; skipped where there is none."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.core.randomness import RowRng
from foundation.data.batches import Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.model import flash
from foundation.model.attention import Layout, attend
from foundation.model.config import ModelConfig
from foundation.model.rotary import rotation
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from foundation.train.averaging import WeightAverage
from foundation.train.checkpoint import Checkpoints, load_into
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig, Precision, ScheduleConfig, Shape
from foundation.train.loop import StepReport, TrainState, train, train_step
from foundation.train.optim import Updater
from tests.builders import SPECIALS, bert_config, modern_config, table

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU, CPU = torch.device("cuda"), torch.device("cpu")
SEQ_LEN = 32
SHAPES = {
    "bert": bert_config(width=128, heads=2, layers=3),
    "modern": modern_config(width=64, heads=2, layers=3),
    "local windows": modern_config(width=64, heads=2, layers=3, local_window=8, global_every=2),
}
ADAMW = AdamWConfig(lr=1e-3, clip_norm=0.5)
MUON = MuonConfig(muon_lr=1e-3, adamw=AdamWConfig(lr=1e-3), clip_norm=0.5)


def batches() -> PretrainingBatches:
    cfg = BatchesConfig(rows_per_step=8, seq_len=SEQ_LEN, short_share=0.5)
    return PretrainingBatches(table(), SPECIALS, cfg, pairs=Pairs.next, seed=0)


def state_of(
    cfg: ModelConfig, device: torch.device, precision: Precision, *, compiles: bool = False, optim: OptimConfig = ADAMW
) -> TrainState:
    torch.manual_seed(0)
    asked = ObjectiveConfig(masking=MaskingConfig(), sentence_task=SentenceTask.nsp)
    ordinary = torch.zeros(cfg.vocab_size, dtype=torch.bool).numpy()
    objective = PretrainingObjective(asked, cfg, SPECIALS, ordinary, seq_len=SEQ_LEN).to(device)
    updater = Updater(objective, optim, ScheduleConfig(shape=Shape.linear), total_steps=40)
    return TrainState(objective, updater, device, precision, compiles)


def gradients(state: TrainState, step: int, micro_batch_rows: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses, and all gradients as one vector, on the CPU."""
    example = state.objective.corrupt(batches().at(step), RowRng(0, "mask", step), 0.0)
    losses, _ = train_step(state, example, micro_batch_rows)
    found = torch.cat([p.grad.flatten().cpu().double() for p in state.objective.parameters() if p.grad is not None])
    state.objective.zero_grad(set_to_none=True)
    return losses.cpu().double(), found


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("rotary", [False, True])
def test_attention_without_padding_is_attention(window: int, rotary: bool) -> None:
    """bfloat16 against the padded path in float32 on the same rounded numbers, both directions."""
    torch.manual_seed(0)
    for lengths in ([5, 1, 32, 17, 9], [100, 128, 3]):
        qkv = torch.randn(sum(lengths), 3, 4, 32, device=GPU).bfloat16()
        layout = Layout.of(lengths, GPU)
        turn = rotation(layout.positions, 32, 10_000.0) if rotary else None
        narrow, wide = qkv.clone().requires_grad_(), qkv.float().requires_grad_()
        assert flash.applies_to(narrow, layout) and not flash.applies_to(wide, layout)
        mixed = flash.attend(narrow, layout, window, 0.0, turn)
        turned = wide if turn is None else torch.cat([turn.of_queries_and_keys(wide[:, :2]), wide[:, 2:]], dim=1)
        plain = attend(turned, layout, window, 0.0)
        grad = torch.randn_like(plain)
        mixed.backward(grad.bfloat16())
        plain.backward(grad)
        assert distance(mixed.float(), plain) < 1e-2
        assert distance(narrow.grad.float(), wide.grad) < 2e-2


@pytest.mark.parametrize(
    ("precision", "compiles"), [(Precision.fp32, False), (Precision.bf16, False), (Precision.bf16, True)]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_that_of_the_cpu(shape: str, precision: Precision, compiles: bool) -> None:
    """Compiling takes half a minute a shape."""
    cfg = SHAPES[shape]
    reference, state = state_of(cfg, CPU, Precision.fp32), state_of(cfg, GPU, precision, compiles=compiles)
    state.objective.load_state_dict(reference.objective.state_dict())
    near = 1e-4 if precision is Precision.fp32 else 3e-2
    for step, micro_batch_rows in enumerate((0, 3)):
        (their_losses, theirs), (losses, found) = gradients(reference, step), gradients(state, step, micro_batch_rows)
        assert distance(losses, their_losses) < near
        assert distance(found, theirs) < near


@pytest.mark.parametrize("optim", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_run_learns_and_a_lost_step_changes_nothing(optim: OptimConfig) -> None:
    dropping = replace(SHAPES["modern"], dropout=0.1, attention_dropout=0.1)
    state = state_of(dropping, GPU, Precision.bf16, optim=optim)
    assert not state.updater.waits
    losses: list[float] = []

    def on_event(state: TrainState, report: StepReport) -> bool:
        losses.append(float(report.losses[0]))
        return True

    train(state, batches(), seed=0, micro_batch_rows=0, only_step=0, on_event=on_event)
    assert losses[-1] < losses[0] - 0.1 and all(map(math.isfinite, losses))
    kept = {name: value.cpu() for name, value in state.updater.state_tensors().items()}  # as a checkpoint has them
    state.updater.load_state_tensors(kept)
    before = [p.detach().clone() for p in state.objective.parameters()]
    for parameter in state.objective.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    state.updater.update(0, torch.zeros((), device=GPU))
    assert state.updater.skipped == (1, 1)
    assert all(torch.equal(p, q) for p, q in zip(state.objective.parameters(), before, strict=True))
    assert all(torch.equal(value.cpu(), kept[name]) for name, value in state.updater.state_tensors().items())


def test_a_run_goes_on_from_a_checkpoint_that_was_written_beside_it(tmp_path: Path) -> None:
    """Optimizer, average and weights come back to the device; the copy was made when it was asked for."""
    seen: dict[str, list[float]] = {"whole": [], "again": []}

    def state() -> TrainState:
        fresh = state_of(SHAPES["modern"], GPU, Precision.fp32)
        fresh.average = WeightAverage(fresh.objective, 0.9)
        return fresh

    def run(state: TrainState, name: str) -> None:
        def on_event(state: TrainState, report: StepReport) -> bool:
            seen[name].append(float(report.losses.sum()))
            if name == "whole" and state.step == 12:
                checkpoints.save(12, state.objective.state_dict(), state.memory_tensors(), {})
            return state.step < 24

        train(state, batches(), seed=0, micro_batch_rows=0, on_event=on_event)

    whole, again = state(), state()
    with Checkpoints(tmp_path, 1) as checkpoints:
        run(whole, "whole")
    loaded = checkpoints.load_last()
    load_into(again.objective, loaded.model, "the checkpoint")
    again.load_memory_tensors(loaded.optim)
    again.step = 12
    run(again, "again")
    assert seen["again"] == pytest.approx(seen["whole"][12:], rel=1e-4)
    for name, tensor in whole.memory_tensors().items():
        if name.startswith("average/"):
            torch.testing.assert_close(again.memory_tensors()[name], tensor, rtol=1e-3, atol=1e-5)
