"""How many rows each step has, where a run begins with few (Smith et al. 2018; McCandlish et al. 2018)."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowRamp:
    """From `first` rows in a straight line to `last`, over `steps` steps; then `last`. Pure functions of the step."""

    first: int
    last: int
    steps: int
    _until: NDArray[np.int64] = field(init=False, repr=False, compare=False)  # rows of the first 0, 1, …, steps steps

    def __post_init__(self) -> None:
        share = np.arange(self.steps) / max(1, self.steps)
        on_the_way = np.rint(self.first + (self.last - self.first) * share).astype(np.int64)
        object.__setattr__(self, "_until", np.concatenate([[0], on_the_way.cumsum()]))

    def before(self, step: int) -> int:
        """Rows of all earlier steps."""
        return int(self._until[min(step, self.steps)]) + self.last * max(0, step - self.steps)

    def rows(self, step: int) -> int:
        """Rows of this step."""
        return self.before(step + 1) - self.before(step)
