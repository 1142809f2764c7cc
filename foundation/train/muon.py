"""Muon, with the Newton–Schulz iteration run over all matrices of one shape at once.

Letters: G matrices of one shape · A shorter side · B longer side
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Jordan 2024: slope as steep as can be at zero, singular values end within about [0.7, 1.2].
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan 2024, "Muon: an optimizer for hidden layers"), at AdamW's usual step size.

    The same update as torch.optim.Muon with adjust_lr_fn="match_rms_adamw" (Liu et al. 2025, eq. 4), Nesterov's momentum, and
    decoupled weight decay; matrices in a batched product may round differently. For parameters of two dimensions.
    found_inf and grad_scale, where they are set, are minded as torch's fused optimizers mind them.
    """

    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        lost = self.found_inf
        if lost is not None:
            assert self.grad_scale is not None
            # A gradient that is the momentum itself leaves the momentum as it is.
            scaled = torch.stack(gradients) / self.grad_scale
            gradients = list(torch.where(lost > 0, torch.stack(buffers), scaled))
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        directions = torch.stack(torch._foreach_lerp(gradients, buffers, group["momentum"]))
        rows, columns = parameters[0].shape
        is_tall = rows > columns
        updates = orthogonal((directions.mT if is_tall else directions).bfloat16())
        updates = (updates.mT if is_tall else updates).to(parameters[0].dtype)
        lr, step_size = group["lr"], 0.2 * math.sqrt(max(rows, columns))
        if lost is None:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates), alpha=-lr * step_size)
        else:
            lr = lr * (1 - lost)
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates * lr), alpha=-step_size)


def orthogonal(matrices_GAB: Tensor) -> Tensor:
    """U·Vᵀ of each matrix U·S·Vᵀ, nearly: singular values near 1; same shape and type."""
    a, b, c = _COEFFICIENTS
    x = matrices_GAB / matrices_GAB.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
