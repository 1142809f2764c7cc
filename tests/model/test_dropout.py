"""Our dropout has the rate and the mean of torch's, and no pattern."""

import pytest
import torch

from foundation.model.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    torch.manual_seed(0)
    n = 400_001
    out = dropout(torch.ones(n, dtype=torch.float64), p)
    dropped = (out == 0).sum().item()
    assert abs(dropped - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - p)])


def test_each_of_the_four_decisions_of_a_draw_has_the_rate() -> None:
    torch.manual_seed(0)
    n = 100_000
    lanes = (dropout(torch.ones(n, 4), 0.3) == 0).sum(0)
    assert all(abs(count - n * 0.3) < 5 * (n * 0.3 * 0.7) ** 0.5 for count in lanes.tolist())


def test_seed_decides_and_gradient_follows_the_mask() -> None:
    x = torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(3)
    one = dropout(x, 0.4)
    torch.manual_seed(3)
    assert torch.equal(one, dropout(x, 0.4))
    one.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(one == 0, 0.0, 1 / 0.6))


def test_evaluation_and_zero_change_nothing() -> None:
    x = torch.randn(4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
