"""However many tokens the rows of a step have, products over them meet few different shapes."""

import numpy as np
import pytest
import torch
from torch import nn

from foundation.core.randomness import RowRng
from foundation.data.batches import assemble
from foundation.model.config import ModelConfig
from foundation.model.shapes import filled, token_multiple
from foundation.objective.base import Objective
from foundation.objective.config import DetectionConfig, MaskingConfig, ObjectiveConfig
from foundation.objective.masked_lm import IGNORED
from foundation.objective.pretraining import PretrainingObjective
from foundation.task.config import Pooling
from foundation.task.heads import TagHead, TaskObjective
from tests.builders import SPECIALS, bert_config, modern_config

MODELS = {"bert": bert_config(max_seq_len=64), "modern": modern_config(max_seq_len=64)}


def pretraining(model: ModelConfig) -> Objective:
    cfg = ObjectiveConfig(masking=MaskingConfig(), detection=DetectionConfig(weight=1.0))
    return PretrainingObjective(cfg, model, SPECIALS, np.zeros(101, bool), seq_len=64)


def tagging(model: ModelConfig) -> Objective:
    return TaskObjective(model, n_out=3, pooling=Pooling.mean, dropout=0.1, head=TagHead)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("build", [pretraining, tagging])
def test_every_product_over_tokens_has_one_of_few_row_counts(build, family: str) -> None:
    objective = build(MODELS[family])
    seen = set()
    for module in objective.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, inputs, __: seen.add(len(inputs[0])))
    draws = np.random.default_rng(0)
    for step in range(8):
        batch = assemble([(draws.integers(5, 101, size=draws.integers(3, 60)),) for _ in range(9)], SPECIALS, None)
        if build is tagging:
            batch.labels = np.where(batch.maskable, 0, IGNORED)
        example = objective.corrupt(batch, RowRng(0, "mask", step), 0.0)
        objective(example, objective.count(example)).sum().backward()
    assert seen and not {count for count in seen if count % 64}


def test_what_is_filled_up_is_zeros_at_the_end() -> None:
    hidden_TD = torch.randn(257, 4)
    found = filled(hidden_TD)
    assert torch.equal(found[:257], hidden_TD) and not found[257:].any()
    assert len(found) == 320 and len(filled(found)) == 320


def test_numbers_of_tokens_are_few_and_little_is_filler() -> None:
    counts = [(n, n + -n % token_multiple(n)) for n in range(1, 16_385)]
    assert len({filled_up for n, filled_up in counts if n <= 2048}) == 16 + 8
    assert max(filled_up / n for n, filled_up in counts if n >= 512) < 1.125
    assert {token_multiple(n) for n in (1, 7, 8, 1023)} == {64} and token_multiple(1024) == 128
    assert {token_multiple(n) for n in (2048, 10**6)} == {256}
