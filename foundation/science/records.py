"""What the store holds: models, and their answers to a task.

Letters: N items · M models · K labels
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One fine-tuned model. foundation: fingerprint of the pretrained (or random) encoder; name: of its run.

    arm: its name as it was stored. variant: what was done with the foundation, as in full or lora: the arm's name without the
    foundation's and without the shard.
    scores: its record in scores.json, empty where there is none. folder: its arm's.
    settings: of the fine-tune; recipe: of the foundation, its shape and its pretraining. Both empty where they are not known.
    """

    task: str
    arm: str
    name: str
    variant: str
    sharing: str
    foundation: str
    seed: int
    data_shard: str
    folder: Path
    is_scratch: bool
    scores: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shard = "" if self.data_shard == "1/1" else f", shard {self.data_shard}"
        return f"{self.name}/{self.variant} seed {self.seed}{shard}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswers:
    """All models' answers to one task. gold_N, predicted_MN: class numbers, or values where labels is empty.

    cluster_N: items of one cluster (the words of a sentence) are no independent items. clusters: their names.
    summary: an arm's scores.json, without baseline where every arm was interrupted.
    """

    name: str
    split: str
    labels: list[str]
    item_ids: list[str]
    cluster_N: Ints
    clusters: list[str]
    gold_N: Floats
    predicted_MN: Floats
    logits_MNK: NDArray[np.float32]
    models: list[Model]
    summary: dict[str, Any]

    @property
    def n_labels(self) -> int:
        """0 for a task whose labels are numbers."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Store:
    """tasks: by name. notes: what was left out, for the user."""

    tasks: dict[str, TaskAnswers]
    notes: list[str]
