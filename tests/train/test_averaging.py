"""Averaged weights: the formula, and that the training does not notice them."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foundation.core.errors import UserError
from foundation.train.averaging import AVERAGED_EVERY, WeightAverage


def module(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 2)).double()


def moved(weights: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter += torch.randn_like(parameter)


def test_it_is_torchs_moving_average_at_every_eighth_step() -> None:
    """Past its warm-up; before, the decay is (1 + step) / (10 + step)."""
    weights = module()
    ours = WeightAverage(weights, decay=0.9)
    theirs = AveragedModel(weights, multi_avg_fn=get_ema_multi_avg_fn(0.9**AVERAGED_EVERY))
    theirs.update_parameters(weights)  # its first one is a copy
    for step in range(100 * AVERAGED_EVERY + 1, 120 * AVERAGED_EVERY + 1):
        moved(weights)
        ours.update(step)
        if step % AVERAGED_EVERY == 0:
            theirs.update_parameters(weights)
    with ours.in_place():
        for one, other in zip(weights.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_first_weights_do_not_linger() -> None:
    weights = module()
    average = WeightAverage(weights, decay=0.9999)
    first = [parameter.detach().clone() for parameter in weights.parameters()]
    moved(weights)
    average.update(8)
    kept = (9 / 18) ** AVERAGED_EVERY
    with average.in_place():
        found = [parameter.detach().clone() for parameter in weights.parameters()]
    for mean, was, now in zip(found, first, weights.parameters(), strict=True):
        torch.testing.assert_close(mean, kept * was + (1 - kept) * now, rtol=1e-10, atol=1e-12)


def test_weights_are_their_own_again_afterwards_even_after_an_error() -> None:
    weights = module()
    average = WeightAverage(weights, decay=0.9)
    moved(weights)
    before = {name: tensor.clone() for name, tensor in weights.state_dict().items()}
    seen = []

    def fails() -> None:
        seen.append(weights.state_dict()["0.weight"].clone())
        raise RuntimeError

    with pytest.raises(RuntimeError), average.in_place():
        fails()
    assert not torch.equal(seen[0], before["0.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.state_dict().items())


def test_it_is_saved_beside_the_optimizer_and_comes_back() -> None:
    weights = module()
    average, again = WeightAverage(weights, decay=0.9), WeightAverage(module(1), decay=0.9)
    moved(weights)
    average.update(AVERAGED_EVERY)
    others = again.take_from({"0/0.weight/step": torch.tensor(3.0), **average.state_tensors()})
    assert others == {"0/0.weight/step": torch.tensor(3.0)}
    assert all(torch.equal(again.state_tensors()[name], t) for name, t in average.state_tensors().items())
    with pytest.raises(UserError, match="averaged weights are not those of this model"):
        again.take_from({"0/0.weight/step": torch.tensor(3.0)})
