"""Updates against torch's own classes, schedules against formulas, accidents."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from foundation.core.errors import UserError
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig, ScheduleConfig, Shape
from foundation.train.muon import Muon
from foundation.train.optim import LOOK_EVERY, MAX_SKIPPED_IN_A_ROW, Updater, build_optimizers
from foundation.train.schedule import multiplier

FLAT = ScheduleConfig(shape=Shape.stable_decay, warmup_share=0.0, decay_share=0.0)


class Net(nn.Module):
    """Something of every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encoder.layers[0](self.layers[1](self.layers[0](self.embedding(ids)))).square().sum()


def run(net: nn.Module, updater: Updater, steps: int = 10) -> None:
    for step in range(steps):
        loss = net(torch.tensor([1, 2, step % 7]))
        loss.backward()
        updater.update(step, loss.detach())


def test_adamw_equals_a_run_with_torchs_class_by_hand() -> None:
    ours, theirs = Net().double(), Net().double()
    cfg = AdamWConfig(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-2, weight_decay=0.1, clip_norm=0.5)
    schedule = ScheduleConfig(shape=Shape.linear, warmup_share=0.2)
    run(ours, Updater(ours, cfg, schedule, total_steps=10))

    decayed = [p for n, p in theirs.named_parameters() if p.ndim == 2]
    rest = [p for n, p in theirs.named_parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.8, 0.95),
        eps=1e-2,
    )
    for step in range(10):
        optimizer.zero_grad()
        theirs(torch.tensor([1, 2, step % 7])).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * multiplier(step, 10, schedule)
        optimizer.step()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=1e-10, atol=1e-12)


def test_muon_takes_the_matrices_inside_the_layers_and_nothing_else() -> None:
    net = Net()
    muon, adamw = build_optimizers(net, MuonConfig(muon_lr=0.02, adamw=AdamWConfig(lr=0.01)))
    inside = [id(p) for group in muon.param_groups for p in group["params"]]
    assert inside == [id(net.encoder.layers[0].weight)]
    outside = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert outside == {id(p) for p in net.parameters()} - set(inside)


def test_muon_has_momentum_and_decay_of_its_own() -> None:
    cfg = MuonConfig(muon_lr=0.02, momentum=0.7, muon_weight_decay=0.3, adamw=AdamWConfig(lr=0.01, weight_decay=0.1))
    muon, _ = build_optimizers(Net(), cfg)
    assert [(group["momentum"], group["weight_decay"]) for group in muon.param_groups] == [(0.7, 0.3)]


def test_muon_update_has_adamws_size() -> None:
    """Orthogonal up to Newton-Schulz's error, scaled so that its root mean square is 0.2·lr (Liu et al. 2025)."""
    net = nn.Module()
    net.encoder = nn.Module()
    net.encoder.layers = nn.ModuleList([nn.Linear(64, 32, bias=False), nn.Linear(3, 3)])
    weight = net.encoder.layers[0].weight
    before = weight.detach().clone()
    cfg = MuonConfig(muon_lr=0.1, muon_weight_decay=0.0, adamw=AdamWConfig(lr=0.0), clip_norm=0.0)
    updater = Updater(net, cfg, FLAT, 10)
    weight.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    updater.update(0, torch.tensor(1.0))
    change = (weight.detach() - before) / 0.1
    assert change.square().mean().sqrt() == pytest.approx(0.2, rel=0.15)
    singular = torch.linalg.svdvals(change) / (0.2 * math.sqrt(64))
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_muon_equals_torchs_own_matrix_by_matrix() -> None:
    """Ours iterates over all matrices of a shape at once; wide, tall and square ones, two of a kind."""
    shapes = [(48, 16), (16, 16), (16, 40), (48, 16), (16, 16)]
    ours, theirs = ([nn.Parameter(torch.randn(*shape, generator=generator)) for shape in shapes]
                    for generator in (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)))  # fmt: skip
    mine = Muon(ours, lr=0.02, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        mine.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        # bfloat16 inside the iteration: batched and single products may round differently.
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.02 * 0.2 * 7 * 2**-7)


def test_muon_leaves_a_parameter_without_gradient_alone() -> None:
    still, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moved.grad = torch.eye(4)
    Muon([still, moved], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    assert (still == 1).all() and (moved != 1).any()


def test_no_decay_for_biases_and_norms() -> None:
    (adamw,) = build_optimizers(net := Net(), AdamWConfig(lr=0.01, weight_decay=0.1))
    free = {id(p) for group in adamw.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert free == {id(p) for p in net.parameters() if p.ndim == 1}


def test_frozen_module_is_refused() -> None:
    net = Net().requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizers(net, AdamWConfig(lr=0.01))


ADAMW = AdamWConfig(lr=0.1, clip_norm=0.5)
MUON = MuonConfig(muon_lr=0.1, muon_weight_decay=0.1, adamw=AdamWConfig(lr=0.1), clip_norm=0.5)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("cfg", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradient_skips_the_update_and_is_counted(bad: float, cfg: OptimConfig, waits: bool) -> None:
    net = Net()
    updater = Updater(net, cfg, FLAT, 10)
    updater.waits = waits
    run(net, updater, steps=1)
    before = {name: value.clone() for name, value in updater.state_tensors().items()}
    weights = [p.detach().clone() for p in net.parameters()]
    loss = net(torch.tensor([1]))
    (loss * bad).backward()
    report = updater.update(1, loss.detach())
    assert report.skipped is waits  # who does not wait does not know yet
    assert updater.skipped == (1, 1)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), weights, strict=True))
    assert updater.state_tensors().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in updater.state_tensors().items())
    assert all(p.grad is None for p in net.parameters())
    run(net, updater, steps=1)
    assert updater.skipped == (1, 0)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e9])
@pytest.mark.parametrize("cfg", [ADAMW, MUON], ids=["adamw", "muon"])
def test_who_does_not_wait_makes_the_same_updates(cfg: OptimConfig, clip_norm: float) -> None:
    """Muon computes in bfloat16, whose rounding a last bit of difference can turn."""
    nets = []
    for waits in (True, False):
        net = Net()
        updater = Updater(net, replace(cfg, clip_norm=clip_norm), FLAT, 10)
        updater.waits = waits
        run(net, updater)
        nets.append(net)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 if cfg is ADAMW else 1e-2)


@pytest.mark.parametrize("waits", [True, False])
def test_nan_in_a_weight_stops_the_run_with_an_explanation(waits: bool) -> None:
    net = Net()
    updater = Updater(net, AdamWConfig(lr=0.1), FLAT, 100)
    updater.waits = waits
    with torch.no_grad():
        net.encoder.layers[0].weight[0, 0] = math.nan
    with pytest.raises(UserError, match=rf"not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row.*lower one"):
        run(net, updater, steps=50)
    lost = MAX_SKIPPED_IN_A_ROW if waits else LOOK_EVERY
    assert updater.skipped == (lost, lost)


@pytest.mark.parametrize("cfg", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize(("before", "after"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_what_was_saved_in_another_precision_is_gone_on_with(
    cfg: OptimConfig, before: torch.dtype, after: torch.dtype
) -> None:
    first, second = Net().to(before), Net().to(after)
    saved = Updater(first, cfg, FLAT, 10)
    run(first, saved, steps=5)
    second.load_state_dict(first.state_dict())
    resumed = Updater(second, cfg, FLAT, 10)
    resumed.load_state_tensors({name: value.clone() for name, value in saved.state_tensors().items()})
    for net, updater in ((first, saved), (second, resumed)):
        run(net, updater, steps=3)
    steps = {name: value for name, value in resumed.state_tensors().items() if name.endswith("/step")}
    assert steps and all(value.dtype is torch.float32 and value == 8 for value in steps.values())
    for name, parameter in second.named_parameters():
        torch.testing.assert_close(parameter, first.get_parameter(name).to(after), rtol=1e-2, atol=1e-3, msg=name)


def test_the_rate_that_is_reported_is_the_one_that_was_used() -> None:
    net = Net()
    updater = Updater(net, AdamWConfig(lr=0.1), ScheduleConfig(shape=Shape.linear, warmup_share=0.0), total_steps=4)
    for step in range(4):
        report = updater.update(step, net(torch.tensor([1])).detach())
        assert report.lr == updater.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * (1 - step / 4))


def test_linear_schedule_equals_torchs() -> None:
    """Against torch's LambdaLR-free pieces: linear warm-up to 1 over 10 steps, then linear to 0 over 90."""
    cfg = ScheduleConfig(shape=Shape.linear, warmup_share=0.1)
    values = [multiplier(step, 100, cfg) for step in range(100)]
    assert values[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert values[10:] == pytest.approx([1 - step / 90 for step in range(90)])


def test_cosine_schedule_equals_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    cfg = ScheduleConfig(shape=Shape.cosine, warmup_share=0.0)
    for step in range(50):
        assert multiplier(step, 50, cfg) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_stable_decay_is_flat_and_falls_over_its_share_of_all_steps() -> None:
    cfg = ScheduleConfig(shape=Shape.stable_decay, warmup_share=0.2, decay_share=0.3)
    values = [multiplier(step, 100, cfg) for step in range(20, 100)]
    assert values == pytest.approx([1.0] * 50 + [1 - step / 30 for step in range(30)])


@pytest.mark.parametrize("shape", list(Shape))
def test_final_is_what_the_rate_falls_to(shape: Shape) -> None:
    to_zero, to_quarter = (ScheduleConfig(shape=shape, warmup_share=0.1, final=final) for final in (0.0, 0.25))
    for step in range(10, 100):
        assert multiplier(step, 100, to_quarter) == pytest.approx(0.25 + 0.75 * multiplier(step, 100, to_zero))


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize("total_steps", [1, 2, 7, 1000])
def test_every_schedule_starts_above_zero_stays_in_bounds_and_ends_low(shape: Shape, total_steps: int) -> None:
    cfg = ScheduleConfig(shape=shape, warmup_share=0.1, decay_share=0.3, final=0.0)  # of stable_decay
    values = [multiplier(step, total_steps, cfg) for step in range(total_steps)]
    assert all(0 < value <= 1 for value in values)
    if total_steps == 1000:
        assert max(values) > 0.99
        assert values[-1] < 0.01
