"""Few different shapes: a processor's library compiles and keeps a kernel for each one that it meets.

Letters: T tokens of all rows · D width
"""

import torch.nn.functional as F
from torch import Tensor

# Numbers of rows in a product over tokens are filled up to a multiple of this; attention.py says what it costs not to.
TOKEN_MULTIPLE = 256


def filled(hidden_TD: Tensor) -> Tensor:
    """On a CPU zeros at the end, so that T is a multiple; elsewhere the same.

    A linear map of every token without it, of two outputs only, was seen to take 1.7 MB more memory with every step.
    """
    if hidden_TD.device.type != "cpu":
        return hidden_TD
    return F.pad(hidden_TD, (0, 0, 0, -len(hidden_TD) % TOKEN_MULTIPLE))
