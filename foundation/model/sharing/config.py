"""The ways of sharing an encoder between tasks, and what each can be told."""

from dataclasses import dataclass
from enum import Enum


class SharingMethod(str, Enum):
    """What a task may change.

    full: every weight. probe: none. bitfit: biases. lora: low-rank terms beside the matrices. adapter: bottlenecks behind
    them. prefix: vectors that every layer attends to. top_k: the last layers. multitask: every weight, for all tasks at once.
    """

    full = "full"
    probe = "probe"
    bitfit = "bitfit"
    lora = "lora"
    adapter = "adapter"
    prefix = "prefix"
    top_k = "top_k"
    multitask = "multitask"


class Matrix(str, Enum):
    """The linear maps of a layer, by the names they have there."""

    qkv = "attention.qkv"
    attention_out = "attention.out"
    into = "feed_forward.into"
    out = "feed_forward.out"


@dataclass(kw_only=True, slots=True)
class SharingConfig:
    """full, probe, bitfit have no settings of their own; the other methods have a subclass.

    lr_scale: the optimizer's rates are multiplied by it. Few parameters take larger steps than all of them.
    """

    method: SharingMethod
    lr_scale: float = 1.0

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = [] if self.lr_scale > 0 else [f"sharing.lr_scale={self.lr_scale} must be above 0"]
        if type(self) is not KINDS.get(self.method, SharingConfig):
            name = self.method.value
            found.append(f"sharing.method={name} comes with settings of its own: choose it as sharing={name}")
        for name in ("rank", "width", "length", "layers"):
            if getattr(self, name, 1) < 1:
                found.append(f"sharing.{name}={getattr(self, name)} must be at least 1")
        return found


@dataclass(kw_only=True, slots=True)
class LoraConfig(SharingConfig):
    """W·x + (alpha / rank)·B·A·x, with A (rank, in) and B (out, rank) trained and W not (Hu et al. 2021, 4.1)."""

    method: SharingMethod = SharingMethod.lora
    rank: int = 8
    alpha: float = 16.0
    matrices: list[Matrix]

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        # Not super(): a slotted dataclass is made anew, and the bare super() would still mean the old class.
        found = SharingConfig.problems(self)
        if not self.matrices or len(set(self.matrices)) < len(self.matrices):
            known = ", ".join(matrix.name for matrix in Matrix)
            found.append(f"sharing.matrices must name some of {known}, each once")
        return found


class AdapterPlace(str, Enum):
    """both: behind attention and feed-forward (Houlsby et al. 2019). feed_forward: behind that only (Pfeiffer et al. 2021)."""

    both = "both"
    feed_forward = "feed_forward"


@dataclass(kw_only=True, slots=True)
class AdapterConfig(SharingConfig):
    """h + up(gelu(down(h))), down to `width` (Houlsby et al. 2019, 2.1)."""

    method: SharingMethod = SharingMethod.adapter
    width: int = 32
    place: AdapterPlace = AdapterPlace.both


@dataclass(kw_only=True, slots=True)
class PrefixConfig(SharingConfig):
    """`length` keys and values a layer, seen by every token of every row (Li & Liang 2021, 4)."""

    method: SharingMethod = SharingMethod.prefix
    length: int = 16


@dataclass(kw_only=True, slots=True)
class TopLayersConfig(SharingConfig):
    """The last `layers` layers, and the norm behind them where there is one."""

    method: SharingMethod = SharingMethod.top_k
    layers: int = 1


class Sampler(str, Enum):
    """Whose batch a step has: every task as often; by rows; by rows to the power of 1/temperature (Raffel et al. 2020, 3.5.2)."""

    uniform = "uniform"
    proportional = "proportional"
    temperature = "temperature"


@dataclass(kw_only=True, slots=True)
class MultitaskConfig(SharingConfig):
    """One encoder and a head a task, trained together; a step has rows of one task (Liu et al. 2019, MT-DNN, algorithm 1)."""

    method: SharingMethod = SharingMethod.multitask
    sampler: Sampler = Sampler.temperature
    temperature: float = 2.0

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = SharingConfig.problems(self)
        if self.temperature < 1:
            found.append(f"sharing.temperature={self.temperature} must be at least 1 (proportional)")
        return found


KINDS: dict[SharingMethod, type[SharingConfig]] = {
    SharingMethod.lora: LoraConfig,
    SharingMethod.adapter: AdapterConfig,
    SharingMethod.prefix: PrefixConfig,
    SharingMethod.top_k: TopLayersConfig,
    SharingMethod.multitask: MultitaskConfig,
}
