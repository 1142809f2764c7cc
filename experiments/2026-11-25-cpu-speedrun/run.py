"""The speedrun on two cores:  python experiments/2026-11-25-cpu-speedrun/run.py plan | peer | ours | report.

A cell is one training; its JSON below results/cells/ is written when it has ended, and a cell that has one is not run again.
"""

import argparse
import re
import statistics
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cells import Cell, Speedrun, read_speedrun, trained_under  # noqa: E402

from foundation.core.errors import UserError  # noqa: E402
from foundation.core.files import read_json, write_json  # noqa: E402

# Beside the training seconds of a cell, for `plan`: start and measured steps; an evaluation of either side.
_START_S = 25.0
_EVALUATION_S = {"peer": 10.0, "ours": 5.0}
_TIMINGS = 3


def main(words: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["plan", "peer", "ours", "report"])
    parser.add_argument("--speedrun", type=Path, default=HERE / "speedrun.yaml", help="rules and cells")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only cells whose names match, as in --only 'tune/'"
    )
    parser.add_argument("--seeds", type=int, help="of ours: so many instead of what the YAML says")
    parser.add_argument("--dry-run", action="store_true", help="show the cells and their minutes, run nothing")
    chosen = parser.parse_args(words)
    try:
        speedrun = read_speedrun(chosen.speedrun, chosen.results)
        if chosen.what == "report":
            from record import report

            print(report(speedrun))
        elif chosen.what == "plan" or chosen.dry_run:
            show(speedrun, "" if chosen.what == "plan" else chosen.what, chosen.only, chosen.seeds)
        elif chosen.what == "peer":
            run_all(speedrun, wanted(speedrun.tuning(), chosen.only))
            if any(re.search(chosen.only, name) for name in long_runs(speedrun)):
                run_all(speedrun, wanted(list(speedrun.at_length().values()), chosen.only))
                run_all(speedrun, wanted(speedrun.finals(), chosen.only))
        else:
            run_all(speedrun, wanted(speedrun.variants(chosen.seeds), chosen.only))
    except UserError as error:
        sys.exit(f"error: {error}")
    return 0


def wanted(cells: list[Cell], only: str) -> list[Cell]:
    """Those whose names match."""
    return [cell for cell in cells if re.search(only, cell.name)]


def long_runs(speedrun: Speedrun) -> dict[str, Cell | None]:
    """The peer's long runs by name; no cell as long as what came before does not say which recipe it has."""
    final = speedrun.peer["final"]
    known: list[Cell] = []
    with suppress(UserError):
        known = [*speedrun.at_length().values(), *speedrun.finals()]
    unknown = ["tuned", *(f"tuned-{name}" for name in final.get("more", {}))]
    names: dict[str, Cell | None] = {f"peer/final/{name}-seed0": None for name in unknown}
    names |= {cell.name: cell for cell in known}
    if len(names) == len(unknown):
        names |= {f"peer/final/BEST-seed{seed}": None for seed in range(1, final["seeds"])}
    return names


def show(speedrun: Speedrun, side: str, only: str, seeds: int | None) -> None:
    """Each cell with its minutes, as measured where it was run; and what is left to pay."""
    left = 0.0
    final = speedrun.peer["final"]
    rows: list[tuple[str, Cell | None, float]] = [
        (cell.name, cell, cell.budget_s + _START_S + cell.evaluations * _EVALUATION_S[cell.side])
        for cell in [*speedrun.tuning(), *speedrun.variants(seeds)]
    ]
    long_s = final["budget_s"] + _START_S + final["evaluations"] * _EVALUATION_S["peer"]
    rows += [(name, cell, long_s) for name, cell in long_runs(speedrun).items()]
    for name, cell, seconds in sorted(rows, key=lambda row: not row[0].startswith("peer/")):
        if not (name.startswith(side) and re.search(only, name)):
            continue
        found = speedrun.result(cell) if cell else None
        left += 0.0 if found else seconds
        minutes = (found["wall_seconds"] if found else seconds) / 60
        print(f"  {('failed' if found['failure'] else 'done') if found else '':6} {minutes:6.1f} min  {name}")
    print(f"left: about {left / 60:.0f} minutes, one cell at a time")


def run_all(speedrun: Speedrun, cells: list[Cell]) -> None:
    """Those that have no result yet."""
    for cell in cells:
        if speedrun.result(cell) is None:
            result = run(speedrun, cell)
            write_json(speedrun.path(cell), result)
            last = result["curve"][-1] if result["curve"] else None
            said = (
                f"FAILED: {result['failure']}" if result["failure"] else f"{last[speedrun.rules.examination]:.4f} nats"
            )
            print(f"  {cell.name}: {said}, {result['wall_seconds']:.0f} s", flush=True)


def run(speedrun: Speedrun, cell: Cell) -> dict[str, Any]:
    """Train and examine one cell; a run that diverges is a result too."""
    import torch
    from sides import Ours, Peer, Side, composed, examination

    from foundation.core.memory import keep_freed_memory
    from foundation.core.provenance import git_state, machine, versions
    from foundation.data.batches import Pairs
    from foundation.pretraining.build import make_corpus

    start = time.perf_counter()
    rules = speedrun.rules
    keep_freed_memory()
    torch.set_num_threads(rules.threads)
    always = [f"seed={cell.seed}", "steps=1", "name=speedrun", "trainer.device=cpu", f"trainer.threads={rules.threads}"]
    cfg = composed([*rules.common, *cell.overrides, *always])
    corpus = make_corpus(cfg)
    exams = {pairs: examination(corpus, rules, kind) for pairs, kind in (("pairs", Pairs.next), ("single", Pairs.none))}
    side: Side = Ours(cfg, corpus) if cell.recipe is None else Peer(cell.recipe, rules, corpus, cell.seed)
    result: dict[str, Any] = {
        "side": cell.side, "stage": cell.stage, "variant": cell.variant, "seed": cell.seed, "over": cell.over,
        "settings": cell.settings(), "rules": trained_under(rules),
        "corpus": corpus.fingerprint, "tokenizer": corpus.tokenizer.fingerprint,
        "held_out": {key: corpus.manifest["held_out"][key] for key in ("tokens", "words", "bytes")},
        "machine": machine(), "versions": {**versions(), "transformers": metadata.version("transformers")},
        "source": git_state(Path(__file__))[0],
    }  # fmt: skip
    curve: list[dict[str, float]] = []
    failure = ""
    try:
        result |= plan_steps(speedrun, cell, side)
        train(side, exams, result["total_steps"], cell, curve)
    except UserError as error:
        failure = str(error)
    return {**result, "failure": failure, "curve": curve, "wall_seconds": time.perf_counter() - start}


def plan_steps(speedrun: Speedrun, cell: Cell, side: Any) -> dict[str, float | int]:
    """Steps of the budget, derived once: seeds of one variant get the number of the first that was run.

    Raises:
        UserError: the steps of another variant are to be taken, and it was not run.
    """
    from foundation.train.duration import seconds_per_step

    seconds = statistics.median(seconds_per_step(side.one_step) for _ in range(_TIMINGS))
    steps = max(1, int(cell.budget_s / seconds))
    whose = cell.steps_of or cell.variant
    found = [read_json(path) for path in sorted(speedrun.path(cell).parent.glob(f"{whose}-seed*.json"))]
    known = [before["total_steps"] for before in found if before["variant"] == whose and "total_steps" in before]
    if cell.steps_of and not known:
        raise UserError(f"{cell.variant} takes the steps of {cell.steps_of}, which was not run: run that one first")
    steps = known[-1] if known else steps
    return {"total_steps": steps, "measured_seconds_per_step": seconds}


def train(side: Any, exams: dict[str, list[Any]], total_steps: int, cell: Cell, curve: list[dict[str, float]]) -> None:
    """Fill the curve. The clock holds the seconds of the steps; examinations stand beside it."""
    from sides import marks, nats_per_target
    from tqdm import tqdm

    due = set(marks(total_steps, cell.evaluations))
    clock = {"seconds": 0.0, "tokens": 0}
    with tqdm(total=total_steps, desc=cell.name, unit="step", disable=None) as bar:

        def told(step: int, n_tokens: int, seconds: float, loss: float) -> None:
            clock["seconds"] += seconds
            clock["tokens"] += n_tokens
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", trained=f"{clock['seconds']:.0f}s", refresh=False)
            if step in due:
                losses = {name: nats_per_target(side, examples) for name, examples in exams.items()}
                curve.append({"seconds": clock["seconds"], "step": step, "tokens": clock["tokens"], **losses})

        side.train(total_steps, told)


if __name__ == "__main__":
    sys.exit(main())
