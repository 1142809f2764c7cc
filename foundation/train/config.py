"""How to step: optimizers, schedules, and the settings that change speed only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


def _refused(settings: object, room: str, allowed: str, fits: Callable[[float], bool], *names: str) -> list[str]:
    """A sentence for each of the settings that does not fit. fits: says no to nan, as comparisons do."""
    return [
        f"{room}.{name}={getattr(settings, name)} must be {allowed}"
        for name in names
        if not fits(getattr(settings, name))
    ]


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _is_below_1(value: float) -> bool:
    return 0 <= value < 1


def _is_not_negative(value: float) -> bool:
    return 0 <= value < math.inf


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


@dataclass(kw_only=True, slots=True)
class OptimConfig:
    """What all optimizers share: gradients above clip_norm (L2, all parameters together) are scaled down to it; 0 = never."""

    clip_norm: float = 1.0

    def problems(self, room: str = "optim") -> list[str]:
        """What cannot work, one sentence each. room: where these settings are."""
        return _refused(self, room, "at least 0, which never clips", lambda norm: norm >= 0, "clip_norm")


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

    def problems(self, room: str = "optim") -> list[str]:
        """What cannot work, one sentence each. room: where these settings are."""
        # Not super(): a slotted dataclass is made anew, and the bare super() would still mean the old class.
        found = OptimConfig.problems(self, room)
        found += _refused(self, room, "finite and at least 0", _is_not_negative, "lr", "weight_decay")
        found += _refused(self, room, "in [0, 1)", _is_below_1, "beta1", "beta2")
        return found + _refused(self, room, "above 0", _is_positive, "eps")


@dataclass(kw_only=True, slots=True)
class MuonConfig(OptimConfig):
    """Muon (Jordan 2024) for the matrices inside the encoder's layers, AdamW for the rest.

    muon_lr is in AdamW's units: updates are scaled to AdamW's usual root mean square (Liu et al. 2025, eq. 4).
    """

    muon_lr: float
    momentum: float = 0.95
    muon_weight_decay: float = 0.01
    adamw: AdamWConfig

    def problems(self, room: str = "optim") -> list[str]:
        """What cannot work, one sentence each. room: where these settings are."""
        found = OptimConfig.problems(self, room)
        found += _refused(self, room, "finite and at least 0", _is_not_negative, "muon_lr", "muon_weight_decay")
        found += _refused(self, room, "in [0, 1)", _is_below_1, "momentum")
        if self.adamw.clip_norm != OptimConfig().clip_norm:
            found.append(f"{room}.adamw.clip_norm is not read: {room}.clip_norm is that of all gradients together")
        return found + self.adamw.problems(f"{room}.adamw")


class Shape(str, Enum):
    """After warm-up. linear and cosine: down to the end. stable_decay: flat, then linear over the last decay_share."""

    linear = "linear"
    cosine = "cosine"
    stable_decay = "stable_decay"


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate's multiplier over the run; shares are of all steps. final: multiplier at the end. decay_share: of
    stable_decay alone; None: half of the steps.
    """

    shape: Shape
    warmup_share: float = 0.1
    decay_share: float | None = None
    final: float = 0.0

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = _refused(self, "schedule", "in [0, 1]", _is_share, "warmup_share", "final")
        if self.decay_share is None:
            return found
        if self.shape is not Shape.stable_decay:
            return [
                *found,
                f"schedule.decay_share is of stable_decay, and here schedule.shape={self.shape.value}: leave it out",
            ]
        found += _refused(self, "schedule", "in [0, 1]", _is_share, "decay_share")
        # Shares such as 0.9 and 0.1 may be a rounding above 1 together.
        if not found and round(self.warmup_share + self.decay_share, 9) > 1:
            found.append(
                f"schedule.warmup_share={self.warmup_share} and decay_share={self.decay_share} are more than all steps: the rate "
                "would jump between them; lower one, so that they sum to at most 1"
            )
        return found


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

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        return _refused(self, "trainer", "at least 0, which leaves the choice to torch", _is_not_negative, "threads")


@dataclass(kw_only=True, slots=True)
class TrainerConfig(DeviceConfig):
    """May change speed, and not the result beyond rounding; but where there is dropout, its masks: these are drawn for each rank
    and micro-batch, on the device.

    micro_batch_rows: sequences per forward pass on a rank, 0 = all of the rank's rows. compile: torch.compile the parts of a
    step; null: in pretraining on a GPU in bf16, where minutes of steps repay half a minute of compiling. eval_rows: held-out
    sequences per evaluation. eval_every_steps, save_every_steps: 0 = at the end only. keep: so many of the last checkpoints,
    0 = all. profile_steps: to be measured operator by operator, after a warm-up.
    """

    micro_batch_rows: int = 0
    compile: bool | None = None
    eval_every_steps: int = 200
    eval_rows: int = 512
    save_every_steps: int = 200
    keep: int = 2
    profile_steps: int = 0

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = DeviceConfig.problems(self)
        found += _refused(self, "trainer", "at least 0", _is_not_negative, *_NOT_NEGATIVE)
        return found + _refused(self, "trainer", "at least 1", _is_positive, "eval_rows")


_NOT_NEGATIVE = ("micro_batch_rows", "eval_every_steps", "save_every_steps", "keep", "profile_steps")
