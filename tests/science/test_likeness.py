"""Models that are no repetitions of each other are said to be none, in the notes and in the finding."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from foundation.core.files import read_json, write_json
from foundation.science.conditions import conditions
from foundation.science.likeness import unlike
from foundation.science.report import make_report
from foundation.science.store import gather
from tests.science import planted
from tests.science.stored import lay_arm
from tests.test_homogenize import settings

RECIPE = {"name": "x", "seed": 7, "steps": 300, "data": {"files": ["a.txt"]}, "trainer": {"device": "cpu"}}
SHAPE = {"layers": 2, "positions": "rotary"}
FINETUNE = {"foundation": "x", "seed": 0, "optim": {"lr": 0.001}, "shard": None, "trainer": {"device": "cpu"}}


def lay(runs: Path, changed: dict[int, dict[str, Any]]) -> None:
    """Four foundations and their fine-tunes; `changed`: of some, the recipe, shape and settings that are their own."""
    for p, failed_SN in enumerate(planted.failures(np.random.default_rng(0), (4, 2, 40))):
        own = changed.get(p, {})
        arm = lay_arm(runs, f"f{p}", failed_SN)
        config = {**FINETUNE, "foundation": f"f{p}", "start": f"fp-f{p}", **own.get("finetune", {})}
        write_json(arm / "scores.json", read_json(arm / "scores.json") | {"config": config})
        recipe = {**RECIPE, "name": f"f{p}", "seed": p, **own.get("recipe", {})}
        (runs / f"f{p}/config.yaml").write_text(yaml.safe_dump(recipe))
        write_json(runs / f"f{p}/final/config.json", {"model": {**SHAPE, **own.get("shape", {})}, "tokenizer": "t"})


def notes_of(runs: Path) -> list[str]:
    return unlike(conditions(gather([str(runs)])))


def test_repetitions_differ_in_seed_name_and_machine_and_that_is_not_said(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {1: {"recipe": {"trainer": {"device": "cuda"}}, "finetune": {"seed": 5, "trainer": {"device": "cuda"}}}},
    )
    assert notes_of(tmp_path) == []


def test_recipes_shapes_and_rates_that_differ_are_named(tmp_path: Path) -> None:
    lay(
        tmp_path / "runs",
        {
            2: {"recipe": {"steps": 1200, "data": {"files": ["b.txt"]}}, "shape": {"layers": 4}},
            3: {"finetune": {"optim": {"lr": 0.0003}}},
        },
    )
    settings_that_differ = "model.layers (2, 4), data.files (['a.txt'], ['b.txt']), steps (300, 1200)"
    notes = [
        "toy, full: its foundations differ in more than their seed, and differences between them are of that too: "
        + settings_that_differ,
        "toy, full: its fine-tunes were not made alike: optim.lr (0.001, 0.0003)",
    ]
    assert notes_of(tmp_path / "runs") == notes
    report = make_report(settings(tmp_path))
    assert set(notes) <= set(report.notes)
    assert f"these foundations differ in more than their seed: {settings_that_differ}; " in report.sentences[0]
    assert report.sentences[0].endswith("these fine-tunes differ in more than their seed: optim.lr (0.001, 0.0003).")


def test_of_random_weights_only_the_shape_is_compared(tmp_path: Path) -> None:
    for p, layers in enumerate((2, 2, 4)):
        lay_arm(tmp_path, f"f{p}", planted.failures(np.random.default_rng(p), (1, 1, 40))[0], variant="scratch")
        (tmp_path / f"f{p}/config.yaml").write_text(yaml.safe_dump({"steps": p}))
        write_json(tmp_path / f"f{p}/final/config.json", {"model": {"layers": layers}})
    (note,) = notes_of(tmp_path)
    assert note.endswith(": model.layers (2, 4)")
