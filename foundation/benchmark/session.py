"""The bench: every case's contenders take turns, round after round; what they did is written after each case."""

import os
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from foundation.benchmark.cases import Case, build_cases
from foundation.benchmark.config import BenchConfig
from foundation.benchmark.contender import Player, Setup
from foundation.benchmark.report import FORMULA, summary, table
from foundation.core import provenance
from foundation.core.device import choose_device
from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json

RESULT_FILE = "bench.json"


def bench(cfg: BenchConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure the chosen cases. A case that bench.json already holds is measured anew; the others stay in it."""
    device = choose_device(cfg.trainer.device).type
    if cfg.peers:
        _require_transformers()
    setup = Setup(cfg.runs_dir, device, cfg.trainer.threads, cfg.round_seconds)
    path = Path(cfg.runs_dir) / "bench" / cfg.name / RESULT_FILE
    cases: dict[str, Any] = read_json(path)["cases"] if path.is_file() else {}
    about = _about(device)
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n", flush=True)
    measured = {}
    for case in build_cases(cfg, setup):
        load = os.getloadavg()[0]  # of before it, when only the case before this one should have been at work
        measured[case.name] = {**measure(case, cfg.rounds, setup), **about, "load_before": load, "settings": settings}
        write_json(path, {"formula": FORMULA, "cases": {**cases, **measured}})
        print(table(case.name, measured[case.name]), flush=True)
    print(f"\n{FORMULA}\n{path}")
    return measured


def measure(case: Case, rounds: int, setup: Setup) -> dict[str, Any]:
    """Start all contenders, then `rounds` rounds in which each has its turn, alone."""
    with ExitStack() as stack:
        players = []
        # On a GPU's machine there are cores for all; elsewhere one after the other, so that each finds some memory.
        at_once = setup.device == "cuda"
        for contender in tqdm(case.contenders, f"{case.name}: warming up", unit="", leave=False, disable=None):
            players.append(Player(contender, setup))
            stack.callback(players[-1].close)
            if not at_once:
                players[-1].wait_until_ready()
        if at_once:
            for player in players:
                player.wait_until_ready()
        for _ in tqdm(range(rounds), f"{case.name}: rounds", unit="", leave=False, disable=None):
            for player in players:
                player.take_turn()
        return summary(case, players)


def _require_transformers() -> None:
    try:
        metadata.version("transformers")
    except metadata.PackageNotFoundError:
        raise UserError(
            "the bench compares with Hugging Face transformers, which is not installed: "
            "pip install 'foundation-encoder[bench]', or measure ours alone with peers=false"
        ) from None


def _about(device: str) -> dict[str, Any]:
    """When, where, and with what."""
    versions = provenance.versions()
    for name in ("transformers", "datasets"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    load = os.getloadavg()[0]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": provenance.machine(),
        "load_at_start": load,
        "versions": versions,
    }
