"""A foundation with random weights and the corpus that it is said to come from, made in a second."""

from pathlib import Path

import numpy as np
import torch

from foundation.core.plain import to_plain
from foundation.data.config import DataConfig, TokenizerConfig, TokenizerKind
from foundation.data.corpus import Corpus
from foundation.data.prepare import prepare
from foundation.evaluation.config import EvaluateConfig, EvaluationConfig, HeldOutConfig, MinimalPairsConfig
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from foundation.train.config import TrainerConfig
from foundation.train.foundation import save_foundation
from tests.builders import modern_config

WORDS = ("the", "a", "cat", "dog", "cats", "dogs", "sees", "see", "runs", "run", "old", "and", "quickly")


def text(n_documents: int = 60, seed: int = 0) -> str:
    """Documents of random sentences, a blank line between two."""
    draws = np.random.default_rng(seed)
    documents = [
        " ".join(" ".join(draws.choice(WORDS, draws.integers(3, 9))).capitalize() + "." for _ in range(5))
        for _ in range(n_documents)
    ]
    return "\n\n".join(documents) + "\n"


def lay_foundation(runs_dir: Path, task: SentenceTask = SentenceTask.nsp) -> Corpus:
    """Write <runs_dir>/toy/final and <runs_dir>/corpora/…"""
    runs_dir.mkdir(parents=True, exist_ok=True)
    source = runs_dir / "corpus.txt"
    source.write_text(text())
    cutter = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=290, min_frequency=1)
    corpus = prepare(DataConfig(files=[str(source)], held_out=0.3), cutter, runs_dir / "corpora", progress=False)
    model = modern_config(layers=2, vocab_size=corpus.tokenizer.vocab_size, max_seq_len=40, segments=2)
    cfg = ObjectiveConfig(masking=MaskingConfig(), sentence_task=task)
    torch.manual_seed(0)
    objective = PretrainingObjective(cfg, model, corpus.tokenizer.specials, corpus.tokenizer.continues_word, seq_len=32)
    info = {"name": "toy", "seq_len": 32, "corpus": corpus.fingerprint, "objective": to_plain(cfg)}
    save_foundation(runs_dir / "toy" / "final", objective.state_dict(), model, corpus.tokenizer, info, "")
    return corpus


def settings(runs_dir: Path, evaluation: EvaluationConfig) -> EvaluateConfig:
    """On the CPU."""
    trainer = TrainerConfig(device="cpu", threads=1)
    return EvaluateConfig(foundation="toy", runs_dir=str(runs_dir), evaluation=evaluation, trainer=trainer)


def held_out(**changed: object) -> HeldOutConfig:
    """Settings as conf/evaluation/held_out.yaml has them, with changes."""
    return HeldOutConfig(**{"name": "held_out", **changed})


def pairs(**changed: object) -> MinimalPairsConfig:
    """Settings as conf/evaluation/minimal_pairs.yaml has them, with changes."""
    return MinimalPairsConfig(**{"name": "pairs", "ngram_order": 3, **changed})
