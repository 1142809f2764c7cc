"""Bottleneck adapters (Houlsby et al. 2019): a small network behind a sub-layer, which starts as next to nothing.

Letters: T tokens · I inputs · D width
"""

import torch.nn.functional as F
from torch import Tensor, nn

# Section 2.1 of the paper: near the identity at the start, or training fails.
_INIT_STD = 1e-2


class Adapter(nn.Module):
    """h + up(gelu(down(h)))."""

    def __init__(self, model_width: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(model_width, width)
        self.up = nn.Linear(width, model_width)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=_INIT_STD, a=-2 * _INIT_STD, b=2 * _INIT_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        change_TD: Tensor = self.up(F.gelu(self.down(hidden_TD)))
        return hidden_TD + change_TD


class AdaptedLinear(nn.Linear):
    """The last matrix of a sub-layer with an adapter behind it. `base`'s parameters are taken over under their own names.

    The paper has the dropout before the adapter, here it comes behind: the residual branch is dropped as a whole.
    """

    def __init__(self, base: nn.Linear, width: int) -> None:
        # On "meta": the base's parameters take the place of those that nn.Linear would draw.
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.adapter = Adapter(base.out_features, width).to(base.weight)

    def forward(self, x_TI: Tensor) -> Tensor:
        """(T, I) -> (T, D)."""
        adapted_TD: Tensor = self.adapter(F.linear(x_TI, self.weight, self.bias))
        return adapted_TD
