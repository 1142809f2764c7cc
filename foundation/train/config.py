"""How to step: optimizers, schedules, and the settings that change speed only."""

from dataclasses import dataclass
from enum import Enum


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """What all optimizers share: gradients above clip_norm (L2, all parameters together) are scaled down to it; 0 = never."""

    clip_norm: float = 1.0


@dataclass(kw_only=True, slots=True)
class AdamWConfig(OptimConfig):
    """AdamW (Loshchilov & Hutter 2019), bias-corrected.

    Biases and norms are not decayed: so in Google's released optimization.py; the paper does not say.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01


@dataclass(kw_only=True, slots=True)
class MuonConfig(OptimConfig):
    """Muon (Jordan 2024) for the matrices inside the encoder's layers, AdamW for the rest.

    muon_lr is in AdamW's units: updates are scaled to AdamW's usual root mean square (Liu et al. 2025, eq. 4).
    """

    muon_lr: float
    momentum: float = 0.95
    muon_weight_decay: float = 0.01
    adamw: AdamWConfig


class Shape(str, Enum):
    """After warm-up. linear and cosine: down to the end. stable_decay: flat, then linear over the last decay_share."""

    linear = "linear"
    cosine = "cosine"
    stable_decay = "stable_decay"


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate's multiplier over the run; shares are of all steps. final: multiplier at the end."""

    shape: Shape
    warmup_share: float = 0.1
    decay_share: float = 0.5
    final: float = 0.0


class Precision(str, Enum):
    """Of products and activations; weights and optimizer stay in float32, but for fp64, which is everything in float64.

    fp64 is slow, and for comparisons: two ways of computing one run can be told apart from rounding in it.
    """

    fp32 = "fp32"
    bf16 = "bf16"
    fp64 = "fp64"


@dataclass(kw_only=True, slots=True)
class DeviceConfig:
    """Where and how exactly a model computes. device: auto (cuda where there is one), cpu, or cuda. threads: of the CPU, 0 =
    torch's choice.
    """

    device: str = "auto"
    precision: Precision = Precision.fp32
    threads: int = 0


@dataclass(kw_only=True, slots=True)
class TrainerConfig(DeviceConfig):
    """May change speed, never the result beyond rounding.

    micro_batch_rows: sequences per forward pass on a rank, 0 = all of the rank's rows. compile: torch.compile the parts of a
    step; null: in pretraining on a GPU in bf16, where minutes of steps repay half a minute of compiling. eval_rows: held-out
    sequences per evaluation. keep: checkpoints. profile_steps: to be measured operator by operator, after a warm-up.
    """

    micro_batch_rows: int = 0
    compile: bool | None = None
    eval_every_steps: int = 200
    eval_rows: int = 512
    save_every_steps: int = 200
    keep: int = 2
    profile_steps: int = 0
