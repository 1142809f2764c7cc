"""The cells of the study and of its smoke version: what is run, in which order, and what it is expected to take."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

# In order; each with the module that does it.
STAGES = {
    "data": "small_tasks",
    "pretrain": "foundation.pretrain",
    "finetune": "foundation.finetune",
    "represent": "foundation.represent",
    "report": "foundation.homogenize",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One command. estimate_s: seconds on two idle cores, two cells at a time; replaced by the measured ones in --list."""

    name: str
    stage: str
    arguments: list[str]
    estimate_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Foundations that differ in their seed only, and how they are fine-tuned. prefix: of the arm's names in result folders."""

    name: str
    seeds: list[int]
    pretrain: list[str]
    pretrain_s: float
    corpora: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=lambda: ["full"])
    is_main: bool = False

    def foundations(self) -> list[tuple[str, list[str]]]:
        """Name of each, and its own arguments."""
        found = []
        for seed in self.seeds:
            own = [f"seed={seed}", *self.pretrain]
            if self.corpora:
                own.append(f"data.files=[{self.corpora[seed % len(self.corpora)]}]")
            found.append((f"{self.name}-{seed}", own))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Read from a YAML file beside this one. tasks: name → the arguments that choose it. shards: parts of the training rows."""

    runs_dir: str
    tasks: dict[str, list[str]]
    finetune: list[str]
    finetune_s: float
    seeds: int
    scratch_seeds: int
    shards: int
    arms: list[Arm]
    multitask: list[str] = field(default_factory=list)
    represent: list[str] = field(default_factory=list)
    homogenize: list[str] = field(default_factory=list)
    small_tasks: bool = False


def read_grid(path: Path) -> Grid:
    """The file's content; a key that nobody knows stops it."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Grid(**{**content, "arms": [Arm(**arm) for arm in content["arms"]]})


def cells(grid: Grid) -> list[Cell]:
    """All of them, by stage."""
    found = [Cell("data/small-tasks", "data", [grid.runs_dir], 5)] if grid.small_tasks else []
    for arm in grid.arms:
        for name, own in arm.foundations():
            found.append(
                _cell(grid, f"pretrain/{name}", "pretrain", [*own, f"name={name}", "resume=auto"], arm.pretrain_s)
            )
            found += _finetunes(grid, arm, name)
    found += _scratch(grid)
    if grid.represent:
        found.append(_cell(grid, "represent", "represent", grid.represent, 60))
    found.append(_cell(grid, "report", "report", grid.homogenize, 60))
    return sorted(found, key=lambda cell: list(STAGES).index(cell.stage))


def _cell(grid: Grid, name: str, stage: str, arguments: list[str], estimate_s: float) -> Cell:
    return Cell(name, stage, [*arguments, f"runs_dir={grid.runs_dir}"], estimate_s)


def _finetunes(grid: Grid, arm: Arm, foundation: str) -> list[Cell]:
    """Same data: every seed on the first shard. Disjoint: the second and third seed on a shard of their own besides."""
    found = []
    for task, chosen in grid.tasks.items():
        for method in arm.methods:
            label = method if arm.is_main else f"{method}-{arm.name}"
            base = [*chosen, *grid.finetune, f"foundation={foundation}", f"sharing={method}", *_named(arm, label)]
            name = f"finetune/{foundation}/{task}/{method}"
            same = [*base, f"seeds={grid.seeds}", *_shard(grid, 1)]
            found.append(_cell(grid, name, "finetune", same, grid.finetune_s * grid.seeds))
            if arm.is_main and method == "full":
                for part in range(2, grid.shards + 1):
                    other = [*base, "seeds=1", f"seed={part - 1}", *_shard(grid, part)]
                    found.append(_cell(grid, f"{name}/shard-{part}", "finetune", other, grid.finetune_s))
    if arm.is_main and grid.multitask:
        joint = [*grid.multitask, *grid.finetune, f"foundation={foundation}", f"seeds={grid.seeds}", *_shard(grid, 1)]
        expected = grid.finetune_s * grid.seeds * len(grid.tasks)
        found.append(_cell(grid, f"finetune/{foundation}/multitask", "finetune", joint, expected))
    return found


def _named(arm: Arm, label: str) -> list[str]:
    """Arms other than the main one get names of their own, so that their foundations are not taken for the main one's."""
    return [] if arm.is_main else [f"name={label}"]


def _shard(grid: Grid, part: int) -> list[str]:
    return [f"shard={part}/{grid.shards}"] if grid.shards > 1 else []


def _scratch(grid: Grid) -> list[Cell]:
    like = next(name for arm in grid.arms if arm.is_main for name, _ in arm.foundations())
    found = []
    for task, chosen in grid.tasks.items():
        same = [
            *chosen,
            *grid.finetune,
            "foundation=scratch",
            f"like={like}",
            f"seeds={grid.scratch_seeds}",
            *_shard(grid, 1),
        ]
        found.append(_cell(grid, f"finetune/scratch/{task}", "finetune", same, grid.finetune_s * grid.scratch_seeds))
    return found
