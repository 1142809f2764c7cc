"""Averaged weights: what is examined and kept in place of the last ones, which still swing with every batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foundation.core.errors import UserError

# The average takes part in so many steps once: a pass over all weights a step would cost some percent of a small one.
AVERAGED_EVERY = 8
_PREFIX = "average/"


class WeightAverage:
    """Exponential moving average of a module's trainable parameters (Polyak & Juditsky 1992 without the exponential).

    average ← d · average + (1 − d) · weights with d = min(decay, (1 + step) / (10 + step)), so that the first weights do not
    linger in a short run; d to the power of AVERAGED_EVERY each AVERAGED_EVERY steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number 1, 2, …; does something at the multiples of AVERAGED_EVERY."""
        if step % AVERAGED_EVERY == 0:
            decay = min(self.decay, (1 + step) / (10 + step)) ** AVERAGED_EVERY
            torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the module's weights are the averaged ones."""
        own = [parameter.detach().clone() for parameter in self._parameters.values()]
        self._write(list(self._average.values()))
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, weights: list[Tensor]) -> None:
        torch._foreach_copy_(list(self._parameters.values()), weights)

    def state_tensors(self) -> dict[str, Tensor]:
        """The averages, under names that no optimizer's have."""
        return {f"{_PREFIX}{name}": tensor for name, tensor in self._average.items()}

    @torch.no_grad()
    def take_from(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put back what state_tensors gave; returns the others of `tensors`."""
        found = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}
        if found.keys() != self._average.keys():
            raise UserError("the checkpoint's averaged weights are not those of this model")
        for name, tensor in found.items():
            self._average[name].copy_(tensor)
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
