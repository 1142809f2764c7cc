"""Low-rank adaptation (Hu et al. 2021): what a task adds to a matrix has few dimensions, and can be added for good.

Letters: T tokens · I inputs · O outputs
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoraLinear(nn.Linear):
    """A linear map with a low-rank term beside it. `base`'s parameters are taken over under their own names."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        # On "meta": the base's parameters take the place of those that nn.Linear would draw.
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        # Section 4.1: A Gaussian and B zero, so that training starts from the foundation's own function.
        nn.init.normal_(self.down.weight, std=base.in_features**-0.5)
        nn.init.zeros_(self.up.weight)
        for part in (self.down, self.up):
            part.to(base.weight)

    def forward(self, x_TI: Tensor) -> Tensor:
        """(T, I) -> (T, O)."""
        term_TO: Tensor = self.up(self.down(x_TI))
        return F.linear(x_TI, self.weight, self.bias) + self.scale * term_TO

    def merged(self) -> nn.Linear:
        """One matrix that does the same: W + scale·B·A."""
        whole = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        whole.weight = nn.Parameter((self.weight + self.scale * self.up.weight @ self.down.weight).detach())
        whole.bias = self.bias
        return whole


def merge(module: nn.Module) -> None:
    """Put one plain matrix in the place of every matrix with a low-rank term."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, LoraLinear):
                with torch.no_grad():
                    setattr(part, name, child.merged())
