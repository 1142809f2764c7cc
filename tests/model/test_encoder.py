"""What no comparison with another implementation sees: weights at the start, dropout, and how wide the residual stream is."""

import math

import pytest
import torch
from torch import nn

from foundation.model.attention import Layout
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder, init_weights
from tests.builders import bert_config, modern_config

FAMILIES = {"bert": bert_config, "modern": modern_config}
LENGTHS = (40, 40, 7, 40)
IDS = torch.arange(sum(LENGTHS)) % 101
INPUTS = IDS, torch.zeros_like(IDS), Layout.of(LENGTHS)


def encoder_of(cfg: ModelConfig) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(cfg)
    init_weights(encoder, cfg)
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_start_as_small_as_asked_and_with_pre_norm_smaller_where_they_write_to_the_stream(family: str) -> None:
    cfg = FAMILIES[family](init_std=0.05)
    for name, matrix in encoder_of(cfg).named_parameters():
        if matrix.ndim < 2 or len(matrix) < 10:
            continue
        shrink = 1 / math.sqrt(2 * cfg.layers) if family == "modern" and name.endswith(".out.weight") else 1.0
        # A normal distribution cut off at twice its deviation has 0.88 of it.
        assert matrix.std().item() == pytest.approx(0.88 * 0.05 * shrink, rel=0.08), name
        assert matrix.abs().max() <= 2 * 0.05 * shrink, name


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_dropped_in_training_only(family: str) -> None:
    encoder = encoder_of(FAMILIES[family](dropout=0.25))
    shares = [(encoder.train(on).embed(*INPUTS) == 0).float().mean().item() for on in (True, False)]
    assert shares == [pytest.approx(0.25, abs=0.03), 0.0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("part", ["attention", "feed_forward"])
def test_every_branch_is_dropped_in_training_only(family: str, number: int, part: str) -> None:
    """One branch is ones and all else zeros: after a norm, what was dropped is below zero."""
    encoder = encoder_of(FAMILIES[family](layers=2, dropout=0.25, linear_bias=True))
    nn.init.zeros_(encoder.embedding_norm.weight)
    for layer in encoder.layers:
        nn.init.zeros_(layer.attention.out.weight)
        nn.init.zeros_(layer.feed_forward.out.weight)
    nn.init.ones_(encoder.layers[number].get_submodule(part).out.bias)
    shares = [(encoder.train(on)(*INPUTS) < 0).float().mean().item() for on in (True, False)]
    assert shares == [pytest.approx(0.25, abs=0.03), 0.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_stream_is_as_narrow_as_the_products(family: str) -> None:
    encoder = encoder_of(FAMILIES[family]())
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder.embed(*INPUTS).dtype is encoder(*INPUTS).dtype is torch.bfloat16
    assert encoder(*INPUTS).dtype is torch.float32
