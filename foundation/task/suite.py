"""Several tasks in one command, and several ways of sharing one foundation between them. Only missing cells run."""

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from foundation.core.distributed import is_main
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.model.sharing.config import SharingMethod
from foundation.task.cell import Arm
from foundation.task.config import Source, TaskConfig
from foundation.task.costs import TENSORS_FILE, read_manifest, sharing_degree
from foundation.task.examples import TaskData
from foundation.task.interval import macro_differences
from foundation.task.load import place_of
from foundation.task.multitask import Together, refuse_differences, run_multitask
from foundation.task.protocol import (
    Asked,
    find_starts,
    prepare_arms,
    read_data,
    run_arms,
    run_studies,
    say,
    study_of,
    workplace,
)
from foundation.task.results import StudyResult
from foundation.task.start import Start, adds_weights
from foundation.task.study_config import FinetuneConfig
from foundation.task.suite_table import degrees_table, rows_of, suite_table, write_csv

SUITE_FILE, TABLE_FILE = "suite.json", "suite.csv"


@dataclass(frozen=True, slots=True)
class Member:
    """One task under one way of sharing, with the settings that it would have alone."""

    cfg: FinetuneConfig
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """studies: by method, then by task. left_out: tasks without data, and why. degrees: by method, of the first arm."""

    name: str
    studies: dict[str, dict[str, StudyResult]]
    left_out: dict[str, str]
    degrees: dict[str, float] = field(default_factory=dict)


def run_suite(name: str, members: list[Member], parents: dict[str, str] | None = None) -> SuiteResult:
    """Read all data, then run every member, then say what they come to together.

    Args:
        members: in an order in which parents come before the tasks that start from them.
        parents: task -> task; the encoder of the other's arm, seed by seed, is taken in the foundation's place.

    Raises:
        UserError: no foundation; data that are there and wrong; no data for any task. A task whose files are not there and
            that the hub does not give is left out, and so are those that start from it, which is said.
    """
    with workplace(members[0].cfg) as device:
        parents = parents or {}
        for member in members:
            member.cfg.check()
            _refuse_parent(member.cfg, find_starts(member.cfg)[0], parents)
        refuse_differences([m.cfg for m in members if m.cfg.sharing.method is SharingMethod.multitask])
        data, left_out = _read_all(members, parents)
        studies = _run_all(members, parents, data, device)
        degrees = {method: degree for method, of in studies.items() if (degree := _degree(of)) is not None}
        result = SuiteResult(name, studies, left_out, degrees)
        for method in studies:
            say(suite_table(f"{name}, sharing={method}", studies[method], left_out))
        if len(studies) > 1:
            say(degrees_table(studies, degrees))
        if is_main():
            _write(members, result)
        return result


def _refuse_parent(cfg: FinetuneConfig, start: Start, parents: dict[str, str]) -> None:
    """Raise UserError where the task cannot take up the encoder of its parent, which is shared as it is itself."""
    child, method = cfg.task.name, cfg.sharing.method
    if child not in parents:
        return
    if method is SharingMethod.multitask:
        raise UserError(
            f"{child} starts from {parents[child]}, and sharing=multitask trains all tasks at once: leave out one of the two"
        )
    if start.is_scratch:
        raise UserError(
            f"foundation=scratch starts from nothing, and {child} from {parents[child]}: leave out task.parents"
        )
    if adds_weights(start.foundation.model, cfg.sharing):
        raise UserError(
            f"{child} cannot start from {parents[child]}, to whose encoder sharing={method.value} adds weights that the "
            "foundation does not have: use sharing=full or sharing=top_k, or leave out task.parents"
        )


def _read_all(members: list[Member], parents: dict[str, str]) -> tuple[dict[str, TaskData], dict[str, str]]:
    """The data of every task, once, before anything is trained; and of those that are left out the reason."""
    data: dict[str, TaskData] = {}
    left_out: dict[str, str] = {}
    for member in members:
        task = member.cfg.task
        if task.name in data or task.name in left_out:
            continue
        try:
            if (parent := parents.get(task.name)) in left_out:
                left_out[task.name] = f"it starts from {parent}, which is left out"
            else:
                data[task.name] = read_data(member.cfg)
        except UserError as error:
            if _is_here(task):
                raise  # it can be mended, and a suite without it would be another one
            left_out[task.name] = " ".join(str(error).split())
        if task.name in left_out:
            say(f"{task.name} is left out: {left_out[task.name]}")
    if not data:
        raise UserError(
            f"none of {', '.join(left_out)} has data: lay files where the tasks look for them, as said above"
        )
    return data, left_out


def _is_here(task: TaskConfig) -> bool:
    """Whether the task's own files are there, or are made here; else only the hub could give them."""
    if task.source is not Source.files or task.hub is None:
        return True
    return task.train is not None and any(place_of(folder, task.train).is_file() for folder in task.local)


def _run_all(
    members: list[Member], parents: dict[str, str], data: dict[str, TaskData], device: torch.device
) -> dict[str, dict[str, StudyResult]]:
    there = [member for member in members if member.cfg.task.name in data]
    studies: dict[str, dict[str, StudyResult]] = {member.cfg.sharing.method.value: {} for member in there}
    together = [member for member in there if member.cfg.sharing.method is SharingMethod.multitask]
    for wave in _waves([member for member in there if member not in together], parents):
        asked = []
        for member in wave:
            cfg = _after_parent(member.cfg, parents, studies[member.cfg.sharing.method.value])
            asked.append(Asked(cfg, {**member.settings, "parent": cfg.parent}, data[cfg.task.name]))
        for study, result in zip(asked, run_studies(asked, device), strict=True):
            studies[study.cfg.sharing.method.value][study.cfg.task.name] = result
    if together:
        studies[SharingMethod.multitask.value] = _run_together(together, data, device)
    order = [member.cfg.task.name for member in there]
    return {method: {task: of[task] for task in order if task in of} for method, of in studies.items()}


def _waves(members: list[Member], parents: dict[str, str]) -> list[list[Member]]:
    """Members that can run at the same time, since none of them starts from another."""

    def depth(member: Member) -> int:
        task, steps = member.cfg.task.name, 0
        while task in parents:
            task, steps = parents[task], steps + 1
        return steps

    return [list(wave) for _, wave in groupby(sorted(members, key=depth), depth)]


def _run_together(members: list[Member], data: dict[str, TaskData], device: torch.device) -> dict[str, StudyResult]:
    """All tasks in one training, and each task's other arm alone."""
    arms: dict[str, list[Arm]] = {}
    for member in members:
        name = member.cfg.task.name
        arms[name] = prepare_arms(member.cfg, member.settings, data[name], device)
    firsts = [Together(of[0], data[name]) for name, of in arms.items()]
    folder = firsts[0].arm.start.folder.parent.parent / "+".join(arms) / firsts[0].arm.start.folder.name
    joint = dict(zip(arms, run_multitask(firsts, folder), strict=True))
    alone = iter(run_arms([(arm, data[name]) for name, of in arms.items() for arm in of[1:]]))
    return {name: study_of(of, [joint[name], *(next(alone) for _ in of[1:])]) for name, of in arms.items()}


def _after_parent(cfg: FinetuneConfig, parents: dict[str, str], done: dict[str, StudyResult]) -> FinetuneConfig:
    """The member's settings, with the arm of its parent in this suite where it has one."""
    parent = parents.get(cfg.task.name)
    return cfg if parent is None else replace(cfg, parent=str(done[parent].arms[0].folder))


def _degree(studies: dict[str, StudyResult]) -> float | None:
    """Mean over tasks of the share of a model's parameters whose bytes are the same in the models of all tasks.

    Of the first seed of the first arm; with a single task there is nothing to share with but the foundation.
    """
    manifests = [read_manifest(min(of.arms[0].folder.glob(f"seed-*/{TENSORS_FILE}"))) for of in studies.values()]
    if len(manifests) < 2:
        return None
    degrees = sharing_degree(manifests)
    return sum(degrees) / len(degrees)


def _write(members: list[Member], result: SuiteResult) -> None:
    """suite.json and suite.csv, beside the folders of the tasks: of one method below its name, of several below `methods`."""
    first = next(iter(next(iter(result.studies.values())).values())).arms[0]
    methods = list(result.studies)
    variant = members[0].cfg.name or (methods[0] if len(methods) == 1 else "methods")
    folder = first.folder.parent.parent / result.name / variant
    rows = [row for method, of in result.studies.items() for row in rows_of(method, of)]
    content: dict[str, Any] = {"suite": result.name, "left_out": result.left_out, "rows": rows}
    content["sharing_degree"] = result.degrees
    content["macro"] = {}
    for method, of in result.studies.items():
        found = [study.difference for study in of.values() if study.difference is not None]
        if found and len(found) == len(of):
            interval = macro_differences(found).interval
            content["macro"][method] = {
                "difference": interval.difference,
                "low": interval.low,
                "high": interval.high,
                "tasks": len(found),
            }
    write_json(folder / SUITE_FILE, content)
    write_csv(folder / TABLE_FILE, rows)
    say(f"  {folder}")
