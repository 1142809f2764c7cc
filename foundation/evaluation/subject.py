"""The foundation under examination: its encoder and the heads it was pretrained with."""

from dataclasses import dataclass
from pathlib import Path

import torch

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import from_plain
from foundation.data.corpus import MANIFEST, Corpus
from foundation.data.tokenizer import Tokenizer
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from foundation.train.checkpoint import load_into
from foundation.train.config import Precision
from foundation.train.foundation import Foundation


@dataclass(frozen=True, slots=True)
class Subject:
    """A foundation on a device, in eval mode. seq_len: most tokens of a row, as far as pretraining showed positions."""

    foundation: Foundation
    objective: PretrainingObjective
    seq_len: int
    device: torch.device
    precision: Precision

    @property
    def tokenizer(self) -> Tokenizer:
        """Its own."""
        return self.foundation.tokenizer


def load_subject(foundation: Foundation, device: torch.device, precision: Precision) -> Subject:
    """Put encoder and heads together. Raises UserError where there is no masked-language-model head to ask."""
    if not any(name.startswith("heads.mlm.") for name in foundation.tensors):
        raise UserError(
            f"{foundation.path} has no head that fills masks, so it cannot be evaluated without training"
            + (": it was fine-tuned; evaluate the foundation that it came from" if "task" in foundation.info else "")
        )
    seq_len = min(foundation.model.max_seq_len, int(foundation.info.get("seq_len", foundation.model.max_seq_len)))
    tokenizer = foundation.tokenizer
    objective = PretrainingObjective(
        _objective_config(foundation), foundation.model, tokenizer.specials, tokenizer.continues_word, seq_len=seq_len
    )
    load_into(objective, foundation.tensors, str(foundation.path))
    return Subject(foundation, objective.to(device).eval(), seq_len, device, precision)


def _objective_config(foundation: Foundation) -> ObjectiveConfig:
    """As it was pretrained; where that is not told, as an imported foundation's heads say."""
    source = str(foundation.path / "config.json")
    if "objective" in foundation.info:
        return from_plain(ObjectiveConfig, foundation.info["objective"], source)
    has_pairs = any(name.startswith("heads.pair.") for name in foundation.tensors)
    return ObjectiveConfig(masking=MaskingConfig(), sentence_task=SentenceTask.nsp if has_pairs else SentenceTask.none)


def find_corpus(foundation: Foundation, runs_dir: Path) -> Corpus | None:
    """The corpus that the foundation was trained on, by its fingerprint, if it still is in <runs_dir>/corpora."""
    wanted = foundation.info.get("corpus")
    for manifest in sorted((runs_dir / "corpora").glob(f"*/{MANIFEST}")):
        if wanted and read_json(manifest).get("fingerprint") == wanted:
            return Corpus.open(manifest.parent)
    return None
