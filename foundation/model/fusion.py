"""torch.compile for the parts of a training step, where it pays: on a GPU, where a pass over memory costs as much as a product.

A function marked `fused` is compiled inside `fusing(True)` and runs as it stands elsewhere. Parts, not the whole step: all
layers of a kind share one compilation, some seconds instead of minutes.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_on = False


class fusing:
    """Inside the block, functions marked `fused` are compiled, or not."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def __enter__(self) -> None:
        global _on
        self._before, _on = _on, self.on

    def __exit__(self, *_: object) -> None:
        global _on
        _on = self._before


def is_for_fusion(tensor: Tensor) -> bool:
    """Whether work on this tensor is written for torch.compile to see through: on a GPU, compiled or not, so that both agree."""
    return tensor.is_cuda or torch.compiler.is_compiling()


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Numbers of rows, tokens and targets change from step to step: dynamic, so that they are compiled for once."""
    compiled: Callable[P, R] | None = None

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal compiled
        if not _on:
            return function(*args, **kwargs)
        if compiled is None:
            compiled = torch.compile(function, dynamic=True)
        return compiled(*args, **kwargs)

    return run
