"""Entities of B-, I- and O tags, counted as the CoNLL-2003 shared task counts them; seqeval knows how.

An entity is right when its label and both its ends are (Tjong Kim Sang & De Meulder 2003, section 3). As in their script, an I-
after another label or after O begins an entity.

Letters: G sentences
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def entities_of(tags: list[str]) -> list[tuple[str, int, int]]:
    """(label, number of the first word, of the word after the last)."""
    from seqeval.metrics.sequence_labeling import get_entities

    return [(label, first, last + 1) for label, first, last in get_entities(tags)]


def entity_counts(gold: Sequence[list[str]], said: Sequence[list[str]]) -> tuple[NDArray[np.float64], ...]:
    """(G,) each: entities that are right, that there are, and that were said."""
    pairs = [(set(entities_of(one)), set(entities_of(other))) for one, other in zip(gold, said, strict=True)]
    counts = np.array([(len(one & other), len(one), len(other)) for one, other in pairs], dtype=np.float64)
    return tuple(counts.reshape(-1, 3).T)


def score_entities(gold: list[list[str]], said: list[list[str]]) -> dict[str, float]:
    """Precision, recall and F1 over all entities: 0 where there is none."""
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    with warnings.catch_warnings():
        # zero_division says what we want, and yet numpy warns about means over no label.
        warnings.simplefilter("ignore")
        three = precision_recall_fscore_support(gold, said, average="micro", zero_division=0)[:3]
    names = ("entity_precision", "entity_recall", "entity_f1")
    return {name: float(value) for name, value in zip(names, three, strict=True)}
