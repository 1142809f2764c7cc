"""One update of the weights: rate from the schedule, gradient clipping, step, clear."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from foundation.core.errors import UserError
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig, ScheduleConfig
from foundation.train.muon import Muon
from foundation.train.schedule import multiplier

# Full name, owner, own name, parameter.
Owned: TypeAlias = tuple[str, nn.Module, str, nn.Parameter]
# What a parameter's rate is multiplied by, from its full name.
RateScale: TypeAlias = Callable[[str], float]

# So many updates lost one after the other is no accident any more.
MAX_SKIPPED_IN_A_ROW = 5
# Where the host does not wait for the device, so often it looks whether updates are lost.
LOOK_EVERY = 10
# Of torch.nn.utils.clip_grads_with_norm_.
_CLIP_EPS = 1e-6


def is_decayed(module: nn.Module, name: str) -> bool:
    """Weights of linear maps and embeddings are decayed; biases and norms are not."""
    return isinstance(module, nn.Linear | nn.Embedding) and name == "weight"


def _owned_parameters(module: nn.Module) -> Iterator[Owned]:
    """Every trainable parameter, a shared one once."""
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), owner, name, parameter


def same_rate(name: str) -> float:
    """Every parameter learns at the optimizer's own rate."""
    return 1.0


def _adamw(owned: list[Owned], cfg: AdamWConfig, rate_scale: RateScale) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for full, owner, name, parameter in owned:
        groups.setdefault((is_decayed(owner, name), rate_scale(full)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": cfg.lr * scale, "weight_decay": cfg.weight_decay if decayed else 0.0}
            for (decayed, scale), parameters in groups.items()
        ],
        lr=cfg.lr,
        betas=(cfg.beta1, cfg.beta2),
        eps=cfg.eps,
        fused=True,
    )


def build_optimizers(
    module: nn.Module, cfg: OptimConfig, rate_scale: RateScale = same_rate
) -> list[torch.optim.Optimizer]:
    """The optimizers of a config, each over its share of the trainable parameters."""
    owned = list(_owned_parameters(module))
    if not owned:
        raise UserError("there is nothing to train: every parameter is frozen")
    match cfg:
        case AdamWConfig():
            return [_adamw(owned, cfg, rate_scale)]
        case MuonConfig():
            inner = [item for item in owned if _is_muons(*item)]
            rest = [item for item in owned if not _is_muons(*item)]
            groups: dict[float, list[nn.Parameter]] = {}
            for full, _, _, parameter in inner:
                groups.setdefault(rate_scale(full), []).append(parameter)
            adamw = _adamw(rest, cfg.adamw, rate_scale)
            if not inner:  # all of them are frozen
                return [adamw]
            muon = Muon(
                [{"params": parameters, "lr": cfg.muon_lr * scale} for scale, parameters in groups.items()],
                lr=cfg.muon_lr,
                momentum=cfg.momentum,
                weight_decay=cfg.muon_weight_decay,
            )
            return [muon, adamw]
    raise TypeError(f"no optimizer for {type(cfg).__name__}")


def _is_muons(full: str, owner: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Matrices inside the encoder's layers."""
    return isinstance(owner, nn.Linear) and ".layers." in full and parameter.ndim == 2


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """norm: 0-dim, L2 over all gradients before clipping. lr: the first optimizer's, of the parameters with the highest.

    skipped: the update was not made, since loss or norm is not finite. On a GPU nobody knows that yet: False.
    """

    norm: Tensor
    lr: float
    skipped: bool = False

    @property
    def grad_norm(self) -> float:
        """On a GPU, the host waits until it is there."""
        return float(self.norm)


class Updater:
    """Owns the optimizers of a module over a run of total_steps.

    waits: know before each step whether loss and gradients are finite, and how large. A GPU would stand still meanwhile: there,
    clipping and skipping are left to the device, and the host looks every LOOK_EVERY steps.
    """

    def __init__(
        self,
        module: nn.Module,
        cfg: OptimConfig,
        schedule: ScheduleConfig,
        total_steps: int,
        rate_scale: RateScale = same_rate,
    ) -> None:
        self.cfg, self.schedule, self.total_steps = cfg, schedule, total_steps
        self.optimizers = build_optimizers(module, cfg, rate_scale)
        self.names = {id(parameter): name for name, _, _, parameter in _owned_parameters(module)}
        self._parameters = [parameter for *_, parameter in _owned_parameters(module)]
        self._base_lr = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        device = self._parameters[0].device
        self.waits = device.type != "cuda"
        self._skipped = torch.zeros(2, dtype=torch.int64, device=device)  # in all; one after the other, up to now
        self._forgets = torch.tensor([1, 0], device=device)

    @property
    def skipped(self) -> tuple[int, int]:
        """Updates that were not made: in all, and in a row up to now."""
        total, in_a_row = self._skipped.tolist()
        return total, in_a_row

    @skipped.setter
    def skipped(self, counts: Sequence[int]) -> None:
        self._skipped.copy_(torch.tensor(counts))

    def update(self, step: int, loss: Tensor) -> UpdateReport:
        """Step on the gradients that lie in the parameters, then clear them.

        Raises UserError when loss or gradients were not finite for MAX_SKIPPED_IN_A_ROW steps in a row.
        """
        norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        lost = ~(norm.isfinite() & loss.isfinite())
        self._skipped = torch.where(lost, self._skipped + 1, self._skipped * self._forgets)
        scale = multiplier(step, self.total_steps, self.schedule)
        waits = self.waits or norm.dtype is torch.float64  # torch's take float32 factors only
        is_lost = bool(lost) if waits else False
        if not waits:
            self._step_unseen(scale, norm, lost)
        elif not is_lost:
            # The comparison is torch's own; below it the factor is exactly 1, and a pass over all gradients is saved.
            if self.cfg.clip_norm and float(norm) + _CLIP_EPS > self.cfg.clip_norm:
                clip_grads_with_norm_(self._parameters, self.cfg.clip_norm, norm)
            self._step(scale)
        for parameter in self._parameters:
            parameter.grad = None
        if is_lost or (not waits and (step + 1) % LOOK_EVERY == 0):
            self._raise_if_stuck(step, loss, norm)
        return UpdateReport(norm, max(self._base_lr[0]) * scale, is_lost)

    def _raise_if_stuck(self, step: int, loss: Tensor, norm: Tensor) -> None:
        if self.skipped[1] >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"loss or gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, the last of them step {step + 1} "
                f"(loss {float(loss)}, gradient norm {float(norm)}): the weights may hold a NaN, or the learning rate "
                f"{self._base_lr[0][0]:g} is too high: start with a lower one under another name="
            )

    def _step_unseen(self, scale: float, norm: Tensor, lost: Tensor) -> None:
        """Optimizers divide the gradients by grad_scale and leave everything as it is where found_inf is 1, as torch's do that
        work with a GradScaler."""
        for optimizer in self.optimizers:
            optimizer.found_inf = lost.float()  # type: ignore[attr-defined]
            # Never None, which only some of them take; the factor is clip_grads_with_norm_'s.
            too_large = (norm + _CLIP_EPS) / self.cfg.clip_norm if self.cfg.clip_norm else torch.ones_like(norm)
            optimizer.grad_scale = too_large.clamp(min=1.0).float()  # type: ignore[attr-defined]
        self._step(scale)

    def _step(self, scale: float) -> None:
        for optimizer, base in zip(self.optimizers, self._base_lr, strict=True):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * scale
            optimizer.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything the optimizers remember, as `number of optimizer/parameter name/key`."""
        return {
            f"{number}/{self.names[id(parameter)]}/{key}": value
            for number, optimizer in enumerate(self.optimizers)
            for parameter, kept in optimizer.state.items()
            for key, value in kept.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what state_tensors gave, in the parameters' precision: a resumed run may have another."""
        parameters = {self.names[id(p)]: p for p in self._parameters}
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for full_name, value in tensors.items():
            number, name, key = full_name.split("/")
            if name not in parameters or int(number) >= len(self.optimizers):
                raise UserError(f"the checkpoint's optimizer remembers {name}, which this model does not have")
            parameter = parameters[name]
            # AdamW counts its steps in float32, whatever the weights are in.
            dtype = value.dtype if key == "step" else parameter.dtype
            self.optimizers[int(number)].state[parameter][key] = value.to(parameter.device, dtype)
