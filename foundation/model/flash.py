"""Attention on a GPU over rows laid end to end: torch's build of FlashAttention-2 (Dao 2023), which needs no padding.

Letters: T tokens of all rows · R rows · N heads · H head width
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from foundation.model.attention import Layout
    from foundation.model.rotary import Rotation

# Its kernels are for NVIDIA's compute capability 8.0 and later, and for heads of these widths.
_LEAST_CAPABILITY = (8, 0)
_WIDTH_MULTIPLE, _GREATEST_WIDTH = 8, 256
# Its word for "no limit on this side".
_UNLIMITED = -1


def is_there(device: torch.device) -> bool:
    """Whether this device has the kernels."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def applies_to(qkv_T3NH: Tensor, layout: "Layout") -> bool:
    """Whether attend() takes these: two-byte numbers on a GPU that has the kernels, and everyone sees everyone, or a window."""
    width = qkv_T3NH.shape[-1]
    is_narrow = qkv_T3NH.dtype in (torch.bfloat16, torch.float16)
    return layout.has_flash and is_narrow and width % _WIDTH_MULTIPLE == 0 and width <= _GREATEST_WIDTH


def attend(qkv_T3NH: Tensor, layout: "Layout", window: int, dropout: float, turn: "Rotation | None") -> Tensor:
    """softmax(q·k / √H)·v inside each row, q and k turned first: (T, N, H). window: tokens in sight around a token, itself among
    them; 0: all."""
    q_TNH, k_TNH, v_TNH = qkv_T3NH.unbind(1)
    if turn is not None:
        q_TNH, k_TNH = turn.of_one(q_TNH), turn.of_one(k_TNH)
    half = window // 2 if window else _UNLIMITED
    return varlen(q_TNH, k_TNH, v_TNH, layout.starts, layout.longest, dropout, half)


def varlen(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, starts: Tensor, longest: int, dropout: float, half: int
) -> Tensor:
    """starts: (R + 1,) int32, where rows begin, and T. longest: tokens of the longest row. half: tokens seen on each side.

    The operator that torch's own attention calls; its public form, torch.nn.attention.varlen, has no dropout.
    """
    out_TNH: Tensor = torch.ops.aten._flash_attention_forward(
        q_TNH, k_TNH, v_TNH, starts, starts, longest, longest, dropout, False, False,
        window_size_left=half, window_size_right=half,
    )[0]  # fmt: skip
    return out_TNH
