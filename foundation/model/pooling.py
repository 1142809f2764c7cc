"""One vector a row from its tokens'.

Letters: T tokens of all rows · R rows · D width
"""

import torch
from torch import Tensor


def mean_of_rows(hidden_TD: Tensor, lengths_R: Tensor) -> Tensor:
    """(T, D) -> (R, D), taken in float32 or wider: bfloat16 would lose it over a long row."""
    wide_TD = hidden_TD if hidden_TD.dtype is torch.float64 else hidden_TD.float()
    # unsafe: lengths are not looked at first, for which a GPU would make its host wait; they are the batch's own, and add up.
    return torch.segment_reduce(wide_TD, "mean", lengths=lengths_R, axis=0, unsafe=True)
