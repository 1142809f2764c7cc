"""From a method's settings to an encoder that is shared so."""

from collections.abc import Callable

import torch
from torch import nn

from foundation.core.errors import UserError
from foundation.core.plain import from_plain
from foundation.model.attention import Attention
from foundation.model.config import ShareLayers
from foundation.model.encoder import Encoder
from foundation.model.sharing.adapter import AdaptedLinear
from foundation.model.sharing.config import (
    KINDS,
    AdapterConfig,
    AdapterPlace,
    LoraConfig,
    Matrix,
    PrefixConfig,
    SharingConfig,
    SharingMethod,
    TopLayersConfig,
)
from foundation.model.sharing.frozen import FrozenEncoder
from foundation.model.sharing.lora import LoraLinear


def sharing_from_plain(content: dict[str, object], source: str) -> SharingConfig:
    """Settings as to_plain gave them. Raises UserError, naming `source`, where they are of no method."""
    names = [member.value for member in SharingMethod]
    if content.get("method") not in names:
        raise UserError(f"{source}: sharing method {content.get('method')!r} is none of {', '.join(names)}")
    return from_plain(KINDS.get(SharingMethod(content["method"]), SharingConfig), content, source)


def share(encoder: Encoder, cfg: SharingConfig) -> Encoder:
    """The encoder with what the method adds, and only what the task may change left trainable.

    Parameters that were there keep their names and values, and at first the encoder computes what it did (with `prefix`:
    nearly). What is added is random: call under a fixed torch seed.
    """
    if cfg.method in (SharingMethod.full, SharingMethod.multitask):
        return encoder
    encoder.requires_grad_(False)
    match cfg:
        case LoraConfig():
            _replace(encoder, cfg.matrices, lambda base: LoraLinear(base, cfg.rank, cfg.alpha))
            _train(encoder, LoraLinear, ("down", "up"))
        case AdapterConfig():
            places = [Matrix.attention_out, Matrix.out] if cfg.place is AdapterPlace.both else [Matrix.out]
            _replace(encoder, places, lambda base: AdaptedLinear(base, cfg.width))
            _train(encoder, AdaptedLinear, ("adapter",))
        case PrefixConfig():
            _add_prefixes(encoder, cfg.length)
        case TopLayersConfig():
            _train_top_layers(encoder, cfg.layers)
        case SharingConfig(method=SharingMethod.bitfit):
            _train_biases(encoder)
        case _:
            return FrozenEncoder(encoder)
    return encoder


def _replace(encoder: Encoder, matrices: list[Matrix], wrap: Callable[[nn.Linear], nn.Linear]) -> None:
    # A part that layers have in common is one owner, once.
    for matrix in matrices:
        room, _, name = matrix.value.partition(".")
        for owner in dict.fromkeys(layer.get_submodule(room) for layer in encoder.layers):
            base = owner.get_submodule(name)
            assert isinstance(base, nn.Linear)
            setattr(owner, name, wrap(base))


def _train(encoder: Encoder, kind: type[nn.Module], parts: tuple[str, ...]) -> None:
    for module in encoder.modules():
        if isinstance(module, kind):
            for part in parts:
                module.get_submodule(part).requires_grad_(True)


def _add_prefixes(encoder: Encoder, length: int) -> None:
    """Keys and values are drawn as small as weights are; the paper's re-parametrisation by a network is left out."""
    for module in encoder.modules():
        if isinstance(module, Attention):
            width = module.qkv.in_features
            drawn = torch.randn(2, length, module.heads, width // module.heads) * encoder.cfg.init_std
            module.prefix = nn.Parameter(drawn.to(module.qkv.weight))


def _train_top_layers(encoder: Encoder, n_layers: int) -> None:
    refuse_shared_layers(encoder, "sharing=top_k")
    if n_layers > len(encoder.layers):
        raise UserError(
            f"sharing.layers={n_layers} are more than the encoder's {len(encoder.layers)}: choose fewer, or sharing=full"
        )
    for layer in encoder.layers[-n_layers:]:
        layer.requires_grad_(True)
    encoder.final_norm.requires_grad_(True)


def _train_biases(encoder: Encoder) -> None:
    """All bias terms (Ben Zaken et al. 2022, 3). A family without them (`modern`) is given some that start at zero.

    The paper has BERTs, whose every matrix and norm has a bias. To train norms' factors instead would be another method.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            if module.bias is None:
                module.bias = nn.Parameter(torch.zeros(len(module.weight)).to(module.weight))
            module.bias.requires_grad_(True)


def refuse_shared_layers(encoder: Encoder, setting: str) -> None:
    """Raise UserError where a setting means some layers and the model has the same weights in all of them."""
    if encoder.cfg.share_layers is not ShareLayers.none:
        raise UserError(
            f"{setting} is about some layers, and this foundation has weights that are all layers' "
            f"(model.share_layers={encoder.cfg.share_layers.value}): leave it out"
        )
