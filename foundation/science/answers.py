"""The answers of models of one kind to one task: what every measure takes.

Letters: N items · M models · K labels
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.science.design import Design
from foundation.science.inference import item_blocks

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """The answers of comparable models to the same items. n_labels: 0 for a task whose labels are numbers.

    gold_N, predicted_MN: class numbers, or values. probabilities_MNK: after temperature scaling, or None.
    cluster_N: items of one cluster, such as the words of a sentence, are left out together; None: every item is its own.
    """

    gold_N: NDArray[np.float64]
    predicted_MN: NDArray[np.float64]
    n_labels: int
    design: Design
    probabilities_MNK: Floats | None = None
    cluster_N: Ints | None = None

    @cached_property
    def failed_MN(self) -> Bools:
        """Whether a model is wrong on an item."""
        return np.asarray(self.predicted_MN != self.gold_N)

    @cached_property
    def blocks_N(self) -> Ints:
        """The same for every set of models on these items, so that their figures can be subtracted."""
        if self.cluster_N is None:
            return item_blocks(len(self.gold_N))
        return item_blocks(int(self.cluster_N.max()) + 1)[self.cluster_N]
