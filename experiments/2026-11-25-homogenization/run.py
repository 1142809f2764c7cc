"""Run what is missing of the study:  python experiments/2026-11-25-homogenization/run.py [smoke|study] [--list] [--only REGEX].

A cell is one command of the project in a process of its own. Its mark, <runs_dir>/cells/<name>.json, holds the command and the
seconds it took; a cell that has its mark, with the command it has now, is not run again. One that failed leaves its output in a
.log beside.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from grid import STAGES, Cell, Grid, cells, read_grid  # noqa: E402


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("grid", nargs="?", default="study", choices=sorted(path.stem for path in HERE.glob("*.yaml")))
    parser.add_argument("--list", action="store_true", help="show the cells, what each takes, and what is done")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only cells whose names match, as in --only 'pretrain|full$'"
    )
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time; each has one thread then")
    chosen = parser.parse_args()
    grid = read_grid(HERE / f"{chosen.grid}.yaml")
    wanted = [cell for cell in cells(grid) if re.search(chosen.only, cell.name)]
    if not wanted:
        sys.exit(f"error: no cell is called like {chosen.only!r}: see --list")
    if chosen.list:
        show(wanted, grid, chosen.jobs)
        return 0
    started = time.perf_counter()
    for stage in STAGES:
        missing = [cell for cell in wanted if cell.stage == stage and (stage == "report" or not is_done(grid, cell))]
        with ThreadPoolExecutor(1 if stage in ("data", "report") else chosen.jobs) as pool:
            ended_well = list(pool.map(lambda cell: run(grid, cell, chosen.jobs), missing))
        failed = [cell.name for cell, ok in zip(missing, ended_well, strict=True) if not ok]
        if failed:
            print(
                f"failed: {', '.join(failed)}; their outputs are in {Path(grid.runs_dir) / 'cells'}; run again to go on"
            )
            return 1
    print(f"{len(wanted)} cells, {time.perf_counter() - started:.0f} s in all")
    return 0


def mark(grid: Grid, cell: Cell) -> Path:
    """The file that says a cell is done."""
    return Path(grid.runs_dir) / "cells" / f"{cell.name.replace('/', '--')}.json"


def command_of(cell: Cell) -> list[str]:
    """What follows the interpreter's name."""
    module = STAGES[cell.stage]
    program = ["-m", module] if module.startswith("foundation.") else [str(HERE / f"{module}.py")]
    return [*program, *cell.arguments]


def is_done(grid: Grid, cell: Cell) -> bool:
    """Whether the cell was run as it is asked for now: a mark from before a change of the grid is of another cell."""
    path = mark(grid, cell)
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["command"] == command_of(cell)


def run(grid: Grid, cell: Cell, jobs: int) -> bool:
    """Whether the command ended well."""
    path = mark(grid, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
    command = [sys.executable, *command_of(cell)]
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **threads}, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        print(f"  FAILED  {cell.name}: {log.read_text(errors='replace').strip().splitlines()[-1:]}", flush=True)
        return False
    path.write_text(
        json.dumps({"command": command[1:], "seconds": round(seconds, 1)}, indent=2) + "\n", encoding="utf-8"
    )
    if cell.stage == "report":
        print(log.read_text(encoding="utf-8"))
    print(f"  {seconds:6.0f} s  {cell.name}", flush=True)
    return True


def show(wanted: list[Cell], grid: Grid, jobs: int) -> None:
    """Each cell with its seconds, measured where it was run, and what is left to pay."""
    left = 0.0
    for cell in wanted:
        done = is_done(grid, cell)
        seconds = json.loads(mark(grid, cell).read_text(encoding="utf-8"))["seconds"] if done else cell.estimate_s
        left += 0 if done else seconds
        print(f"  {'done' if done else '    '} {seconds:7.0f} s  {cell.name}")
    print(f"{len(wanted)} cells; left: about {left / jobs / 60:.0f} minutes with {jobs} at a time")


if __name__ == "__main__":
    sys.exit(main())
