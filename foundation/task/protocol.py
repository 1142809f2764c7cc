"""The protocol of a study of one task: its arms, their seeds, and what they say together. Only missing cells run."""

import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foundation.core import distributed
from foundation.core.device import choose_device
from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json
from foundation.core.memory import keep_freed_memory
from foundation.core.plain import to_plain
from foundation.core.run import Run, open_run, run_exists
from foundation.task.cell import Arm, Split, run_cell
from foundation.task.examples import TaskData
from foundation.task.interval import Differences, resampled_differences
from foundation.task.kinds.base import Answering
from foundation.task.kinds.build import build_kind
from foundation.task.load import load_task
from foundation.task.predictions import read_predictions, write_predictions
from foundation.task.results import PREDICTIONS_FILE, SCORES_FILE, ArmResult, StudyResult, study_table, summarize
from foundation.task.rows import choose_rows
from foundation.task.start import Start, arm_config, find_start
from foundation.task.study_config import FinetuneConfig
from foundation.task.workers import Work, work_off

# Where and how fast, or which cells; not what a cell gives. `start`, `examples` are fingerprints of what is used.
SPEED_ONLY = frozenset(
    {
        *("trainer", "logger", "runs_dir", "task.local", "foundation", "compare", "like", "parent", "name"),
        *("seeds", "seed", "methods", "n_train", "n_subsets", "keep_models", "jobs", "scratch_lr"),
    }
)


class Asked(NamedTuple):
    """A study of one task."""

    cfg: FinetuneConfig
    settings: dict[str, Any]
    data: TaskData


def finetune(cfg: FinetuneConfig, settings: dict[str, Any]) -> StudyResult:
    """Run every cell of one task that is not there yet, put all of them together, and print what they say."""
    with workplace(cfg) as device:
        find_starts(cfg)  # a missing foundation is said before the data is read
        (study,) = run_studies([Asked(cfg, settings, read_data(cfg))], device)
        say(study_table(study))
        return study


@contextmanager
def workplace(cfg: FinetuneConfig) -> Iterator[torch.device]:
    """The device, this rank among the others, memory and threads as asked."""
    keep_freed_memory()
    device = choose_device(cfg.trainer.device)
    distributed.setup(device.type)
    if cfg.jobs > 1 and distributed.world_size() > 1:
        raise UserError(
            f"jobs={cfg.jobs} is for one process: leave it out under torchrun, whose ranks share every cell"
        )
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    try:
        yield device
    finally:
        distributed.shutdown()


def find_starts(cfg: FinetuneConfig) -> list[Start]:
    """The arms of `foundation` and `compare`. Raises UserError where one is not there, or both are the same."""
    starts = [find_start(spec, cfg) for spec in (cfg.foundation, cfg.compare) if spec is not None]
    if len({(start.is_scratch, start.foundation.path.resolve()) for start in starts}) < len(starts):
        raise UserError(
            f"compare={cfg.compare} is the foundation itself, {starts[0].foundation.path}: name another, or compare=scratch"
        )
    return starts


def read_data(cfg: FinetuneConfig) -> TaskData:
    """The task's examples, and said what was decided about them; one rank reads first, since some are made then."""
    with distributed.main_first():
        data = load_task(cfg.task, Path(cfg.runs_dir))
    say(*data.notes)
    return data


def run_studies(asked: list[Asked], device: torch.device) -> list[StudyResult]:
    """Several, none of which needs another: one after the other, or the cells of all of them `jobs` at a time."""
    groups = [[study] for study in asked] if asked[0].cfg.jobs == 1 else [asked]
    found = []
    for group in groups:
        arms = [prepare_arms(*study, device) for study in group]
        results = iter(run_arms([(arm, study.data) for study, of in zip(group, arms, strict=True) for arm in of]))
        found += [study_of(of, [next(results) for _ in of]) for of in arms]
    return found


def prepare_arms(cfg: FinetuneConfig, settings: dict[str, Any], data: TaskData, device: torch.device) -> list[Arm]:
    """Of one task: of the foundation, and of what it is compared with."""
    return [prepare_arm(cfg, settings, start, data, device) for start in find_starts(cfg)]


def study_of(arms: list[Arm], results: list[ArmResult]) -> StudyResult:
    """One task's results, and how they differ where there are two."""
    return StudyResult(results, _compare(arms[0], results) if len(arms) == 2 else None)


def say(*lines: str) -> None:
    """Print, once for all ranks."""
    if distributed.is_main():
        print(*lines, sep="\n", flush=True)


def prepare_arm(
    cfg: FinetuneConfig, settings: dict[str, Any], start: Start, data: TaskData, device: torch.device
) -> Arm:
    """Choose the rows, tokenise them once, and try the foundation on before any work is done."""
    cfg, settings = arm_config(cfg, settings, is_scratch=start.is_scratch)
    train, selection = choose_rows(cfg, data.train)
    kind = build_kind(cfg.task)
    how = Answering(cfg.task, data.labels, cfg.pooling, start.seq_len, *kind.scale(train))
    encode = partial(kind.encode, tokenizer=start.foundation.tokenizer, seq_len=start.seq_len)
    read_as = (start.foundation.tokenizer.fingerprint, start.seq_len)
    if read_as not in data.dev_tokens:
        data.dev_tokens[read_as] = encode(data.dev)
    learnt, dev = Split(train, encode(train)), Split(data.dev, data.dev_tokens[read_as])
    keys = start.begin(cfg, how.n_out, cfg.seed).keys
    if keys is None:
        say(f"{start.name}: random weights in the shape of {start.foundation.path}")
    else:
        say(
            f"{start.name}: encoder {start.foundation.fingerprint} from {start.foundation.path}: {keys.loaded} weights "
            f"loaded, {len(keys.missing)} missing, {len(keys.unexpected)} not taken (heads of other objectives)"
        )
    cut = [f"{split.tokens.n_cut:,} of {len(split.examples):,}" for split in (learnt, dev)]
    say(f"{start.name}: {kind.too_long} {start.seq_len} tokens: {cut[0]} of train, {cut[1]} of dev")
    return Arm(
        cfg=cfg,
        settings={**settings, "start": start.identity, "examples": data.fingerprint()},
        start=start,
        how=how,
        train=learnt,
        dev=dev,
        selection=None if selection is None else Split(selection, encode(selection)),
        baseline=kind.score(kind.constant(train, data.dev, how), data.labels).values[cfg.task.primary.value],
        device=device,
    )


def run_arms(arms: list[tuple[Arm, TaskData]]) -> list[ArmResult]:
    """Run the seeds that are not there yet, arm by arm or `jobs` at a time, then collect all that are."""
    jobs = arms[0][0].cfg.jobs if arms else 1
    if jobs == 1:
        return [run_arm(arm, data) for arm, data in arms]
    # Under several methods a task has one and the same arm of random weights.
    firsts: dict[Path, tuple[Arm, TaskData]] = {}
    for arm, data in arms:
        firsts.setdefault(arm.start.folder, (arm, data))
    with ExitStack() as stack:
        runs = {folder: stack.enter_context(open_arm(arm)) for folder, (arm, _) in firsts.items()}
        works = [
            Work(arm, seed, runs[folder].id)
            for folder, (arm, _) in firsts.items()
            for seed in range(arm.cfg.seed, arm.cfg.seed + arm.cfg.seeds)
            if not is_done(arm, seed)
        ]
        work_off(works, jobs, arms[0][0].cfg.trainer.threads)
        done = {
            folder: finish_arm(arm, data, runs[folder], sum(_seconds(work) for work in works if work.arm is arm))
            for folder, (arm, data) in firsts.items()
        }
    return [done[arm.start.folder] if arm is firsts[arm.start.folder][0] else run_arm(arm, data) for arm, data in arms]


def _seconds(work: Work) -> float:
    return float(read_json(work.arm.start.folder / f"seed-{work.seed}" / SCORES_FILE)["seconds"])


def run_arm(arm: Arm, data: TaskData) -> ArmResult:
    """Run the seeds that are not there yet, then collect all that are."""
    with open_arm(arm) as run:
        started = time.perf_counter()
        for seed in range(arm.cfg.seed, arm.cfg.seed + arm.cfg.seeds):
            if not is_done(arm, seed):
                run_cell(arm, seed, arm.start.folder / f"seed-{seed}", run.id)
        return finish_arm(arm, data, run, time.perf_counter() - started)


def open_arm(arm: Arm) -> Run:
    """The arm's folder, held against other processes. Raises UserError where it was made under other settings."""
    folder = arm.start.folder
    command = distributed.command_line("finetune")
    run = open_run(folder, arm.settings, resume=run_exists(folder), speed_only=SPEED_ONLY, command=command)
    run.note(passes=to_plain(arm.passes))
    return run


def is_done(arm: Arm, seed: int) -> bool:
    """Whether the seed's cell is there, which is said."""
    if not (arm.start.folder / f"seed-{seed}" / SCORES_FILE).is_file():
        return False
    say(f"{arm.cfg.task.name}/{arm.start.name}: seed {seed} is there already")
    return True


def finish_arm(arm: Arm, data: TaskData, run: Run, seconds: float) -> ArmResult:
    """Collect the seeds; seconds: that this session took."""
    run.update(
        fingerprints={
            "start": arm.start.identity,
            "data": arm.settings["examples"],
            "tokenizer": arm.start.foundation.tokenizer.fingerprint,
        },
        ledger={"seconds": seconds},
    )
    with distributed.main_first():
        if distributed.is_main():
            _collect(arm, data, run)
    folder = arm.start.folder
    return ArmResult(
        arm.start.name, folder, read_json(folder / SCORES_FILE), read_predictions(folder / PREDICTIONS_FILE)
    )


def _collect(arm: Arm, data: TaskData, run: Run) -> None:
    """Write the arm's scores.json and predictions.parquet from those of its seeds."""
    folder, metric = arm.start.folder, arm.cfg.task.primary.value
    cells = sorted(folder.glob(f"seed-*/{SCORES_FILE}"), key=lambda path: int(path.parent.name.removeprefix("seed-")))
    seeds = [read_json(path) for path in cells]
    content = {
        "task": arm.cfg.task.name,
        "arm": arm.start.name,
        "metric": metric,
        **summarize([seed["value"] for seed in seeds]),
        "collapsed": sum(seed["collapsed"] for seed in seeds),
        "baseline": arm.baseline,
        "labels": data.labels,
        "rows": {"train": len(arm.train.examples), "dev": len(arm.dev.examples)},
        "cut": {"train": arm.train.tokens.n_cut, "dev": arm.dev.tokens.n_cut},
        "seeds": seeds,
        "seconds": sum(seed["seconds"] for seed in seeds),
        "fingerprints": run.record["fingerprints"],
        "config": arm.settings,
    }
    write_json(folder / SCORES_FILE, content)
    runs = [predictions for path in cells for predictions in read_predictions(path.parent / PREDICTIONS_FILE)]
    write_predictions(folder / PREDICTIONS_FILE, runs)


def _compare(arm: Arm, results: list[ArmResult]) -> Differences:
    """How the first arm differs from the second, over all seeds that are there."""
    metric = arm.cfg.task.primary
    first, second = ([arm.kind.weighted(metric, run) for run in result.predictions] for result in reversed(results))
    return resampled_differences(
        first,
        second,
        n_groups=results[0].predictions[0].n_groups,
        # A task has draws of its own, or those of two tasks would go together in a mean over them.
        seed=zlib.crc32(arm.cfg.task.name.encode()),
    )
