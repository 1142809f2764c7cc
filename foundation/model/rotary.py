"""Rotary positions (Su et al. 2021, RoFormer): queries and keys are turned by angles that grow with the position.

Letters: T tokens of all sequences · N heads · H head width
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class _Rotate(torch.autograd.Function):
    """Turn pairs (i, i + H/2) by an angle. The gradient of a rotation is the rotation back, so nothing but angles is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.addcmul(first * cos, second, sin, value=-1, out=out_first)
    torch.addcmul(second * cos, first, sin, out=out_second)
    return out


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin of the angles of T tokens, each (T, 1, 1, H/2)."""

    cos: Tensor
    sin: Tensor

    def of_queries_and_keys(self, qk_T2NH: Tensor) -> Tensor:
        """Turned queries and keys, same shape."""
        cos, sin = self.cos.to(qk_T2NH.dtype), self.sin.to(qk_T2NH.dtype)
        return _Rotate.apply(qk_T2NH, cos, sin)  # type: ignore[no-untyped-call]

    def of_one(self, x_TNH: Tensor) -> Tensor:
        """Turned queries or keys alone, same shape: one pass, forward and backward, where torch.compile sees it.

        Each half is read in place of the other; halves that are joined again would be selected for every number written.
        """
        cos, sin = self.cos[:, 0], self.sin[:, 0]
        exchanged = x_TNH.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
        turned = x_TNH * torch.cat([cos, cos], dim=-1) + exchanged * torch.cat([-sin, sin], dim=-1)
        return turned.to(x_TNH.dtype)


def rotation(positions: Tensor, head_width: int, theta: float) -> Rotation:
    """Angles of Su et al. 2021 (RoFormer, eq. 15); in float32 whatever the model's type, as ModernBERT's reference has them."""
    steps = torch.arange(0, head_width, 2, dtype=torch.float32, device=positions.device)
    angles = positions[:, None].float() * (1.0 / theta ** (steps / head_width))
    return Rotation(angles.cos()[:, None, None], angles.sin()[:, None, None])
