"""A foundation and a task so small that a test can fine-tune the one on the other in a second."""

from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from foundation.core.config import LoggerConfig, WandbMode
from foundation.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from foundation.model.sharing.config import SharingConfig, SharingMethod
from foundation.objective.masked_lm import MaskedLMHead
from foundation.task.config import Pooling, TaskConfig
from foundation.task.heads import TaskObjective
from foundation.task.study_config import FinetuneConfig
from foundation.train.config import AdamWConfig, ScheduleConfig, Shape, TrainerConfig
from foundation.train.foundation import save_foundation
from tests.builders import modern_config

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
OTHER = ("film", "the", "a", "was", "it", "plot", "actor", "scene", ",", ".")


def tokenizer() -> Tokenizer:
    """Whole words only."""
    words = [*SPECIAL_TOKENS.values(), *GOOD, *BAD, *OTHER]
    backend = tokenizers.Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = Lowercase(), Whitespace()
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    return Tokenizer(backend)


def lay_foundation(runs_dir: Path, name: str = "small", seed: int = 0) -> str:
    """Write <runs_dir>/<name>/final with random weights and a head of pretraining's; returns its fingerprint."""
    words = tokenizer()
    model = modern_config(layers=2, vocab_size=words.vocab_size, max_seq_len=16, segments=2)
    torch.manual_seed(seed)
    encoder = TaskObjective(model, n_out=2, pooling=Pooling.mean, dropout=0.0).encoder
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"heads.mlm.{key}": value for key, value in MaskedLMHead(model).state_dict().items()}
    return save_foundation(runs_dir / name / "final", state, model, words, {"name": name, "seq_len": 12}, "")


def sentences(n: int, purpose: int) -> list[tuple[str, str]]:
    """Texts and labels; one word of each text tells its label."""
    draws = np.random.default_rng(purpose)
    rows = []
    for number in range(n):
        words = list(draws.choice(OTHER[:-2], size=draws.integers(2, 9)))
        words.insert(int(draws.integers(len(words) + 1)), str(draws.choice((BAD, GOOD)[number % 2])))
        rows.append((" ".join(words), ("bad", "good")[number % 2]))
    return rows


def lay_task(folder: Path, n_train: int = 240, n_dev: int = 60) -> TaskConfig:
    """Write train.csv and dev.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n, purpose in (("train", n_train, 1), ("dev", n_dev, 2)):
        lines = [f"{text},{label}" for text, label in sentences(n, purpose)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return TaskConfig(name="toy", train="train.csv", dev="dev.csv", local=[str(folder)])


def settings(runs_dir: Path, task: TaskConfig, **changed: object) -> FinetuneConfig:
    """The protocol's settings, on the CPU and without wandb."""
    defaults = {
        "runs_dir": str(runs_dir),
        "seeds": 2,
        "epochs": 6,
        "batch_rows": 16,
        "min_steps": 0,
        "task": task,
        "sharing": SharingConfig(method=SharingMethod.full),
        "optim": AdamWConfig(lr=3e-3),
        "schedule": ScheduleConfig(shape=Shape.linear),
        "trainer": TrainerConfig(device="cpu", threads=1),
        "logger": LoggerConfig(wandb=WandbMode.disabled),
    }
    return FinetuneConfig(**defaults | changed)
