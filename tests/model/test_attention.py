"""Every way to attend agrees with a loop written from the definition; no token sees another sequence."""

import math

import pytest
import torch

from foundation.model.attention import Layout, Visibility, attend, fused_attention, plain_attention
from foundation.model.encoder import Encoder
from foundation.model.rotary import rotation
from tests.builders import bert_config, modern_config, randomise

LENGTHS = (5, 33, 1, 64, 12)


def layout(visibility: Visibility = Visibility.bidirectional) -> Layout:
    prefixes = (2, 10, 1, 30, 12) if visibility is Visibility.prefix else ()
    return Layout(LENGTHS, torch.device("cpu"), visibility, prefixes)


def reference(qkv: torch.Tensor, lay: Layout, window: int) -> torch.Tensor:
    """One query at a time, from the definition."""
    out, start = torch.zeros_like(qkv[:, 0]), 0
    for row, length in enumerate(lay.lengths):
        for i in range(length):
            seen = []
            for j in range(length):
                in_prefix = lay.visibility is Visibility.prefix and j < lay.prefix_lengths[row]
                allowed = lay.visibility is Visibility.bidirectional or j <= i or in_prefix
                if allowed and (window == 0 or abs(i - j) <= window // 2):
                    seen.append(start + j)
            for head in range(qkv.shape[2]):
                scores = torch.stack([qkv[start + i, 0, head] @ qkv[j, 1, head] for j in seen]) / math.sqrt(
                    qkv.shape[3]
                )
                out[start + i, head] = (scores.softmax(0)[:, None] * qkv[seen, 2, head]).sum(0)
        start += length
    return out


@pytest.mark.parametrize("visibility", list(Visibility))
@pytest.mark.parametrize("window", [0, 6])
def test_attention_equals_the_definition(visibility: Visibility, window: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, 2, 4, dtype=torch.float64)
    lay = layout(visibility)
    torch.testing.assert_close(attend(qkv, lay, window, 0.0), reference(qkv, lay, window), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_plain_and_fused_kernels_agree_in_outputs_and_gradients(masked: bool) -> None:
    torch.manual_seed(0)
    visible = torch.rand(3, 1, 1, 9) < 0.7 if masked else None
    if visible is not None:
        visible[..., 0] = True
    results = []
    for kernel in (plain_attention, fused_attention):
        torch.manual_seed(1)
        q, k, v = (torch.randn(3, 2, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
        out = kernel(q, k, v, visible, 0.0)
        out.square().sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cfg", [bert_config(max_seq_len=64), modern_config(max_seq_len=64, local_window=8)])
def test_a_sequence_does_not_depend_on_its_neighbours(cfg: object) -> None:
    encoder = Encoder(cfg).double()
    randomise(encoder)
    ids = torch.randint(5, 101, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros_like(ids)
    together = encoder(ids, segments, Layout.of(LENGTHS)).split(list(LENGTHS))
    for part, alone in zip(ids.split(list(LENGTHS)), together, strict=True):
        expected = encoder(part, torch.zeros_like(part), Layout.of([len(part)]))
        torch.testing.assert_close(alone, expected, rtol=1e-10, atol=1e-10)


def test_causal_encoder_does_not_see_the_future() -> None:
    encoder = Encoder(modern_config()).double()
    randomise(encoder)
    ids = torch.randint(5, 101, (20,), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[12] = 5 if ids[12] != 5 else 6
    causal = Layout((20,), torch.device("cpu"), Visibility.causal)
    one, other = (encoder(x, torch.zeros_like(x), causal) for x in (ids, changed))
    torch.testing.assert_close(one[:12], other[:12], rtol=0, atol=1e-12)
    assert (one[12:] - other[12:]).abs().max() > 1e-6


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    """Su et al. 2021, eq. 11: the product of a turned query and a turned key is a function of their distance."""
    turn = rotation(torch.arange(30), 8, 10_000.0)
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(30, 2, 1, 8)
    turned = turn.of_queries_and_keys(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    near, far = (turned[a, 0, 0] @ turned[a + 3, 1, 0] for a in (2, 20))
    torch.testing.assert_close(near, far, rtol=1e-6, atol=1e-9)


def test_rotation_gradient_is_right() -> None:
    turn = rotation(torch.arange(5), 4, 100.0)
    x = torch.randn(5, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    # float64 angles: gradcheck needs the function itself in float64.
    precise = type(turn)(turn.cos.double(), turn.sin.double())
    assert torch.autograd.gradcheck(precise.of_queries_and_keys, (x,))


def test_prefix_layout_needs_a_prefix_a_row() -> None:
    with pytest.raises(ValueError, match="2 sequences need as many prefix_lengths, not 1"):
        Layout((3, 4), torch.device("cpu"), Visibility.prefix, (1,))


@pytest.mark.parametrize(("length", "rows"), [(60, 8), (100, 8), (200, 4), (300, 3), (900, 3)])
def test_long_sequences_are_not_joined_by_empty_ones(length: int, rows: int) -> None:
    """Three of a length, each of which is no padded one: an empty sequence of 512 would cost as much as a real one."""
    (group,) = Layout.of([length, length - 1, length - 2]).groups
    assert group.real_RL.shape[0] == rows and group.lengths.tolist()[:3] == [length, length - 1, length - 2]
    assert group.lengths[3:].sum() == 0
