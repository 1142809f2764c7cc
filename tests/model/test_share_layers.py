"""Cross-layer sharing: one set of weights, named, saved, stepped and counted once; the arithmetic of all layers."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.core.errors import UserError
from foundation.model.attention import Layout
from foundation.model.config import ModelConfig, ShareLayers
from foundation.model.encoder import Encoder, parameter_count
from foundation.model.flops import flops_per_token
from foundation.model.sharing.apply import share
from foundation.model.sharing.config import LoraConfig, Matrix, TopLayersConfig
from foundation.train.checkpoint import save_tensors
from foundation.train.config import AdamWConfig
from foundation.train.optim import build_optimizers
from tests.builders import bert_config, modern_config, randomise

FAMILIES = {"bert": bert_config, "modern": modern_config}
SHARED = [ShareLayers.all, ShareLayers.attention, ShareLayers.feed_forward]
IDS = torch.randint(5, 101, (30,), generator=torch.Generator().manual_seed(0))


def hidden(encoder: Encoder) -> torch.Tensor:
    return encoder(IDS, torch.zeros_like(IDS), Layout.of([11, 19]))


def encoder_of(cfg: ModelConfig) -> Encoder:
    encoder = Encoder(cfg).double().eval()
    randomise(encoder)
    return encoder


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_layers_with_equal_weights_compute(family: str, shared: ShareLayers) -> None:
    ours = encoder_of(FAMILIES[family](share_layers=shared))
    plain = Encoder(FAMILIES[family]()).double().eval()
    state = ours.state_dict()
    for name in plain.state_dict():
        if name not in state:  # what the layer borrows
            number, _, part = name.removeprefix("layers.").partition(".")
            owner = "1" if family == "modern" and part.startswith("attention_norm") else "0"
            assert int(number) > int(owner)
            state[name] = state[f"layers.{owner}.{part}"]
    plain.load_state_dict(state)
    torch.testing.assert_close(hidden(ours), hidden(plain), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shared", "parts"), [(ShareLayers.attention, "attention."), (ShareLayers.feed_forward, "feed_forward.")]
)
def test_weights_are_there_once(shared: ShareLayers, parts: str) -> None:
    whole, fewer = Encoder(bert_config()), Encoder(bert_config(share_layers=shared))
    again = sum(
        p.numel() for name, p in whole.named_parameters() if f".{parts}" in name and not name.startswith("layers.0.")
    )
    assert parameter_count(whole) - parameter_count(fewer) == again > 0
    assert sum(tensor.numel() for tensor in fewer.state_dict().values()) == parameter_count(fewer)


def test_with_all_shared_a_model_of_any_depth_has_the_weights_of_one_layer() -> None:
    shallow, deep = (Encoder(bert_config(share_layers=ShareLayers.all, layers=n)) for n in (1, 6))
    assert parameter_count(shallow) == parameter_count(deep)
    assert shallow.state_dict().keys() == deep.state_dict().keys()


def test_operations_are_those_of_all_layers() -> None:
    counts = {flops_per_token(bert_config(share_layers=shared), 40, 0.15) for shared in ShareLayers}
    assert len(counts) == 1


def test_gradients_of_all_layers_add_up_and_the_optimizer_steps_once() -> None:
    encoder = encoder_of(bert_config(share_layers=ShareLayers.all))
    (optimizer,) = build_optimizers(encoder, AdamWConfig(lr=0.1))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(encoder.state_dict())
    hidden(encoder).square().sum().backward()
    bias = encoder.layers[0].feed_forward.out.bias
    step, grad = 1e-6, bias.grad[3].item()
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            bias[3] += sign * step
            values.append(hidden(encoder).square().sum().item())
            bias[3] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(grad, rel=1e-4)


def test_it_is_saved_copied_and_moved_as_one(tmp_path: Path) -> None:
    encoder = encoder_of(modern_config(share_layers=ShareLayers.all))
    save_tensors(tmp_path / "weights.safetensors", encoder.state_dict())
    twin = Encoder(modern_config(share_layers=ShareLayers.all)).double().eval()
    twin.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(hidden(twin), hidden(encoder), rtol=0, atol=0)
    other = copy.deepcopy(encoder)
    assert other.layers[3].attention is other.layers[0].attention is not encoder.layers[0].attention
    assert encoder.float().layers[2].feed_forward.into.weight.dtype is torch.float32


def test_a_low_rank_term_is_added_once() -> None:
    encoder = share(encoder_of(bert_config(share_layers=ShareLayers.all)), LoraConfig(rank=2, matrices=list(Matrix)))
    assert sum("down.weight" in name for name in encoder.state_dict()) == 4
    assert all("down.down" not in name for name in encoder.state_dict())


def test_the_last_layers_cannot_be_told_from_the_first() -> None:
    with pytest.raises(UserError, match=r"sharing=top_k is about some layers, .*model.share_layers=all"):
        share(encoder_of(bert_config(share_layers=ShareLayers.all)), TopLayersConfig(layers=1))


def test_one_attention_is_not_both_local_and_global() -> None:
    with pytest.raises(UserError, match=r"model.share_layers=all makes one attention .* set model.local_window=0"):
        modern_config(share_layers=ShareLayers.all, local_window=8).check()
    modern_config(share_layers=ShareLayers.feed_forward, local_window=8).check()
