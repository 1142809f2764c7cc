"""Representations that foundation.represent stored, compared layer by layer: drift, convergence, and two anchors.

Letters: L layers (0: embeddings) · N items · D width
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import from_plain
from foundation.core.randomness import rng
from foundation.science.similarity import debiased_cka
from foundation.science.tables import Table, plain

Array: TypeAlias = NDArray[np.float32]

INDEX_FILE = "index.json"
# Pairs of a comparison: its mean needs no more, and every pair costs a product a layer.
_MOST_PAIRS = 30
# Of the noise anchor, in standard deviations of each feature over items.
_NOISE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Represented:
    """One entry of index.json. file: (L, N, D) float32. kind: finetuned, foundation or random. task, seed: of a fine-tune."""

    file: str
    kind: str
    foundation: str
    task: str = ""
    variant: str = ""
    seed: int = 0


def read_index(folder: Path) -> list[Represented]:
    """What was stored. Raises UserError where nothing was."""
    path = folder / INDEX_FILE
    if not path.is_file():
        raise UserError(f"no representations at {path}: make them with  python -m foundation.represent output={folder}")
    content: dict[str, Any] = read_json(path)
    return [from_plain(Represented, entry, str(path)) for entry in content["entries"]]


def cka_table(folder: Path) -> Table:
    """Mean debiased CKA of every kind of pair, by layer."""
    entries = read_index(folder)
    arrays = {entry.file: np.load(folder / entry.file, mmap_mode="r") for entry in entries}
    rows: list[list[Any]] = []
    for name, compared in comparisons(entries):
        chosen = rng(0, "cka").permutation(len(compared))[:_MOST_PAIRS]
        pairs = [compared[number] for number in sorted(chosen)]
        n_layers = min(len(arrays[one.file]) for pair in pairs for one in pair)
        for layer in range(n_layers):
            values = [
                debiased_cka(arrays[a.file][layer], _noisy(arrays[b.file][layer]) if a is b else arrays[b.file][layer])
                for a, b in pairs
            ]
            rows.append([name, layer, np.mean(values), np.min(values), np.max(values), len(pairs)])
    n_items = next(iter(arrays.values())).shape[1] if arrays else 0
    return Table(
        "cka",
        "Representations, layer by layer",
        f"Debiased linear CKA (HSIC₁) of mean-pooled hidden states of the same {n_items:,} texts; mean, least and most over "
        "pairs. Anchors: two untrained encoders of the same shape, and an encoder with itself under noise of half its spread.",
        ["comparison", "layer", "CKA", "least", "most", "pairs"],
        plain(rows),
    )


def _noisy(values_ND: Array) -> NDArray[np.float64]:
    noise = rng(0, "noise").normal(size=values_ND.shape)
    return values_ND + _NOISE * values_ND.std(axis=0) * noise


def comparisons(entries: list[Represented]) -> Iterator[tuple[str, list[tuple[Represented, Represented]]]]:
    """Kinds of pairs, by name; those of which there are none are left out."""
    pretrained = {e.foundation: e for e in entries if e.kind == "foundation"}
    random = [e for e in entries if e.kind == "random"]
    tuned = [e for e in entries if e.kind == "finetuned"]
    drift = [(pretrained[e.foundation], e) for e in tuned if e.foundation in pretrained]
    kinds: dict[str, list[tuple[Represented, Represented]]] = {
        "foundation to its fine-tunes (drift)": drift,
        "one foundation, two seeds": [],
        "one foundation, two tasks": [],
        "two foundations, one task": [],
        "two foundations, pretrained": list(combinations(pretrained.values(), 2)),
        "two untrained encoders (anchor)": list(combinations(random, 2)),
        "itself under noise (anchor)": [(e, e) for e in pretrained.values()],
    }
    for a, b in combinations(tuned, 2):
        if a.variant != b.variant:
            continue
        if a.foundation == b.foundation and a.task == b.task:
            kinds["one foundation, two seeds"].append((a, b))
        elif a.foundation == b.foundation:
            kinds["one foundation, two tasks"].append((a, b))
        elif a.task == b.task and a.seed != b.seed:
            kinds["two foundations, one task"].append((a, b))
    return ((name, pairs) for name, pairs in kinds.items() if pairs)
