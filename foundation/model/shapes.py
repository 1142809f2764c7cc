"""Few different shapes: a processor's library compiles and keeps a kernel for each one that it meets.

Letters: T tokens of all rows · D width
"""

import torch.nn.functional as F
from torch import Tensor

# On a GPU products over a number of tokens that the tensor cores' tiles do not divide are slower; shapes cost nothing there.
GPU_TOKEN_MULTIPLE = 128
# token_multiple() is that of so many tokens where there are fewer, and no greater than this.
_LEAST_TOKENS, _GREATEST = 512, 256


def token_multiple(n_tokens: int) -> int:
    """What numbers of rows in a product over tokens are filled up to a multiple of; attention.py says what it costs not to.

    An eighth of the power of two below: eight shapes from one power to the next, and little filler in a step of few tokens.
    """
    return min(1 << (max(n_tokens, _LEAST_TOKENS).bit_length() - 4), _GREATEST)


def filled(hidden_TD: Tensor) -> Tensor:
    """On a CPU zeros at the end, so that T is a multiple; elsewhere the same.

    A linear map of every token without it, of two outputs only, was seen to take 1.7 MB more memory with every step.
    """
    if hidden_TD.device.type != "cpu":
        return hidden_TD
    return F.pad(hidden_TD, (0, 0, 0, -len(hidden_TD) % token_multiple(len(hidden_TD))))
