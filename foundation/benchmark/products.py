"""How fast this machine multiplies matrices: the rate that every step is held against."""

from dataclasses import dataclass

from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.train.config import Precision

# Of the large square product. Large enough for the best rate, small enough for a CPU to do several a second.
_CPU_SIDE, _GPU_SIDE = 2048, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Products(Contender):
    """Square products in one precision; amount: operations, a multiplication and an addition counting two."""

    precision: Precision

    def build(self, setup: Setup) -> Work:
        """Two random matrices and their product."""
        import torch

        side = _GPU_SIDE if setup.device.startswith("cuda") else _CPU_SIDE
        kind = torch.bfloat16 if self.precision is Precision.bf16 else torch.float32
        left, right = (torch.randn(side, side, device=setup.device).to(kind) for _ in range(2))
        out = torch.empty(side, side, device=setup.device, dtype=kind)

        def work() -> Done:
            torch.matmul(left, right, out=out)
            return Done(2.0 * side**3)

        return work
