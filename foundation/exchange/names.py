"""Weights by our names and by those of the stock classes: one table, read in both directions.

A table maps modules, ours to theirs; {n} stands for the number of a layer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_NUMBER = re.compile(r"\.(\d+)\.")
_PARTS = ("query", "key", "value")
_FUSED = re.compile(r"(.*\.attention)\.qkv\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class NameTable:
    """modules: ours -> theirs. splits_qkv: queries, keys and values are three matrices there, and one here."""

    modules: dict[str, str]
    splits_qkv: bool = False

    def __or__(self, other: "NameTable") -> "NameTable":
        """Both tables as one: an encoder with its heads."""
        return NameTable(self.modules | other.modules, self.splits_qkv or other.splits_qkv)

    def to_stock(self, ours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every weight under its stock name; a name that the table does not know raises KeyError."""
        parts = _split(ours) if self.splits_qkv else ours
        return {_renamed(name, self.modules): tensor for name, tensor in parts.items()}

    def from_stock(self, theirs: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Every weight that the table knows under our name, and the names of the rest."""
        back = {stock: own for own, stock in self.modules.items()}
        known = {name: tensor for name, tensor in theirs.items() if _pattern(name)[0] in back}
        ours = {_renamed(name, back): tensor for name, tensor in known.items()}
        return _fused(ours) if self.splits_qkv else ours, sorted(theirs.keys() - known.keys())


def _pattern(name: str) -> tuple[str, str, str]:
    """`a.3.b.weight` -> (`a.{n}.b`, `3`, `weight`)."""
    module, _, kind = name.rpartition(".")
    found = _NUMBER.search(f"{module}.")
    return (_NUMBER.sub(".{n}.", f"{module}.", count=1)[:-1], found[1] if found else "", kind)


def _renamed(name: str, modules: dict[str, str]) -> str:
    module, number, kind = _pattern(name)
    return f"{modules[module].replace('{n}', number)}.{kind}"


def _split(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """`attention.qkv` as `attention.query`, `attention.key`, `attention.value`."""
    parts: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        if found := _FUSED.fullmatch(name):
            names = [f"{found[1]}.{part}.{found[2]}" for part in _PARTS]
            parts |= {key: part.clone() for key, part in zip(names, tensor.chunk(3), strict=True)}
        else:
            parts[name] = tensor
    return parts


def _fused(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of _split; a part without its two companions stays as it is, and will be missed under its own name."""
    whole = dict(ours)
    for name in ours:
        if not name.rpartition(".")[0].endswith(".attention.query"):
            continue
        names = [name.replace(".query.", f".{part}.") for part in _PARTS]
        if all(key in ours for key in names):
            whole[name.replace(".query.", ".qkv.")] = torch.cat([whole.pop(key) for key in names])
    return whole


def with_prefix(names: Iterable[str], prefix: str) -> dict[str, str]:
    """For each name of a checkpoint the one below `prefix`: a bare model (BertModel) is saved without it."""
    names = list(names)
    bare = not any(name.startswith(prefix) for name in names)
    return {name: prefix + name if bare else name for name in names}
