"""What there is to run: the rules, the cells of both sides, and where each one's result lies."""

import itertools
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from foundation.core.errors import UserError
from foundation.core.files import read_json

# `over` names the variant that is changed. (`on` would be a truth value to YAML.)
_VARIANT_KEYS = {"name", "over", "overrides", "seeds", "steps_of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The same for every cell. common: overrides of foundation.pretrain that fix corpus and tokenizer for both sides."""

    common: list[str]
    seq_len: int  # of the examination's rows, and of the peer's
    eval_rows: int
    examination: str  # pairs or single: the one that is decided on; both are always taken
    target: float | None  # nats; null: the mean of the peer's final losses
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the peer is trained. schedule: linear (to zero) or constant, after a linear warm-up."""

    rows: int
    lr: float
    precision: str
    schedule: str = "linear"
    warmup_share: float = 0.1
    nsp: bool = True
    dropout: float = 0.1
    weight_decay: float = 0.01
    beta2: float = 0.999
    whole_sentences: bool = False  # rows filled to the brim: the peer pads as little as can be
    compiled: bool = False
    layers: int = 4
    width: int = 256
    heads: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training. recipe is set for the peer, overrides for ours; over: the variant that it changes one thing of.

    steps_of: the variant whose number of steps it gets, for a change that costs no time: a step that is timed anew would give the
    one more steps than the other, by what the machine did in those seconds. None: its own budget in steps.
    """

    side: str
    stage: str
    variant: str
    seed: int
    budget_s: float
    evaluations: int
    recipe: Recipe | None = None
    overrides: tuple[str, ...] = ()
    over: str | None = None
    steps_of: str | None = None

    @property
    def name(self) -> str:
        """A path below results/cells/."""
        return f"{self.side}/{self.stage}/{self.variant}-seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, as its JSON keeps it."""
        return {
            "budget_s": self.budget_s,
            "evaluations": self.evaluations,
            "recipe": None if self.recipe is None else asdict(self.recipe),
            "overrides": list(self.overrides),
            **({"steps_of": self.steps_of} if self.steps_of else {}),
        }


@dataclass(frozen=True, slots=True)
class Speedrun:
    """A YAML of this folder, and the folder of its results."""

    rules: Rules
    peer: dict[str, Any]
    ours: dict[str, Any]
    results: Path

    def path(self, cell: Cell) -> Path:
        """Where the cell's result is, or will be."""
        return self.results / "cells" / f"{cell.name}.json"

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What was found; None if the cell was not run.

        Raises:
            UserError: it was run under other settings.
        """
        path = self.path(cell)
        if not path.is_file():
            return None
        found: dict[str, Any] = read_json(path)
        if found["settings"] != cell.settings() or found["rules"] != trained_under(self.rules):
            raise UserError(
                f"{path} was run with other settings than {cell.variant} has now: give the variant a new name, or delete the file"
            )
        return found

    def tuning(self) -> list[Cell]:
        """The peer's short runs: its base, and every change of it."""
        part = self.peer["tune"]
        return [
            Cell(
                side="peer",
                stage="tune",
                variant=name,
                seed=part.get("seed", 0),
                budget_s=part["budget_s"],
                evaluations=part["evaluations"],
                recipe=self._recipe(changes),
            )
            for name, changes in {**_grid(part.get("grid", {})), **part.get("more", {})}.items()
        ]

    def _recipe(self, changes: dict[str, Any]) -> Recipe:
        return _made(Recipe, {**self.peer["base"], **changes}, "the peer's recipe")

    def best_recipe(self) -> tuple[str, Recipe]:
        """The tuned one, by the held-out loss at the end of its short run.

        Raises:
            UserError: the tuning is not finished, or nothing of it ended well.
        """
        found = [(cell, self.result(cell)) for cell in self.tuning()]
        if missing := [cell.variant for cell, result in found if result is None]:
            raise UserError(
                f"the peer's tuning is not finished ({', '.join(missing)} missing): run  run.py peer  first"
            )
        ended = [
            (result["curve"][-1][self.rules.examination], cell.variant, cell.recipe)
            for cell, result in found
            if result is not None and cell.recipe is not None and not result["failure"]
        ]
        if not ended:
            raise UserError("every short run of the peer failed: see the failures in results/cells/peer/tune")
        _, name, recipe = min(ended, key=lambda item: item[0])
        return name, recipe

    def at_length(self) -> dict[str, Cell]:
        """The peer's long runs of the first seed: of what was best in short ones, and of changes of it, by name.

        A rate that is too high for a warm-up of a few steps may be the best one where it has ten times as many.
        """
        part = self.peer["final"]
        _, recipe = self.best_recipe()
        changes = {"tuned": {}, **{f"tuned-{name}": change for name, change in part.get("more", {}).items()}}
        return {
            name: Cell(
                side="peer",
                stage="final",
                variant=name,
                seed=0,
                budget_s=part["budget_s"],
                evaluations=part["evaluations"],
                recipe=_made(Recipe, {**asdict(recipe), **change}, "the peer's recipe"),
            )
            for name, change in changes.items()
        }

    def finals(self) -> list[Cell]:
        """The other seeds of the long run that did best, or nothing as long as one is missing."""
        firsts = self.at_length()
        found = {name: self.result(cell) for name, cell in firsts.items()}
        ended = {
            name: result["curve"][-1][self.rules.examination]
            for name, result in found.items()
            if result is not None and not result["failure"]
        }
        if None in found.values() or not ended:
            return []
        best = firsts[min(ended, key=lambda name: ended[name])]
        return [replace(best, seed=seed) for seed in range(1, self.peer["final"]["seeds"])]

    def variants(self, seeds: int | None = None) -> list[Cell]:
        """Ours; `seeds` of each instead of what the YAML says. A variant starts from the overrides of the one it is `over`."""
        words: dict[str, tuple[str, ...]] = {}
        cells = []
        for variant in self.ours["variants"]:
            if unknown := variant.keys() - _VARIANT_KEYS:
                raise UserError(f"{variant['name']}: unknown {unknown}; known are {', '.join(sorted(_VARIANT_KEYS))}")
            name, over = variant["name"], variant.get("over")
            if over is not None and over not in words:
                raise UserError(f"{name} changes {over}, as no variant above it is called")
            if name in words:
                raise UserError(f"two variants are called {name}")
            words[name] = merged([*(words[over] if over else self.ours["base"]), *variant.get("overrides", [])])
            first = Cell(
                side="ours",
                stage="run",
                variant=name,
                seed=0,
                budget_s=self.ours["budget_s"],
                evaluations=self.ours["evaluations"],
                overrides=words[name],
                over=over,
                steps_of=variant.get("steps_of"),
            )
            cells += [replace(first, seed=seed) for seed in range(seeds or variant.get("seeds", 1))]
        return cells


def read_speedrun(path: Path, results: Path) -> Speedrun:
    """The YAML at `path`, its keys checked."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    rules = _made(Rules, content["rules"], "rules")
    if rules.examination not in ("pairs", "single"):
        raise UserError(f"rules.examination={rules.examination} must be pairs or single")
    return Speedrun(rules, content["peer"], content["ours"], results)


def trained_under(rules: Rules) -> dict[str, Any]:
    """Of the rules, what a result depends on; on what is decided can be changed without a run."""
    return {key: value for key, value in asdict(rules).items() if key not in ("examination", "target")}


def merged(words: list[str]) -> tuple[str, ...]:
    """Overrides of which the later ones win; another choice of a group takes what was said inside the group with it."""
    found: dict[str, str] = {}
    for word in words:
        key = word.partition("=")[0]
        found = {other: said for other, said in found.items() if other != key and not other.startswith(f"{key}.")}
        found[key] = word
    return tuple(found.values())


def _grid(axes: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Every combination, named by its values."""
    return {
        "-".join(f"{key}{value}" for key, value in zip(axes, values, strict=True)): dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
        if axes
    }


def _made(kind: Any, content: dict[str, Any], what: str) -> Any:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(content.keys() - known):
        raise UserError(f"{what}: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return kind(**content)
    except TypeError as error:
        raise UserError(f"{what}: {error}") from None
