"""Fused passes for a CPU in bfloat16, written in C (compiled.py), held to the plain ones by test.

Between two matrix products torch runs one pass over memory for each operation; here it is one for all of them. Without a C
compiler, in another type or on another device, the plain operations run instead: the same arithmetic, rounded more often.

Letters: T tokens of all rows · D width · N heads · H head width · F feed-forward width · M targets · V vocabulary
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from foundation.model.compiled import compiled
from foundation.model.dropout import dropout as drop

if TYPE_CHECKING:
    from foundation.model.attention import Layout
    from foundation.model.rotary import Rotation

_MAX_LENGTH = 1024  # of rows: beyond it, torch's attention that never holds all scores is the better one
# Turned off by `plain`, for tests and for a comparison.
_enabled = True


class plain:
    """Inside the block, the plain operations run."""

    def __enter__(self) -> None:
        global _enabled
        self._before, _enabled = _enabled, False

    def __exit__(self, *_: object) -> None:
        global _enabled
        _enabled = self._before


@dataclass(frozen=True, slots=True)
class Passes:
    """What a run's record says of the path it took. why: the reason for the plain one."""

    fused: bool
    why: str = ""

    def __str__(self) -> str:
        return "fused passes" if self.fused else "plain passes"


def passes(device: torch.device, *, bf16: bool) -> Passes:
    """Which passes a computation on this device takes; compiles them if need be, before anybody waits for the first step."""
    if device.type != "cpu" or not bf16:
        return Passes(False, "the fused ones are for bf16 on a CPU")
    if not _enabled:
        return Passes(False, "turned off")
    return Passes(compiled().library is not None, compiled().problem)


def applies_to(tensor: Tensor) -> bool:
    """Whether the fused passes take this tensor."""
    return (
        _enabled and tensor.dtype is torch.bfloat16 and tensor.device.type == "cpu" and compiled().library is not None
    )


def _call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel: tensors by address, whole numbers as int64, others as float; the number of threads comes last."""
    converted: list[Any] = []
    for argument in arguments:
        if argument is None or isinstance(argument, Tensor):
            assert argument is None or argument.is_contiguous()
            converted.append(ctypes.c_void_p(None if argument is None else argument.data_ptr()))
        else:
            converted.append(ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int64(argument))
    library = compiled().library
    assert library is not None
    getattr(library, name)(*converted, ctypes.c_int64(torch.get_num_threads()))


class _Drop(NamedTuple):
    """Dropout as the kernels take it: a hash of seed and index decides, so that nothing need be kept. below: of 2³²; 0: none."""

    seed: int
    below: int
    keep_scale: float


def _drawn(dropout: float) -> _Drop:
    """For one pass: its seed comes from torch's generator, as all of a step's chance does."""
    below = min(round(dropout * 2**32), 2**32 - 1)
    return _Drop(int(torch.randint(2**31, ())) if below else 0, below, 1 / (1 - dropout))


class _GeGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner_TF: Tensor) -> Tensor:
        inner_TF = inner_TF.contiguous()
        ctx.save_for_backward(inner_TF)
        out = inner_TF.new_empty(len(inner_TF), inner_TF.shape[1] // 2)
        _call("geglu_forward", inner_TF, out, *out.shape)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Tensor:
        (inner_TF,) = ctx.saved_tensors
        grad_inner = torch.empty_like(inner_TF)
        _call("geglu_backward", inner_TF, grad_out.contiguous(), grad_inner, *grad_out.shape)
        return grad_inner


def geglu(inner_TF: Tensor) -> Tensor:
    """gelu(signal) ∘ gate of (T, 2F), in (T, F)."""
    if not applies_to(inner_TF):
        signal, gate = inner_TF.chunk(2, dim=-1)
        return torch.nn.functional.gelu(signal) * gate
    out: Tensor = _GeGLU.apply(inner_TF)  # type: ignore[no-untyped-call]
    return out


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inner: Tensor) -> Tensor:
        inner = inner.contiguous()
        ctx.save_for_backward(inner)
        out = torch.empty_like(inner)
        _call("gelu_forward", inner, out, inner.numel())
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Tensor:
        (inner,) = ctx.saved_tensors
        grad_inner = torch.empty_like(inner)
        _call("gelu_backward", inner, grad_out.contiguous(), grad_inner, inner.numel())
        return grad_inner


def gelu(inner: Tensor) -> Tensor:
    """x·Φ(x) (Hendrycks & Gimpel 2016), the exact one, of any shape; the plain operation where the fused pass does not apply."""
    if not applies_to(inner):
        return torch.nn.functional.gelu(inner)
    out: Tensor = _GELU.apply(inner)  # type: ignore[no-untyped-call]
    return out


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, dropout: float
    ) -> tuple[Tensor, Tensor]:
        stream, branch = stream.contiguous(), None if branch is None else branch.contiguous()
        total, normed = stream if branch is None else torch.empty_like(stream), torch.empty_like(stream)
        means, inverses = torch.empty(2, len(stream)).unbind()
        ctx.drop = _drawn(0.0 if branch is None else dropout)
        sizes = (*stream.shape, eps, *ctx.drop)
        _call("norm_forward", stream, branch, weight, bias, total, normed, means, inverses, *sizes)
        ctx.save_for_backward(total, weight, means, inverses)
        ctx.has_branch, ctx.has_bias = branch is not None, bias is not None
        ctx.set_materialize_grads(False)
        return (total.view_as(total) if branch is None else total), normed

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor | None, grad_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, means, inverses = ctx.saved_tensors
        if grad_normed is None and not ctx.drop.below:
            return grad_sum, grad_sum if ctx.has_branch else None, None, None, None, None
        grad_normed = torch.zeros_like(total) if grad_normed is None else grad_normed
        threads = torch.get_num_threads()
        grad, grad_weight = torch.empty_like(total), weight.new_zeros(threads, len(weight))
        grad_bias = torch.zeros_like(grad_weight) if ctx.has_bias else None
        passed = None if grad_sum is None else grad_sum.contiguous()
        into_branch = torch.empty_like(grad) if ctx.drop.below else None
        into = (grad_normed.contiguous(), passed, grad, into_branch, grad_weight, grad_bias)
        _call("norm_backward", total, weight, means, inverses, *into, *total.shape, *ctx.drop)
        if into_branch is None and ctx.has_branch:
            into_branch = grad
        return grad, into_branch, grad_weight.sum(0), None if grad_bias is None else grad_bias.sum(0), None, None


def sum_and_norm(
    stream_TD: Tensor, branch_TD: Tensor | None, norm: torch.nn.LayerNorm, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """stream + dropout(branch), and its layer normalisation, (T, D) each; plain operations where the pass does not apply."""
    takes = applies_to(stream_TD) and (branch_TD is None or branch_TD.dtype is stream_TD.dtype)
    if takes and stream_TD.ndim == 2 and norm.weight.dtype is torch.float32:
        settings = norm.weight, norm.bias, norm.eps, dropout
        total, normed = _Norm.apply(stream_TD, branch_TD, *settings)  # type: ignore[no-untyped-call]
        return (stream_TD if branch_TD is None else total), normed
    total = stream_TD if branch_TD is None else stream_TD + drop(branch_TD, dropout)
    normed = torch.nn.functional.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    # On a GPU autocast norms in float32, and would leave the stream behind it twice as wide.
    return total, normed.to(total.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_T3NH: Tensor, layout: "Layout", window: int, dropout: float, turn: "Rotation | None"
    ) -> Tensor:
        tokens, _, heads, width = qkv_T3NH.shape
        out = qkv_T3NH.new_empty(tokens, heads, width)
        scale, half_window = width**-0.5, window // 2 if window else _MAX_LENGTH
        seed, drop_below, keep_scale = ctx.drop = _drawn(dropout)
        cos, sin = (None, None) if turn is None else (turn.cos, turn.sin)
        ctx.kept = []
        for number, group in enumerate(layout.groups):
            shape = (group.real_RL.shape[0], heads, group.real_RL.shape[1], width)
            packed = qkv_T3NH.new_empty(3, *shape)
            _call("pack", qkv_T3NH, cos, sin, group.starts, group.lengths, packed, *shape, scale)
            shares = packed[0] @ packed[1].transpose(-1, -2)
            dropped = torch.empty_like(shares) if drop_below else None
            sizes = (*shape[:3], half_window, seed + number, drop_below, keep_scale)
            _call("softmax_forward", shares, dropped, group.lengths, *sizes)
            mixed = (shares if dropped is None else dropped) @ packed[2]
            _call("merge", mixed, group.starts, group.lengths, out, *shape)
            ctx.kept.append((packed, shares, dropped))
        ctx.layout, ctx.turn, ctx.shape, ctx.scale = layout, (cos, sin), qkv_T3NH.shape, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None, None, None]:
        grad_out = grad_out.contiguous()
        grad_qkv = grad_out.new_empty(ctx.shape)
        seed, drop_below, keep_scale = ctx.drop
        for number, (group, (packed, shares, dropped)) in enumerate(zip(ctx.layout.groups, ctx.kept, strict=True)):
            shape = packed.shape[1:]
            grad_mixed = torch.empty_like(packed[0])
            _call("spread", grad_out, group.starts, group.lengths, grad_mixed, *shape)
            grad_v = (shares if dropped is None else dropped).transpose(-1, -2) @ grad_mixed
            grad_scores = grad_mixed @ packed[2].transpose(-1, -2)
            _call("softmax_backward", shares, grad_scores, *shape[:3], seed + number, drop_below, keep_scale)
            grad_q, grad_k = grad_scores @ packed[1], grad_scores.transpose(-1, -2) @ packed[0]
            grads = (grad_q, grad_k, grad_v)
            _call("unpack", *grads, *ctx.turn, group.starts, group.lengths, grad_qkv, *shape, ctx.scale)
        ctx.kept = []
        return grad_qkv, None, None, None, None


def attention_applies_to(qkv_T3NH: Tensor, layout: "Layout") -> bool:
    """Whether attend() takes these: everyone sees everyone, or a window, in rows that are not too long."""
    return applies_to(qkv_T3NH) and layout.is_bidirectional and layout.longest <= _MAX_LENGTH


def attend(qkv_T3NH: Tensor, layout: "Layout", window: int, dropout: float, turn: "Rotation | None") -> Tensor:
    """softmax(q·k / √H)·v inside each row, q and k turned first: (T, N, H)."""
    out: Tensor = _Attention.apply(qkv_T3NH.contiguous(), layout, window, dropout, turn)  # type: ignore[no-untyped-call]
    return out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, bias_V: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        logits_MV, bias_V = logits_MV.contiguous(), bias_V.float()
        losses, log_sums = torch.empty(2, len(logits_MV)).unbind()
        _call("cross_entropy_forward", logits_MV, bias_V, targets_M, losses, log_sums, *logits_MV.shape)
        ctx.save_for_backward(logits_MV, bias_V, targets_M, log_sums)
        ctx.set_materialize_grads(False)
        return losses.double().sum().float(), log_sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_log_sums: Tensor | None) -> tuple[Tensor, Tensor, None]:
        # The logits become their gradients: a vocabulary's worth of numbers a target is the largest tensor of a step.
        logits_MV, bias_V, targets_M, log_sums = ctx.saved_tensors
        grad_bias = bias_V.new_zeros(torch.get_num_threads(), len(bias_V))
        grad_log_sums = None if grad_log_sums is None else grad_log_sums.contiguous()
        kept, scale = (logits_MV, bias_V, targets_M, log_sums), 0.0 if grad is None else float(grad)
        _call("cross_entropy_backward", *kept, grad_log_sums, scale, grad_bias, *logits_MV.shape)
        return logits_MV, grad_bias.sum(0), None


def summed_cross_entropy(logits_MV: Tensor, bias_V: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """Σ −ln softmax(logits + bias)[target] in nats, and of each target the log of what softmax divides by, (M,), float32.

    Negative targets count nothing, and nothing goes back through their log sums. Uses the logits up: once only.
    """
    found: tuple[Tensor, Tensor] = _CrossEntropy.apply(logits_MV, bias_V, targets_M)  # type: ignore[no-untyped-call]
    return found
