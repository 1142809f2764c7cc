"""What an arm's folder says of its models, whether the arm was finished or interrupted."""

from pathlib import Path
from typing import Any

from foundation.core.files import read_json
from foundation.core.plain import from_plain
from foundation.core.run import CONFIG_FILE
from foundation.core.run_settings import read_config
from foundation.task.config import TaskConfig
from foundation.task.results import PREDICTIONS_FILE, SCORES_FILE


def arm_of(path: Path) -> Path:
    """The arm's folder of a file with predictions, its own or a seed's."""
    return path.parent.parent if path.parent.name.startswith("seed-") else path.parent


def summary_of(arm: Path) -> dict[str, Any]:
    """The arm's scores.json; without it what its settings and its seeds say, which is all but the baseline."""
    if (path := arm / SCORES_FILE).is_file():
        content: dict[str, Any] = read_json(path)
        return content
    seeds = [read_json(path) for path in sorted(arm.glob(f"seed-*/{SCORES_FILE}"))]
    settings = settings_of(arm)
    if not settings:
        return {"seeds": seeds} if seeds else {}
    task = from_plain(TaskConfig, settings["task"], str(arm / CONFIG_FILE))
    fingerprints = {"start": settings["start"], "data": settings.get("examples", "")}  # absent in arms of before it
    return {"metric": task.primary.value, "seeds": seeds, "fingerprints": fingerprints, "config": settings}


def settings_of(run: Path) -> dict[str, Any]:
    """A run folder's settings; none where it has none. Raises UserError where the file is damaged."""
    path = run / CONFIG_FILE
    return read_config(path) if path.is_file() else {}


def recipe_of(arm: Path) -> dict[str, Any]:
    """How the foundation of <foundation>/finetune/<task>/<arm> came to be; empty where that cannot be read any more."""
    if arm.parent.parent.name != "finetune":
        return {}
    run = arm.parent.parent.parent
    shape = run / "final" / "config.json"
    info = read_json(shape) if shape.is_file() else {}
    return settings_of(run) | {key: info[key] for key in ("model", "tokenizer", "corpus") if key in info}


def waiting_seeds(arm: Path, there: set[int]) -> list[int]:
    """Seeds that are done and that the arm has not collected, since it was interrupted after it had been finished once."""
    found = {int(path.parent.name.removeprefix("seed-")) for path in arm.glob(f"seed-*/{PREDICTIONS_FILE}")}
    return sorted(found - there)
