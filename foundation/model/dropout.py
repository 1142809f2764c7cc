"""Dropout that does not wait for random numbers: four decisions from each 64-bit draw on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with chance p (to within 1/131072), scale the rest by 1/(1 - p) (Srivastava et al. 2014).

    torch draws a double for every entry, one after the other: measured, a fifth of a fine-tuning step on 2 cores.
    """
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    # The full range of int64: its default leaves the sign bit out, and every fourth decision would be biased.
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * _LEVELS) - _LEVELS // 2
    return x * (keep.to(x.dtype) / (1 - p))


class Dropout(nn.Module):
    """dropout() while training, nothing in evaluation."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return dropout(x, self.p) if self.training else x
