"""Ranks: which process this is, and what all of them agree on. Everything is inert when there is only one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING

from foundation.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Rank 0 may spend hours on a corpus while the others wait; torchrun ends them at once when a rank dies.
_TIMEOUT = timedelta(hours=12)
_TORCHRUN_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


def setup(device: str) -> None:
    """Join the other processes when torchrun started this one among several; else do nothing."""
    if any(name not in os.environ for name in _TORCHRUN_VARIABLES) or int(os.environ["WORLD_SIZE"]) <= 1:
        return
    import torch

    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo for what the host decides, also beside GPUs: a flag that goes through NCCL waits for all that was asked of the device.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    torch.distributed.init_process_group(backend, timeout=_TIMEOUT)


def shutdown() -> None:
    """Leave the group that setup() joined."""
    if group := _group():
        group.destroy_process_group()


def _group() -> ModuleType | None:
    """torch.distributed where this process has joined others. Before torch is imported, it has not."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


def rank() -> int:
    group = _group()
    return int(group.get_rank()) if group else 0


def world_size() -> int:
    group = _group()
    return int(group.get_world_size()) if group else 1


def launcher() -> list[str]:
    """The words of a command line that start as many processes as there are now."""
    if world_size() == 1:
        return ["python"]
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    machines = world_size() // per_machine
    return ["torchrun", *(["--nnodes", str(machines)] if machines > 1 else []), "--nproc-per-node", str(per_machine)]


def command_line(entry: str) -> list[str]:
    """The words that start this command again, with as many processes: `python -m foundation.<entry>` and what was given."""
    return [*launcher(), "-m", f"foundation.{entry}", *sys.argv[1:]]


def is_main() -> bool:
    """True in the one process that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    any_over_ranks(False)


def sum_over_ranks(tensor: "Tensor") -> "Tensor":
    """The sum over ranks, the same on each, as a new tensor outside the gradient graph; by NCCL on a GPU, by gloo on the host."""
    total = tensor.detach().clone()
    if group := _group():
        group.all_reduce(total, op=group.ReduceOp.SUM)
    return total


def any_over_ranks(flag: bool) -> bool:
    """True on every rank when it is true on one: all of them stop, save or fail together."""
    group = _group()
    if group is None:
        return flag
    import torch

    return bool(sum_over_ranks(torch.tensor(int(flag))).item())


@contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the block, then all others do: it makes the file, they find it. When rank 0 fails, none goes on."""
    if is_main():
        try:
            yield
        except Exception:
            any_over_ranks(True)
            raise
        any_over_ranks(False)
    else:
        if any_over_ranks(False):
            raise UserError(f"rank {rank()} stops because rank 0 failed; the message of rank 0 says why")
        yield
