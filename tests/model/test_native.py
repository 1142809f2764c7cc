"""The fused passes against the definition in float64, and against the plain path whose place they take."""

import copy

import pytest
import torch
import torch.nn.functional as F

from foundation.model import native
from foundation.model.attention import Attention, Layout, plain_attention
from foundation.model.compiled import compiled
from foundation.model.encoder import Encoder
from foundation.model.rotary import rotation
from foundation.objective.masked_lm import MaskedLMHead
from tests.builders import modern_config, randomise

pytestmark = pytest.mark.skipif(
    compiled().library is None, reason="no C compiler here: the plain operations run instead"
)

# Half a unit in the last of bfloat16's eight bits, relative.
HALF_ULP = 2.0**-8
LENGTHS = [1, 17, 32, 33, 70, 5]


def random(*shape: int, seed: int = 0, requires_grad: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16().requires_grad_(requires_grad)


def double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().double().requires_grad_(tensor.requires_grad)


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found.double() - truth).norm() / truth.norm()).item()


def test_geglu_and_its_gradient_are_those_of_the_definition_rounded_once() -> None:
    inner = (random(37, 2 * 50) * 3).detach().requires_grad_()
    truth = double(inner)
    out = native.geglu(inner)
    signal, gate = truth.chunk(2, dim=-1)
    expected = F.gelu(signal) * gate
    torch.testing.assert_close(out.double(), expected, rtol=HALF_ULP, atol=1e-6)
    weights = random(*out.shape, seed=1, requires_grad=False)
    out.backward(weights)
    expected.backward(weights.double())
    torch.testing.assert_close(inner.grad.double(), truth.grad, rtol=HALF_ULP, atol=1e-5)


def test_gelu_and_its_gradient_are_those_of_the_definition_rounded_once() -> None:
    inner = (random(7, 333) * 3).detach().requires_grad_()
    truth, weights = double(inner), random(7, 333, seed=1, requires_grad=False)
    out, expected = native.gelu(inner), F.gelu(truth)
    torch.testing.assert_close(out.double(), expected, rtol=HALF_ULP, atol=1e-6)
    out.backward(weights)
    expected.backward(weights.double())
    torch.testing.assert_close(inner.grad.double(), truth.grad, rtol=HALF_ULP, atol=1e-6)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_branch", [True, False])
def test_norm_after_a_residual_sum_is_the_definition(has_branch: bool, has_bias: bool) -> None:
    norm = torch.nn.LayerNorm(48, eps=1e-5, bias=has_bias)
    randomise(norm)
    exact = copy.deepcopy(norm).double()
    stream, branch = (random(37, 48, seed=1) * 4 + 2).detach().requires_grad_(), random(37, 48, seed=2)
    true_stream, true_branch = double(stream), double(branch)
    total, normed = native.sum_and_norm(stream, branch if has_branch else None, norm)
    summed = true_stream + true_branch if has_branch else true_stream
    # The stream is kept in bfloat16, so the norm is of the rounded sum.
    rounded = summed + (summed.detach().bfloat16().double() - summed.detach())
    expected = exact(rounded)
    torch.testing.assert_close(total.double(), rounded, rtol=0, atol=0)
    torch.testing.assert_close(normed.double(), expected, rtol=HALF_ULP, atol=1e-5)
    first, second = (random(37, 48, seed=seed, requires_grad=False) for seed in (3, 4))
    torch.autograd.backward([total, normed], [first, second])
    torch.autograd.backward([rounded, expected], [first.double(), second.double()])
    # Two gradients meet, each rounded, where nothing was added and the stream goes on as it is.
    torch.testing.assert_close(stream.grad.double(), true_stream.grad, rtol=2 * HALF_ULP, atol=1e-2)
    if has_branch:
        torch.testing.assert_close(branch.grad.double(), true_branch.grad, rtol=HALF_ULP, atol=1e-4)
    for found, truth in zip(norm.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), truth.grad, rtol=1e-5, atol=1e-5)


def test_dropout_of_a_branch_is_decided_once_for_both_ways() -> None:
    """What is dropped shows in the sum; with those decisions, sum, norm and gradients are the definition's."""
    rate, norm = 0.25, torch.nn.LayerNorm(96)
    randomise(norm)
    stream, branch = random(200, 96, seed=1), random(200, 96, seed=2)
    with torch.no_grad():
        branch.add_(branch.sign() * 4)  # nothing kept is lost in rounding the sum
    torch.manual_seed(5)
    total, normed = native.sum_and_norm(stream, branch, norm, rate)
    kept = (total != stream).double()
    assert abs(kept.mean() - (1 - rate)) < 0.01
    exact, true_stream, true_branch = copy.deepcopy(norm).double(), double(stream), double(branch)
    summed = true_stream + kept * true_branch / (1 - rate)
    rounded = summed + (total.detach().double() - summed.detach())
    expected = exact(rounded)
    torch.testing.assert_close(total.double(), summed, rtol=HALF_ULP, atol=1e-6)
    torch.testing.assert_close(normed.double(), expected, rtol=HALF_ULP, atol=1e-5)
    first, second = (random(200, 96, seed=seed, requires_grad=False) for seed in (3, 4))
    torch.autograd.backward([total, normed], [first, second])
    torch.autograd.backward([rounded, expected], [first.double(), second.double()])
    torch.testing.assert_close(stream.grad.double(), true_stream.grad, rtol=HALF_ULP, atol=1e-3)
    torch.testing.assert_close(branch.grad.double(), true_branch.grad, rtol=HALF_ULP, atol=1e-3)
    torch.manual_seed(5)
    again = native.sum_and_norm(stream, branch, norm, rate)[0]
    assert torch.equal(again, total) and not torch.equal(native.sum_and_norm(stream, branch, norm, rate)[0], total)
    branch.grad = None
    again.backward(first)
    torch.testing.assert_close(branch.grad.double(), kept * first.double() / (1 - rate), rtol=HALF_ULP, atol=0)


def test_a_sum_that_is_normed_but_goes_nowhere_else_has_its_gradient() -> None:
    norm, stream, branch = torch.nn.LayerNorm(16), random(5, 16, seed=1), random(5, 16, seed=2)
    native.sum_and_norm(stream, branch, norm)[1].backward(random(5, 16, seed=3, requires_grad=False))
    through_norm = stream.grad.clone()
    stream.grad = None
    native.sum_and_norm(stream, branch, norm)[0].sum().backward()
    assert (stream.grad == 1).all() and not torch.equal(through_norm, stream.grad)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("weights", [(0.25, 0.0), (0.25, 0.01), (0.0, 0.02)])
def test_cross_entropy_and_its_gradients_are_those_of_the_definition(
    scale: float, weights: tuple[float, float]
) -> None:
    logits = (random(9, 131) * scale).detach().requires_grad_()
    bias = torch.randn(131, generator=torch.Generator().manual_seed(3)).requires_grad_()
    targets = torch.tensor([0, 130, 5, -100, 7, 7, -100, 64, 100])
    truth, true_bias = double(logits), double(bias)
    expected = (
        F.cross_entropy(truth + true_bias, targets, reduction="sum"),
        (truth + true_bias)[targets >= 0].logsumexp(-1).square().sum(),
    )
    loss, log_sums = native.summed_cross_entropy(logits, bias, targets)
    found = loss, log_sums[targets >= 0].square().sum()
    torch.testing.assert_close(torch.stack(found).double(), torch.stack(expected), rtol=1e-6, atol=1e-6)
    for sums in (found, expected):
        sum(weight * part for weight, part in zip(weights, sums, strict=True) if weight).backward()
    torch.testing.assert_close(logits.grad.double(), truth.grad, rtol=HALF_ULP, atol=1e-7)
    torch.testing.assert_close(bias.grad.double(), true_bias.grad, rtol=1e-5, atol=1e-5)
    assert (logits.grad[targets < 0] == 0).all()


def attention_in_float64(qkv: torch.Tensor, layout: Layout, window: int, rotary: bool) -> torch.Tensor:
    """Row by row, with the definition's own operations."""
    out, start = [], 0
    for length in layout.lengths:
        part = qkv[start : start + length]
        if rotary:
            turn = rotation(torch.arange(length), part.shape[-1], 10_000.0)
            part = torch.cat([turn.of_queries_and_keys(part[:, :2]), part[:, 2:]], dim=1)
        q, k, v = part.permute(1, 2, 0, 3)[:, None]
        cells = torch.arange(length)
        near = (cells[:, None] - cells).abs() <= (window // 2 if window else length)
        out.append(plain_attention(q, k, v, near, 0.0)[0].transpose(0, 1))
        start += length
    return torch.cat(out)


@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("rotary", [True, False])
def test_attention_is_the_definition_within_each_row(window: int, rotary: bool) -> None:
    layout = Layout.of(LENGTHS)
    qkv = random(sum(LENGTHS), 3, 2, 16)
    truth = double(qkv)
    turn = rotation(layout.positions, 16, 10_000.0) if rotary else None
    out = native.attend(qkv, layout, window, 0.0, turn)
    expected = attention_in_float64(truth, layout, window, rotary)
    assert error(out, expected) < 2 * HALF_ULP
    weights = random(*out.shape, seed=1, requires_grad=False)
    out.backward(weights)
    expected.backward(weights.double())
    assert error(qkv.grad, truth.grad) < 3 * HALF_ULP


def test_attention_dropout_drops_its_share_and_the_gradient_knows_which() -> None:
    p, rows, length, width = 0.25, 6, 16, 16
    layout = Layout.of([length] * rows)
    qkv = random(rows * length, 3, 2, width)
    with torch.no_grad():  # values that show the shares themselves
        qkv[:, 2] = torch.eye(length, dtype=qkv.dtype).repeat(rows, 1)[:, None]
    torch.manual_seed(5)
    out = native.attend(qkv, layout, 0, p, None)
    kept = (out.detach() > 0).unflatten(0, (rows, length)).transpose(1, 2)
    n = kept.numel()
    assert abs((~kept).sum().item() - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    truth = double(qkv)
    q, k, v = truth.unflatten(0, (rows, length)).permute(2, 0, 3, 1, 4)
    shares = ((q * width**-0.5) @ k.transpose(-1, -2)).softmax(-1)
    expected = ((shares * kept / (1 - p)) @ v).transpose(1, 2).flatten(0, 1)
    assert error(out, expected) < 2 * HALF_ULP
    weights = random(*out.shape, seed=1, requires_grad=False)
    out.backward(weights)
    expected.backward(weights.double())
    assert error(qkv.grad, truth.grad) < 4 * HALF_ULP


def test_dropout_differs_between_calls_and_repeats_under_a_seed() -> None:
    layout, qkv = Layout.of(LENGTHS), random(sum(LENGTHS), 3, 2, 16, requires_grad=False)

    def once(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return native.attend(qkv, layout, 0, 0.5, None)

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


def test_rows_of_other_lengths_are_dropped_by_other_draws() -> None:
    """Each length has products of its own. Shares are equal, and values such that they show."""
    qkv = torch.zeros(32 + 64, 3, 1, 64, dtype=torch.bfloat16)
    qkv[:, 2, 0] = torch.cat([torch.eye(64)[:32], torch.eye(64)])
    torch.manual_seed(5)
    kept = native.attend(qkv, Layout.of([32, 64]), 0, 0.5, None)[:, 0] > 0
    short, long = kept[:32, :32].flatten(), kept[32:].flatten()
    assert not torch.equal(short, long[: len(short)])


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        cfg = modern_config(local_window=8, max_seq_len=80)
        self.encoder, self.head = Encoder(cfg), MaskedLMHead(cfg)

    def forward(self, ids: torch.Tensor, layout: Layout, at: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(ids, torch.zeros_like(ids), layout)[at]
        (loss,) = self.head.summed_losses(hidden, self.encoder.token_embedding.weight, targets)
        return loss / len(targets)


def loss_and_gradients(model: Model, *, bf16: bool) -> tuple[float, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 101, (sum(LENGTHS),), generator=generator)
    at = torch.arange(0, len(ids), 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(ids, Layout.of(LENGTHS), at, ids[at])
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return loss.item(), gradients


def test_a_model_on_the_fused_path_is_as_near_to_float64_as_on_the_plain_one() -> None:
    model = Model()
    randomise(model)
    exact_loss, exact = loss_and_gradients(copy.deepcopy(model).double(), bf16=False)
    fused_loss, fused = loss_and_gradients(model, bf16=True)
    with native.plain():
        plain_loss, plain = loss_and_gradients(model, bf16=True)
    assert fused_loss != plain_loss, "the fused path did not run"
    assert abs(fused_loss - exact_loss) < 0.02 * exact_loss
    together = [
        torch.cat([gradients[name].flatten().double() for name in exact]) for gradients in (exact, fused, plain)
    ]
    assert error(together[1], together[0]) < 1.1 * error(together[2], together[0])
    assert error(together[1], together[0]) < 0.05


def test_the_fused_path_repeats_bit_for_bit() -> None:
    model = Model()
    randomise(model)
    (first_loss, first), (second_loss, second) = (loss_and_gradients(model, bf16=True) for _ in range(2))
    assert first_loss == second_loss
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    """The loop skips an update by it; a fast exponential must not swallow it."""
    inner, logits, qkv = random(4, 20).detach(), random(4, 20).detach(), random(5, 3, 2, 16).detach()
    inner[1, 3], logits[2, 7], qkv[3, 2, 1, 2] = bad, bad, bad
    assert not native.geglu(inner).isfinite().all()
    assert not native.sum_and_norm(inner, inner, torch.nn.LayerNorm(20))[1].isfinite().all()
    assert not native.summed_cross_entropy(logits, torch.zeros(20), torch.tensor([1, 2, 3, 4]))[0].isfinite()
    assert not native.attend(qkv, Layout.of([5]), 0, 0.0, None).isfinite().all()


def test_the_plain_path_runs_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = modern_config()
    attention, layout = Attention(cfg, 0), Layout.of([5, 9])
    hidden = torch.randn(14, cfg.width)
    with torch.autocast("cpu", torch.bfloat16):
        fused = attention(hidden, layout, rotation(layout.positions, 8, 10_000.0))
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled.cache_clear()
    try:
        assert compiled().library is None
        with torch.autocast("cpu", torch.bfloat16):
            plain = attention(hidden, layout, rotation(layout.positions, 8, 10_000.0))
    finally:
        monkeypatch.undo()
        compiled.cache_clear()
    torch.testing.assert_close(fused, plain, rtol=0.05, atol=0.01)
