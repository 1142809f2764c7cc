"""One update of the weights: rate from the schedule, gradient clipping, step, clear."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from foundation.core.errors import UserError
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig, ScheduleConfig
from foundation.train.schedule import multiplier

# So many updates lost one after the other is no accident any more.
MAX_SKIPPED_IN_A_ROW = 5


def is_decayed(module: nn.Module, name: str) -> bool:
    """Weights of linear maps and embeddings are decayed; biases and norms are not."""
    return isinstance(module, nn.Linear | nn.Embedding) and name == "weight"


def _owned_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """(full name, owner, own name, parameter) of every trainable parameter, a shared one once."""
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), owner, name, parameter


def _adamw(named: list[tuple[nn.Parameter, bool]], cfg: AdamWConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p, decayed in named if decayed], "weight_decay": cfg.weight_decay},
        {"params": [p for p, decayed in named if not decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), eps=cfg.eps, fused=True
    )


def build_optimizers(module: nn.Module, cfg: OptimConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a config, each over its share of the trainable parameters."""
    owned = list(_owned_parameters(module))
    if not owned:
        raise UserError("there is nothing to train: every parameter is frozen")
    match cfg:
        case AdamWConfig():
            return [_adamw([(p, is_decayed(owner, name)) for _, owner, name, p in owned], cfg)]
        case MuonConfig():
            inner = {
                id(p)
                for full, owner, _, p in owned
                if isinstance(owner, nn.Linear) and ".layers." in full and p.ndim == 2
            }
            rest = [(p, is_decayed(owner, name)) for _, owner, name, p in owned if id(p) not in inner]
            muon = torch.optim.Muon(
                [p for *_, p in owned if id(p) in inner],
                lr=cfg.muon_lr,
                momentum=cfg.momentum,
                weight_decay=cfg.muon_weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            return [muon, _adamw(rest, cfg.adamw)]
    raise TypeError(f"no optimizer for {type(cfg).__name__}")


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """grad_norm: L2 over all gradients before clipping. skipped: the update was not made, since loss or norm is not finite."""

    grad_norm: float
    lr: float
    skipped: bool


class Updater:
    """Owns the optimizers of a module over a run of total_steps."""

    def __init__(self, module: nn.Module, cfg: OptimConfig, schedule: ScheduleConfig, total_steps: int) -> None:
        self.cfg, self.schedule, self.total_steps = cfg, schedule, total_steps
        self.optimizers = build_optimizers(module, cfg)
        self.names = {id(parameter): name for name, _, _, parameter in _owned_parameters(module)}
        self._parameters = [parameter for *_, parameter in _owned_parameters(module)]
        self._base_lr = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.skipped = 0
        self.skipped_in_a_row = 0

    def update(self, step: int, loss: Tensor) -> UpdateReport:
        """Step on the gradients that lie in the parameters, then clear them.

        Raises UserError when loss or gradients were not finite for MAX_SKIPPED_IN_A_ROW steps in a row.
        """
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        scale = multiplier(step, self.total_steps, self.schedule)
        grad_norm = norm.item()
        is_finite = math.isfinite(grad_norm) and math.isfinite(loss.item())
        if is_finite:
            if self.cfg.clip_norm:
                clip_grads_with_norm_(self._parameters, self.cfg.clip_norm, norm)
            self._step(scale)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        for parameter in self._parameters:
            parameter.grad = None
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"loss or gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, the last of them step {step + 1} "
                f"(loss {loss.item()}, gradient norm {grad_norm}): the weights may hold a NaN, or the learning rate "
                f"{self._base_lr[0][0]:g} is too high; resume from the last checkpoint with a lower one under another name"
            )
        return UpdateReport(grad_norm, self._base_lr[0][0] * scale, not is_finite)

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
        """Put back what state_tensors gave."""
        parameters = {self.names[id(p)]: p for p in self._parameters}
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for full_name, value in tensors.items():
            number, name, key = full_name.split("/")
            if name not in parameters or int(number) >= len(self.optimizers):
                raise UserError(f"the checkpoint's optimizer remembers {name}, which this model does not have")
            self.optimizers[int(number)].state[parameters[name]][key] = value
