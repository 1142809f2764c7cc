"""The path of a GPU, traced on the CPU: compiled parts and attention without padding against the plain operations."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from foundation.core.randomness import RowRng
from foundation.data.batches import Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.model import flash
from foundation.model.attention import Layout
from foundation.model.config import ModelConfig
from foundation.model.fusion import fused, fusing
from foundation.model.sharing.apply import share
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from tests.builders import SPECIALS, bert_config, modern_config, randomise, table
from tests.model.test_sharing import METHODS, encoder_of, hidden

SEQ_LEN = 32


def one_mask(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, starts: Tensor, longest: int, dropout: float, half: int
) -> Tensor:
    """What flash.varlen promises, by a (T, T) mask over all rows at once."""
    assert dropout == 0
    at = torch.arange(len(q_TNH), dtype=torch.int32)
    row = torch.searchsorted(starts[1:].contiguous(), at, right=True)
    seen = row[:, None] == row
    if half >= 0:
        seen = seen & ((at[:, None] - at).abs() <= half)
    scores = torch.einsum("qnh,knh->nqk", q_TNH, k_TNH) * q_TNH.shape[-1] ** -0.5
    return torch.einsum("nqk,knh->qnh", scores.masked_fill(~seen, -torch.inf).softmax(-1), v_TNH)


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Turns flash attention on or off; and what is compiled is traced, but not made into kernels, which takes half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    monkeypatch.setattr(flash, "applies_to", lambda qkv, layout: layout.has_flash)
    monkeypatch.setattr(flash, "varlen", one_mask)

    def turn(on: bool) -> None:
        monkeypatch.setattr(flash, "is_there", lambda device: on)

    yield turn
    torch._dynamo.reset()


def examples(objective: PretrainingObjective) -> list[Example]:
    batches = PretrainingBatches(
        table(), SPECIALS, BatchesConfig(rows_per_step=8, seq_len=SEQ_LEN, short_share=0.5), pairs=Pairs.next, seed=0
    )
    return [objective.corrupt(batches.at(step), RowRng(0, "mask", step), 0.0) for step in range(3)]


@pytest.mark.parametrize(
    "cfg",
    [bert_config(), modern_config(), modern_config(layers=3, local_window=4, global_every=2)],
    ids=["bert", "modern", "local windows"],
)
def test_compiled_parts_and_unpadded_attention_are_the_plain_ones(
    cfg: ModelConfig, like_a_gpu: Callable[[bool], None]
) -> None:
    """Losses and gradients in float64; three steps of different sizes. A part that cannot be traced whole raises."""
    asked = ObjectiveConfig(masking=MaskingConfig(), sentence_task=SentenceTask.nsp, z_loss_weight=1e-2)
    objective = PretrainingObjective(
        asked, cfg, SPECIALS, torch.zeros(cfg.vocab_size, dtype=torch.bool).numpy(), seq_len=SEQ_LEN
    ).double()
    randomise(objective)
    for example in examples(objective):
        found = []
        for on in (False, True):
            like_a_gpu(on)
            with fusing(on):
                losses = objective(example, objective.count(example))
            losses.sum().backward()
            found.append({"losses": losses.detach()} | {n: p.grad for n, p in objective.named_parameters()})
            objective.zero_grad(set_to_none=True)
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["bitfit", "lora", "adapter"])
def test_what_a_task_adds_is_compiled_too(method: str, like_a_gpu: Callable[[bool], None]) -> None:
    """States, and gradients of the task's own weights: a compiled layer must not pass over what stands in a matrix's place."""
    encoder = share(encoder_of(modern_config()), METHODS[method])
    randomise(encoder)
    found = []
    for on in (False, True):
        like_a_gpu(on)
        with fusing(on):
            states = hidden(encoder)
        states.square().sum().backward()
        own = {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}
        found.append({"states": states.detach()} | own)
        encoder.zero_grad(set_to_none=True)
    assert len(found[0]) > 8
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)


def test_nothing_is_compiled_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compile_(function: Callable[[int], int], **options: object) -> Callable[[int], int]:
        asked.append(options)
        return lambda x: -function(x)

    monkeypatch.setattr(torch, "compile", compile_)
    twice = fused(lambda x: 2 * x)
    assert twice(1) == 2
    with fusing(True):
        assert twice(1) == twice(1) - 0 == -2
        with fusing(False):
            assert twice(1) == 2
    assert twice(1) == 2 and asked == [{"dynamic": True}]


def test_a_gpu_without_the_kernels_keeps_padded_attention() -> None:
    layout = Layout.of([3, 2])
    assert not layout.has_flash and layout.longest == 3
    assert layout.starts.tolist() == [0, 3, 5] and layout.positions.tolist() == [0, 1, 2, 0, 1]
