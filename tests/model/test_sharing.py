"""The ways of sharing an encoder: what each leaves trainable, that it starts as it was, and that it is what its paper says."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.model.attention import Attention, Layout, plain_attention
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder, init_weights
from foundation.model.sharing.adapter import Adapter
from foundation.model.sharing.apply import share, sharing_from_plain
from foundation.model.sharing.config import (
    AdapterConfig,
    AdapterPlace,
    LoraConfig,
    Matrix,
    MultitaskConfig,
    PrefixConfig,
    SharingConfig,
    SharingMethod,
    TopLayersConfig,
)
from foundation.model.sharing.frozen import FrozenEncoder
from foundation.model.sharing.lora import LoraLinear, merge
from tests.builders import bert_config, modern_config, randomise

FAMILIES = {"bert": bert_config(dropout=0.1), "modern": modern_config(dropout=0.1)}
METHODS = {
    "probe": SharingConfig(method=SharingMethod.probe),
    "bitfit": SharingConfig(method=SharingMethod.bitfit),
    "lora": LoraConfig(rank=4, matrices=list(Matrix)),
    "adapter": AdapterConfig(width=4),
    "prefix": PrefixConfig(length=3),
    "top_k": TopLayersConfig(layers=1),
}
LENGTHS = (7, 20, 3, 20)


def encoder_of(cfg: ModelConfig) -> Encoder:
    torch.manual_seed(3)
    encoder = Encoder(cfg)
    init_weights(encoder, cfg)
    randomise(encoder)
    return encoder.double()


def hidden(encoder: Encoder) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 101, (sum(LENGTHS),), generator=draws)
    return encoder(ids, torch.zeros_like(ids), Layout.of(LENGTHS))


def trained(encoder: Encoder) -> dict[str, int]:
    return {name: p.numel() for name, p in encoder.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_the_foundations_own_weights_keep_names_and_values(family: str, method: str) -> None:
    encoder = encoder_of(FAMILIES[family])
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    after = share(encoder, METHODS[method]).state_dict()
    assert before.keys() <= after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "prefix"])
def test_training_starts_from_the_foundations_own_function(family: str, method: str) -> None:
    encoder = encoder_of(FAMILIES[family]).eval()
    before = hidden(encoder)
    after = hidden(share(encoder, METHODS[method]).eval())
    tolerance = 0.2 if method == "adapter" else 1e-12  # an adapter starts near the identity, not at it
    torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_changes_what_is_the_tasks_and_nothing_else(family: str, method: str) -> None:
    torch.manual_seed(0)
    encoder = share(encoder_of(FAMILIES[family]), METHODS[method]).train()
    own = trained(encoder)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    head = torch.nn.Linear(encoder.cfg.width, 1).double()
    optimizer = torch.optim.SGD([*(p for p in encoder.parameters() if p.requires_grad), *head.parameters()], lr=0.1)
    for _ in range(2):  # LoRA's A has no gradient while B is zero
        optimizer.zero_grad()
        head(hidden(encoder)).square().mean().backward()
        optimizer.step()
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    # A bias that the softmax cannot see has no gradient: that of the keys is in qkv, whose other two thirds have one.
    assert changed == own.keys()


def test_what_each_method_trains() -> None:
    cfg, width, ffn, layers = bert_config(), 32, 64, 3
    sizes = {name: trained(share(encoder_of(cfg), method)) for name, method in METHODS.items()}
    totals = {name: sum(found.values()) for name, found in sizes.items()}
    assert totals["probe"] == 0
    assert totals["bitfit"] == width + layers * (3 * width + width + ffn + width + 2 * width)
    assert totals["lora"] == 4 * layers * ((width + 3 * width) + 2 * width + 2 * (width + ffn))
    assert totals["adapter"] == layers * 2 * (2 * width * 4 + 4 + width)
    assert totals["prefix"] == layers * 2 * 3 * width
    assert all(name.startswith("layers.2.") for name in sizes["top_k"])
    assert len(sizes["top_k"]) == 12


def test_the_norm_behind_all_layers_is_trained_with_the_top_ones() -> None:
    names = trained(share(encoder_of(modern_config()), METHODS["top_k"]))
    assert {name for name in names if not name.startswith("layers.3.")} == {"final_norm.weight"}


def test_what_is_added_starts_as_small_as_the_papers_say() -> None:
    torch.manual_seed(0)
    lora, adapter = LoraLinear(torch.nn.Linear(400, 400), rank=16, alpha=16.0), Adapter(400, 16)
    encoder = share(encoder_of(bert_config(init_std=0.03)), PrefixConfig(length=50))
    assert lora.down.weight.std().item() == pytest.approx(400**-0.5, rel=0.1)
    for linear in (adapter.down, adapter.up):
        assert linear.weight.std().item() == pytest.approx(0.0088, rel=0.1)  # 0.01, cut off at twice that
    assert encoder.layers[1].attention.prefix.std().item() == pytest.approx(0.03, rel=0.1)


def test_modern_gets_biases_to_train_that_start_at_zero() -> None:
    encoder = share(encoder_of(modern_config()), METHODS["bitfit"])
    assert all(name.endswith(".bias") for name in trained(encoder))
    assert sum(trained(encoder).values()) == 4 * (3 * 32 + 32 + 2 * 48 + 32 + 2 * 32) - 32 + 2 * 32
    assert not any(p.any() for name, p in encoder.named_parameters() if name.endswith(".bias"))


def test_one_adapter_a_layer_is_behind_the_feed_forward() -> None:
    names = trained(share(encoder_of(bert_config()), AdapterConfig(width=4, place=AdapterPlace.feed_forward)))
    assert {name.rsplit(".", 3)[0] for name in names} == {f"layers.{n}.feed_forward.out" for n in range(3)}


def test_lora_merges_exactly() -> None:
    encoder = share(encoder_of(modern_config()), METHODS["lora"]).double().eval()
    randomise(encoder, seed=5)
    before = hidden(encoder)
    merge(encoder)
    assert not any(isinstance(module, LoraLinear) for module in encoder.modules())
    assert encoder.state_dict().keys() == encoder_of(modern_config()).state_dict().keys()
    torch.testing.assert_close(hidden(encoder), before, rtol=1e-10, atol=1e-10)


def test_lora_is_a_low_rank_term_scaled_by_alpha_over_rank() -> None:
    torch.manual_seed(0)
    base = torch.nn.Linear(6, 5).double()
    lora = LoraLinear(base, rank=2, alpha=8.0).double()
    torch.nn.init.normal_(lora.up.weight)
    x = torch.randn(4, 6, dtype=torch.float64)
    term = lora.up.weight @ lora.down.weight
    assert torch.linalg.matrix_rank(term) == 2
    torch.testing.assert_close(lora(x), base(x) + 4.0 * x @ term.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 9, 2)])
def test_every_token_attends_to_the_prefix_and_to_its_own_row(lengths: tuple[int, ...]) -> None:
    """Against one row at a time, its keys and values laid behind the prefix by hand."""
    torch.manual_seed(0)
    cfg = modern_config(local_window=4)
    attention = Attention(cfg, 1).double()
    attention.prefix = torch.nn.Parameter(torch.randn(2, 3, 4, 8, dtype=torch.float64))
    x = torch.randn(sum(lengths), 32, dtype=torch.float64)
    found = attention(x, Layout.of(lengths), None)
    expected = []
    for row in x.split(lengths):
        q, k, v = attention.qkv(row).unflatten(-1, (3, 4, 8)).unbind(1)
        k, v = (torch.cat([attention.prefix[side], own]) for side, own in ((0, k), (1, v)))
        at = torch.arange(len(row))
        near = (at[:, None] - at).abs() <= 2
        seen = torch.cat([torch.ones(len(row), 3, dtype=torch.bool), near], dim=1)
        mixed = plain_attention(*(t.transpose(0, 1)[None] for t in (q, k, v)), seen[None, None], 0.0)
        expected.append(attention.out(mixed[0].transpose(0, 1).flatten(1)))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-10, atol=1e-10)


def test_a_frozen_encoder_has_no_dropout_and_says_the_same_twice() -> None:
    encoder = encoder_of(bert_config(dropout=0.5, attention_dropout=0.5))
    expected = hidden(encoder.eval())
    frozen = share(encoder, METHODS["probe"]).train()
    for _ in range(2):
        found = hidden(frozen)
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_frozen_encoder_computes_a_training_row_once_while_there_is_room() -> None:
    calls = []
    for room in (1 << 20, 20 * 32 * 8):
        frozen = FrozenEncoder(encoder_of(bert_config()), room_bytes=room)
        frozen.layers[0].register_forward_hook(lambda *_: calls.append(1))
        first, second = hidden(frozen), hidden(frozen)
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)
    # With room for all of them the second time costs nothing; with room for one row, the others are computed again.
    assert len(calls) == 1 + 2


@pytest.mark.parametrize("method", [*METHODS.values(), MultitaskConfig()])
def test_settings_survive_a_file(method: SharingConfig) -> None:
    restored = sharing_from_plain(to_plain(method), "config.json")
    # repr: an enum equals its value, and is not it.
    assert repr(restored) == repr(method)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UserError, match=r"config.json: sharing method 'magic' is none of full, probe"):
        sharing_from_plain({"method": "magic"}, "config.json")


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (
            SharingConfig(method=SharingMethod.lora),
            "sharing.method=lora comes with settings of its own: .*sharing=lora",
        ),
        (LoraConfig(rank=0, matrices=[Matrix.qkv]), "sharing.rank=0 must be at least 1"),
        (LoraConfig(matrices=[]), "sharing.matrices must name some of qkv, attention_out, into, out"),
        (AdapterConfig(width=0), "sharing.width=0 must be at least 1"),
        (PrefixConfig(length=0), "sharing.length=0 must be at least 1"),
        (TopLayersConfig(layers=0), "sharing.layers=0 must be at least 1"),
        (replace(METHODS["probe"], lr_scale=0.0), "sharing.lr_scale=0.0 must be above 0"),
        (MultitaskConfig(temperature=0.5), "sharing.temperature=0.5 must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_named(cfg: SharingConfig, words: str) -> None:
    assert len(cfg.problems()) == 1
    with pytest.raises(UserError, match=words):
        raise UserError(cfg.problems()[0])


def test_more_top_layers_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"sharing.layers=4 are more than the encoder's 3"):
        share(encoder_of(bert_config()), TopLayersConfig(layers=4))


def test_full_is_the_encoder_itself() -> None:
    encoder = encoder_of(bert_config()).eval()
    same = share(encoder, SharingConfig(method=SharingMethod.full))
    assert same is encoder
    assert all(p.requires_grad for p in same.parameters())
