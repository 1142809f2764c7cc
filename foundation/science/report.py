"""From the store to tables, figures and one page that needs nothing but itself."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tqdm import tqdm

from foundation.core.errors import UserError
from foundation.core.files import fingerprint, hash_file, read_json, write_atomically, write_json
from foundation.science import across_tasks, costs_and_groups, within_tasks
from foundation.science.conditions import conditions
from foundation.science.config import HomogenizeConfig
from foundation.science.drawing import Picture
from foundation.science.explorer import adapted_models, explored
from foundation.science.figures import pictures
from foundation.science.findings import sentences
from foundation.science.items import Items, items_of, read_groups
from foundation.science.layers import cka_table
from foundation.science.likeness import unlike
from foundation.science.methods import methods_table
from foundation.science.notes import unbalanced
from foundation.science.records import Store
from foundation.science.refusals import refuse_unknown_specialists
from foundation.science.store import find_files, gather
from foundation.science.tables import Table
from foundation.science.within_tasks import Analysed, analyse

_TEMPLATE, RECORD_FILE = "report.html.j2", "report.json"
# What the terminal shows; the page and the CSV files have all.
_ON_TERMINAL = ("models", "pairs", "systemic_failure", "across_tasks", "methods", "sharing")


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found. lineage: names of the fine-tunes behind it. fingerprint: of their predictions."""

    tables: list[Table]
    pictures: list[Picture]
    sentences: list[str]
    items: list[dict[str, Any]]
    models: dict[str, list[str]]
    notes: list[str]
    lineage: list[str]
    fingerprint: str


def homogenize(cfg: HomogenizeConfig, settings: dict[str, Any]) -> Report:
    """Gather, analyse, write, and print. Raises UserError where the store cannot be analysed."""
    started = time.perf_counter()
    folder = Path(cfg.output)
    # Before the work, which takes minutes.
    written_before(folder)
    report = make_report(cfg)
    write_report(folder, report, settings)
    for table in report.tables:
        if table.name in _ON_TERMINAL and table.rows:
            print(table.as_text())
    print("", *report.sentences, *(f"note: {note}" for note in report.notes), sep="\n")
    print(f"\n{folder / 'report.html'}  ({time.perf_counter() - started:.0f} s)", flush=True)
    if cfg.wandb:
        from foundation.science.to_wandb import send

        send(cfg, settings, report, folder)
    return report


def make_report(cfg: HomogenizeConfig) -> Report:
    """Everything that follows from the predictions, and nothing else."""
    store = gather(cfg.runs, only_tasks=cfg.tasks)
    refuse_unknown_specialists(store.tasks, cfg.specialists)
    extra = read_groups(cfg.groups) if cfg.groups else {}
    notes = list(store.notes)
    items = {name: items_of(task, Path(cfg.runs_dir), extra, notes) for name, task in store.tasks.items()}
    found = [
        analyse(condition, cfg.sizes)
        for condition in tqdm(conditions(store), desc="analysing", unit="condition", disable=None, leave=False)
    ]
    cka = cka_table(Path(cfg.representations)) if cfg.representations else None
    members = [each.condition for each in found]
    notes += [*unlike(members), *unbalanced(members), *across_tasks.left_out(members)]
    tables = _tables(found, items, cfg, notes)
    return Report(
        tables=[*tables, *([cka] if cka else [])],
        pictures=pictures(found, cka),
        sentences=sentences(found),
        items=explored(store.tasks, items),
        models=adapted_models(store.tasks),
        notes=[*notes, *_missing(store, found)],
        lineage=[f"{m.arm}/{m.task}/seed-{m.seed}" for task in store.tasks.values() for m in task.models],
        fingerprint=fingerprint(sorted(hash_file(path) for path in find_files(cfg.runs))),
    )


def _tables(found: list[Analysed], items: dict[str, Items], cfg: HomogenizeConfig, notes: list[str]) -> list[Table]:
    members = [each.condition for each in found]
    tables = [
        within_tasks.read_table(found),
        within_tasks.pairs_table(found),
        within_tasks.systemic_table(found),
        within_tasks.profile_table(found),
        within_tasks.variance_table(found),
        methods_table(members, notes),
        costs_and_groups.sharing_table(found),
        across_tasks.convergence_table(members),
        across_tasks.scores_table(members),
        across_tasks.specificity_table(members, cfg.specialists),
        across_tasks.group_outcomes_table(members, items),
        costs_and_groups.groups_table(found, items, max(cfg.sizes)),
        within_tasks.calibration_table(found),
    ]
    return [table for table in tables if table.rows]


def _missing(store: Store, found: list[Analysed]) -> list[str]:
    """What a reader would look for and not find, with the reason."""
    notes = []
    if all(each.contrasts and each.contrasts[0].effect is None for each in found):
        notes.append(
            "there is no foundation with two seeds beside another foundation, so shared and control arms cannot be compared: "
            "pretrain with several seeds and fine-tune each with several"
        )
    if len(store.tasks) < 2:
        notes.append("one task only: convergence across tasks and the inheritance index need two")
    if not any(each.condition.is_scratch for each in found):
        notes.append("no scratch arm: add one with  python -m foundation.finetune foundation=scratch")
    return notes


def write_report(folder: Path, report: Report, settings: dict[str, Any]) -> None:
    """report.html, tables/, figures/, report.json: each whole or not at all; the files of an earlier report go, and no others.

    Raises:
        UserError: tables, figures or a page are there that no report wrote.
    """
    contents = {f"tables/{table.name}.csv": table.as_csv() for table in report.tables}
    contents |= {f"figures/{picture.name}.svg": picture.svg for picture in report.pictures}
    contents["report.html"] = page(report)
    for name in written_before(folder) - contents.keys():
        (folder / name).unlink(missing_ok=True)
    record = {"predictions": report.fingerprint, "settings": settings, "notes": report.notes, "files": sorted(contents)}
    # First, so that what an interrupted report leaves is known to be a report's.
    write_json(folder / RECORD_FILE, record)
    for name, text in contents.items():
        _write(folder / name, text)


def written_before(folder: Path) -> set[str]:
    """Files that the report in this folder wrote, as its report.json names them."""
    record = folder / RECORD_FILE
    files = set(read_json(record).get("files", [])) if record.is_file() else set()
    there = [name for name in ("report.html", "tables", "figures") if (folder / name).exists()]
    if there and not files:
        raise UserError(
            f"{folder} holds {', '.join(there)} and no {RECORD_FILE} that names them as a report's: move them away, or name "
            "another folder with output=FOLDER"
        )
    return files


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def page(report: Report) -> str:
    """HTML with everything inside: no file beside it, no address that it asks."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(_TEMPLATE).render(
        report=report,
        # Drawn by us; everything else is escaped.
        drawings=[(picture, Markup(picture.svg)) for picture in report.pictures],
        tables=[(table, *table.compact()) for table in report.tables],
        items=_embedded(report.items),
        models=_embedded(report.models),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _embedded(content: Any) -> Markup:
    """JSON that may stand inside <script>: no text can end the element."""
    return Markup(json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026"))
