"""Weights that are the same bytes are held once, whoever saved them: what tasks share is found out, not believed."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from foundation.model.row_memory import RememberingEncoder
from foundation.task.finetuned import FineTuned
from foundation.train.checkpoint import weights_fingerprint


def hold_once(modules: Sequence[nn.Module]) -> None:
    """Of parameters with the same content, let every module use the first; the memory of the others is freed."""
    first: dict[str, nn.Parameter] = {}
    for module in modules:
        for owner in module.modules():
            for name, parameter in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
                setattr(owner, name, first.setdefault(weights_fingerprint({"": parameter}), parameter))


def share_encoders(models: Sequence[FineTuned]) -> list[RememberingEncoder]:
    """Give models whose encoders have the same parameters at the same places one encoder in common; returns each model's.

    Call hold_once first: parameters are compared by identity.
    """
    known: dict[tuple[object, ...], RememberingEncoder] = {}
    encoders = []
    for model in models:
        encoder = model.objective.encoder
        weights = tuple((name, id(weight)) for name, weight in encoder.named_parameters(remove_duplicate=False))
        # Attention's windows and angles are no parameters; dropout does nothing here.
        key = (str(replace(encoder.cfg, dropout=0.0, attention_dropout=0.0)), weights)
        encoders.append(known.setdefault(key, RememberingEncoder(encoder.eval())))
        model.objective.encoder = encoders[-1]
    return encoders
