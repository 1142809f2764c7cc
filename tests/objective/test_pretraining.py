"""The terms of the pretraining loss, together."""

import numpy as np
import pytest
import torch
from torch import Tensor

from foundation.core.randomness import RowRng
from foundation.data.batches import Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.objective.config import (
    DetectionConfig,
    DocumentWordsConfig,
    MaskingConfig,
    ObjectiveConfig,
    SentenceTask,
)
from foundation.objective.pretraining import PretrainingObjective
from tests.builders import SPECIALS, modern_config, table


def losses_at(pair: float, words: float, detection: float, z_loss: float) -> Tensor:
    """Of one step, by the weights of all terms but the first."""
    torch.manual_seed(0)
    cfg = ObjectiveConfig(
        masking=MaskingConfig(),
        sentence_task=SentenceTask.nsp,
        sentence_weight=pair,
        document_words=DocumentWordsConfig(weight=words),
        detection=DetectionConfig(weight=detection),
        z_loss_weight=z_loss,
    )
    objective = PretrainingObjective(
        cfg, modern_config(segments=2), SPECIALS, np.zeros(101, bool), seq_len=40, table=table()
    )
    rows = PretrainingBatches(
        table(), SPECIALS, BatchesConfig(rows_per_step=8, seq_len=40), pairs=Pairs.next, seed=0
    ).at(0)
    example = objective.corrupt(rows, RowRng(0, "mask", 0), 0.0)
    return objective(example, objective.count(example)).detach()


def test_every_term_but_the_first_counts_by_its_weight() -> None:
    plain = losses_at(1.0, 1.0, 1.0, 1.0)
    assert (plain > 0).all() and len(plain) == 5
    expected = plain * torch.tensor([1.0, 0.25, 3.0, 2.0, 0.5])
    assert losses_at(0.25, 3.0, 2.0, 0.5).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
