"""Shapes that cannot work are refused in words."""

import pytest

from foundation.core.errors import UserError
from foundation.model.config import ShareLayers
from foundation.model.encoder import Encoder, parameter_count
from foundation.model.flops import flops_per_token
from tests.builders import bert_config, modern_config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 5}, r"model.heads=5 does not divide model.width=32: choose one of \[1, 2, 4, 8, 16\]"),
        ({"heads": 32}, "model.width/model.heads=1 must be even"),
        ({"layers": 0}, "model.layers=0 must be at least 1"),
        ({"dropout": 1.5}, r"model.dropout=1.5 must be in \[0, 1\)"),
        ({"local_window": 7}, "model.local_window=7 must be even"),
        ({"local_window": 8, "global_every": 0}, "model.global_every=0 must be at least 1"),
        ({"segments": -1}, "model.segments=-1 must be at least 0"),
        ({"init_std": -0.1}, "model.init_std=-0.1 must be at least 0"),
    ],
)
def test_impossible_shape_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Encoder(modern_config(**changes))


def test_learned_positions_take_heads_of_an_odd_width() -> None:
    with pytest.raises(UserError, match=r"choose one of \[1, 5, 13, 65\]"):
        Encoder(bert_config(width=65, heads=2))


def test_one_layer_may_share_with_itself() -> None:
    assert len(Encoder(modern_config(layers=1, share_layers=ShareLayers.all)).layers) == 1


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"(?s)heads=5.*dropout=2"):
        Encoder(modern_config(heads=5, dropout=2))


def test_bert_base_has_googles_number_of_parameters() -> None:
    """109,482,240 with the pooler (Google's README says 110M); the pooler is part of our sentence head."""
    import torch

    with torch.device("meta"):
        encoder = Encoder(
            bert_config(width=768, layers=12, heads=12, ffn_width=3072, vocab_size=30522, max_seq_len=512)
        )
    assert parameter_count(encoder) == 109_482_240 - (768 * 768 + 768)


def test_flops_grow_with_every_part() -> None:
    """4 layers × (4·32² + 3·32·48 + 2·40·32) + head, times 6."""
    layer = 4 * 32**2 + 3 * 32 * 48 + 2 * 40 * 32
    whole = flops_per_token(modern_config(), 40, 0.15)
    assert whole == pytest.approx(6 * (4 * layer + 0.15 * (32**2 + 32 * 101)))
    behind = 32**2 + 3 * 32 * 48
    assert flops_per_token(modern_config(), 40, 0.15, read=0.25) == pytest.approx(whole - 6 * 0.75 * behind)


@pytest.mark.parametrize(
    ("switch", "asked"), [("feed_forward", "is_gated"), ("norm_place", "is_pre_norm"), ("positions", "is_rotary")]
)
def test_a_choice_that_nobody_has_thought_of_acts_as_no_other(switch: str, asked: str) -> None:
    assert (getattr(bert_config(), asked), getattr(modern_config(), asked)) == (False, True)
    for cfg in (bert_config(), modern_config()):
        setattr(cfg, switch, "new")
        with pytest.raises(AssertionError, match="new"):
            Encoder(cfg)
