"""Foundations and fine-tuned models of toy size, every weight random, over a tokenizer that knows real text."""

from functools import cache
from pathlib import Path

import torch

from foundation.core.plain import to_plain
from foundation.data.config import TokenizerConfig, TokenizerKind
from foundation.data.tokenizer import Tokenizer
from foundation.data.tokenizer_training import train_tokenizer
from foundation.exchange.answers import real_texts
from foundation.model.config import ModelConfig
from foundation.model.sharing.apply import share
from foundation.model.sharing.config import SharingConfig, SharingMethod
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from foundation.task.config import Pooling, TaskConfig, TaskKind
from foundation.task.finetuned import Answering, FineTuned
from foundation.task.heads import TaskObjective
from foundation.task.kinds.build import build_kind
from foundation.train.config import Precision
from foundation.train.foundation import save_foundation
from tests.builders import bert_config, modern_config, randomise

VOCAB = 320
BERT = bert_config(layers=2, vocab_size=VOCAB, max_seq_len=48)
MODERN = modern_config(layers=3, vocab_size=VOCAB, max_seq_len=48)
FAMILIES = {"bert": BERT, "modern": MODERN}


@cache
def words(kind: TokenizerKind = TokenizerKind.wordpiece) -> Tokenizer:
    """Trained on the texts that an export is checked with."""
    return train_tokenizer(real_texts(pairs=False).text, TokenizerConfig(kind=kind, vocab_size=VOCAB))


def lay_foundation(
    run: Path,
    model: ModelConfig,
    task: SentenceTask = SentenceTask.none,
    tokenizer: Tokenizer | None = None,
    weights: dict[str, float] | None = None,
) -> Path:
    """Write <run>/final with the heads of pretraining."""
    tokenizer = tokenizer or words()
    cfg = ObjectiveConfig(masking=MaskingConfig(), sentence_task=task)
    for part, weight in (weights or {}).items():
        getattr(cfg, part).weight = weight
    objective = PretrainingObjective(cfg, model, tokenizer.specials, tokenizer.continues_word, seq_len=40)
    randomise(objective)
    info = {"name": run.name, "seq_len": 40, "objective": to_plain(cfg), "tokenizer": tokenizer.fingerprint}
    save_foundation(run / "final", objective.state_dict(), model, tokenizer, info, "")
    return run


def lay_task(
    run: Path,
    model: ModelConfig,
    *,
    kind: TaskKind | None = None,
    labels: tuple[str, ...] = ("bad", "good", "so-so"),
    pairs: bool = False,
    pooling: Pooling = Pooling.cls,
    sharing: SharingConfig | None = None,
) -> Path:
    """Write <run>/final, fine-tuned on nothing; of no named kind: classification, or without labels regression."""
    sharing = sharing or SharingConfig(method=SharingMethod.full)
    kind = kind or (TaskKind.classification if labels else TaskKind.regression)
    task = TaskConfig(name="toy", kind=kind, train="t.csv", text_pair="other" if pairs else None)
    how = Answering(task, list(labels), pooling, 40, *((0.0, 1.0) if labels else (3.0, 1.5)))
    torch.manual_seed(0)
    objective = TaskObjective(model, n_out=how.n_out, pooling=pooling, dropout=0.0, head=build_kind(task).head())
    objective.encoder = share(objective.encoder, sharing)
    randomise(objective)
    info = {"name": run.name, "sharing": to_plain(sharing)}
    FineTuned(objective, words(), how, 8, Precision.fp32).save(run / "final", info, "", shares=None)
    return run
