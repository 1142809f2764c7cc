"""Several tasks on one encoder: what is the same is held and computed once, and nobody's answer changes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from foundation.core.errors import UserError
from foundation.serving.panel import Panel, load_panel
from foundation.task.answer import examples_of, json_answers
from foundation.train.config import TrainerConfig
from tests.serving.toy_tasks import FILMS, STARS, model, renamed, save, three_on_one_encoder, with_one_bit_changed
from tests.task import toy

CPU = TrainerConfig(device="cpu", threads=1)
TEXTS = [text for text, _ in toy.sentences(16, purpose=7)]
SINGLE = [{"text": text} for text in TEXTS]
ASKED = {
    "films": SINGLE,
    "stars": SINGLE[10:],
    "pairs": [{"text": a, "text_pair": b} for a, b in pairwise(TEXTS)],
}


def close(one: Any, other: Any) -> bool:
    """Equal JSON but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    return one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_together_they_answer_as_each_alone(batch_tokens: int) -> None:
    panel = Panel(three_on_one_encoder(), batch_tokens)
    together = panel.answer(panel.prepare(ASKED))
    for name, alone in three_on_one_encoder().items():
        examples = examples_of(alone, ASKED[name])
        tokens = alone.tokenize(examples)
        expected = json_answers(alone, examples, tokens, alone.outputs(tokens))
        assert len(together[name]) == len(expected)
        assert all(close(*pair) for pair in zip(together[name], expected, strict=True))


def test_a_row_that_several_tasks_ask_about_is_encoded_once() -> None:
    panel = Panel({"films": model(FILMS, head_seed=1), "stars": model(STARS, head_seed=2)}, batch_tokens=60)
    assert panel.encoders == [["films", "stars"]]
    seen: list[int] = []
    inner = panel.models["films"].objective.encoder.inner
    inner.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    prepared = panel.prepare({"films": SINGLE, "stars": SINGLE})
    panel.answer(prepared)
    distinct = {tuple(row[0].tolist()): len(row[0]) + 2 for row in prepared.tokens["films"].rows}
    assert sum(seen) == sum(distinct.values())


def test_equal_weights_are_in_memory_once() -> None:
    models = three_on_one_encoder()
    encoder = sum(p.numel() for p in models["films"].objective.encoder.parameters())
    heads = sum(p.numel() for tuned in models.values() for p in tuned.objective.heads.parameters())
    panel = Panel(models, 4096)
    assert panel.held_alone == 3 * encoder + heads
    assert panel.held == encoder + heads
    storages = {tuned.objective.encoder.token_embedding.weight.data_ptr() for tuned in models.values()}
    assert len(storages) == 1


def test_a_single_bit_keeps_two_encoders_apart_but_not_the_weights_they_have_in_common() -> None:
    films, stars = model(FILMS), with_one_bit_changed(model(STARS))
    panel = Panel({"films": films, "stars": stars}, 4096)
    assert panel.encoders == [["films"], ["stars"]]
    one, other = (tuned.objective.encoder.inner for tuned in (films, stars))
    same = [name for name, weight in one.named_parameters() if weight is other.get_parameter(name)]
    assert len(same) == len(list(one.parameters())) - 1


def test_equal_weights_at_other_places_do_not_make_equal_encoders() -> None:
    """Both encoders have the same four norms, the last two of them the other way round."""
    models = [model(FILMS), model(renamed(FILMS, "other"))]
    for tuned, factors in zip(models, ((1, 2, 1, 2), (1, 2, 2, 1)), strict=True):
        first, second = tuned.objective.encoder.layers
        norms = (tuned.objective.encoder.embedding_norm, first.feed_forward_norm)
        for norm, factor in zip((*norms, second.attention_norm, second.feed_forward_norm), factors, strict=True):
            nn.init.constant_(norm.weight, factor)
    panel = Panel(dict(zip(("films", "other"), models, strict=True)), 4096)
    assert panel.encoders == [["films"], ["other"]]


def test_only_the_tasks_that_are_asked_answer() -> None:
    panel = Panel(three_on_one_encoder(), 4096)
    assert panel.answer(panel.prepare({"stars": SINGLE[:2], "films": []})).keys() == {"stars"}


def test_nothing_is_remembered_from_one_question_to_the_next() -> None:
    panel = Panel(three_on_one_encoder(), 4096)
    before = panel.answer(panel.prepare({"films": SINGLE}))["films"]
    with torch.no_grad():
        panel.models["films"].objective.encoder.token_embedding.weight.neg_()
    after = panel.answer(panel.prepare({"films": SINGLE}))["films"]
    assert not any(close(*pair) for pair in zip(before, after, strict=True))


def test_tasks_are_named_by_their_folders_where_two_have_the_same_name(tmp_path: Path) -> None:
    runs = [save(model(FILMS, head_seed=seed), tmp_path / f"run-{seed}") for seed in (1, 2)]
    runs.append(save(model(renamed(STARS, "text")), tmp_path / "text"))
    panel = load_panel(runs, CPU, 4096)
    assert list(panel.models) == runs
    assert panel.encoders == [runs]


def test_two_folders_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    runs = [save(model(FILMS), tmp_path / "a"), save(model(renamed(STARS, str(tmp_path / "a"))), tmp_path / "b")]
    runs.append(save(model(FILMS, head_seed=1), tmp_path / "c"))
    with pytest.raises(UserError, match=r"two of the tasks have the name .*a: leave out one"):
        load_panel(runs, CPU, 4096)
