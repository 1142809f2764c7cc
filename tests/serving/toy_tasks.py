"""Models of tasks that need no training: random heads on encoders that are the same, or are not."""

from dataclasses import replace
from pathlib import Path

import torch

from foundation.model.config import ModelConfig
from foundation.task.config import Pooling, TaskConfig, TaskKind
from foundation.task.finetuned import Answering, FineTuned
from foundation.task.heads import TaskObjective
from foundation.task.kinds.build import build_kind
from foundation.train.config import Precision
from tests.builders import modern_config, randomise
from tests.task import toy

FILMS = TaskConfig(name="films", labels=["bad", "good"])
STARS = TaskConfig(name="stars", kind=TaskKind.regression)
PAIRS = TaskConfig(name="pairs", labels=["no", "maybe", "yes"], text_pair="text_pair")


def shape() -> ModelConfig:
    """For toy.tokenizer's words."""
    return modern_config(layers=2, vocab_size=toy.tokenizer().vocab_size, max_seq_len=16, segments=2)


def model(task: TaskConfig, *, encoder_seed: int = 0, head_seed: int = 0, pooling: Pooling = Pooling.mean) -> FineTuned:
    """A model of the task; the same seed of the encoder gives the same weights there, to the bit."""
    how = Answering(task, task.labels, pooling, seq_len=12, mean=3.0, std=2.0)
    objective = TaskObjective(shape(), n_out=how.n_out, pooling=pooling, dropout=0.1, head=build_kind(task).head())
    randomise(objective.encoder, encoder_seed)
    randomise(objective.heads, 100 + head_seed)
    return FineTuned(objective.eval(), toy.tokenizer(), how, batch_rows=4096, precision=Precision.fp32)


def save(tuned: FineTuned, folder: Path) -> str:
    """Write it as a fine-tune is written; returns the folder, as the command line has it."""
    tuned.save(folder / "final", {"name": tuned.how.task.name, "seq_len": 12}, "", shares=None)
    return str(folder)


def three_on_one_encoder() -> dict[str, FineTuned]:
    """Labels, values and pairs; pooled in different ways."""
    return {
        "films": model(FILMS, head_seed=1),
        "stars": model(STARS, head_seed=2, pooling=Pooling.cls),
        "pairs": model(PAIRS, head_seed=3),
    }


def with_one_bit_changed(tuned: FineTuned) -> FineTuned:
    """The lowest bit of one weight of the encoder."""
    weight = tuned.objective.encoder.layers[1].feed_forward.out.weight
    with torch.no_grad():
        weight.view(torch.int32)[0, 0] ^= 1
    return tuned


def renamed(task: TaskConfig, name: str) -> TaskConfig:
    """The same task under another name."""
    return replace(task, name=name)
