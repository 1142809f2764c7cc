"""Answers to the rows of a file, as JSON lines in the file's order; texts are read and tokenised beside the model."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from foundation.core.errors import UserError
from foundation.core.memory import keep_freed_memory
from foundation.serving.config import PredictConfig, as_list
from foundation.serving.panel import Answer, Panel, Prepared, load_panel
from foundation.task.answer import Inputs
from foundation.task.config import FileFormat, TaskConfig
from foundation.task.kinds.build import build_kind
from foundation.task.readers import format_of, read_rows
from foundation.task.row import Row

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of the file: what each task is asked about them, and the same as tokens."""

    asked: dict[str, list[Inputs]]
    prepared: Prepared

    def __len__(self) -> int:
        return len(next(iter(self.asked.values())))


def predict(cfg: PredictConfig) -> None:
    """Write one JSON object a row of the input. Raises UserError for what cannot be read or answered."""
    keep_freed_memory()
    runs = as_list(cfg.run)
    panel = load_panel(runs, cfg.trainer, cfg.batch_tokens)
    kind = cfg.format or ("txt" if cfg.input == "-" else format_of(cfg.input))
    columns = {name: columns_of(model.how.task, cfg, kind) for name, model in panel.models.items()}
    _check_output(cfg.input, cfg.output)
    rows = read_rows(cfg.input, file_format=kind, columns=_file_columns(panel, kind))
    n_rows, n_cut = 0, dict.fromkeys(panel.models, 0)
    # A bar on standard error where somebody looks, and not in the middle of the answers.
    with open_output(cfg.output) as file, tqdm(unit="row", disable=None if cfg.output != "-" else True) as bar:
        for chunk in ahead(lambda part: _prepare(panel, part, columns), chunks(rows, cfg.chunk_rows)):
            for record in records(chunk.asked, panel.answer(chunk.prepared), is_one=len(runs) == 1):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            bar.update(len(chunk))
            n_rows += len(chunk)
            for name, tokens in chunk.prepared.tokens.items():
                n_cut[name] += tokens.n_cut
    for name, count in n_cut.items():
        if count:
            longest = panel.models[name].how.seq_len
            print(f"{name}: {count:,} of {n_rows:,} rows are longer than {longest} tokens", file=sys.stderr)


def records(asked: dict[str, list[Inputs]], answers: dict[str, list[Answer]], *, is_one: bool) -> Iterator[Answer]:
    """What is written of each row: its texts, and the answer; of several tasks each under its name.

    Where a task was asked about other texts than the first, they stand in its answer.
    """
    first = next(iter(asked.values()))
    for number, inputs in enumerate(first):
        record: dict[str, Any] = dict(inputs)
        for name, answer in ((name, found[number]) for name, found in answers.items()):
            if is_one:
                record |= answer
            else:
                own = asked[name][number]
                record[name] = answer if own == inputs else {**own, **answer}
        yield record


def columns_of(task: TaskConfig, cfg: PredictConfig, kind: str) -> dict[str, str]:
    """Where each input is: as asked, else as in the task's own files; a plain text file has one column only."""
    asks = build_kind(task).asks()
    if kind == "txt":
        if len(asks) > 1 and task.text_pair is None:
            raise UserError(
                f"task {task.name} asks about more than a line of text: give csv, tsv, jsonl or its own format"
            )
        if task.text_pair is not None:
            raise UserError(f"task {task.name} is about pairs of texts: give csv, tsv or jsonl with two columns")
        return dict.fromkeys(asks, "text")
    if task.text_pair is None and cfg.text_pair is not None and isinstance(cfg.run, str):
        raise UserError(f"task {task.name} is about single texts: leave out text_pair={cfg.text_pair}")
    elsewhere = {task.text: cfg.text, task.text_pair: cfg.text_pair}
    return {name: elsewhere.get(column) or column for name, column in asks.items()}


def _file_columns(panel: Panel, kind: str) -> list[str]:
    """Names for the columns of a file that has no header: those of the first task that has such files."""
    if kind != FileFormat.conll.value:
        return []
    return next((model.how.task.columns for model in panel.models.values() if model.how.task.format), [])


def _prepare(panel: Panel, rows: list[Row], columns: dict[str, dict[str, str]]) -> Chunk:
    asked: dict[str, list[Inputs]] = {
        name: [{**_id(row), **{key: row.get(column) for key, column in where.items()}} for row in rows]
        for name, where in columns.items()
    }
    return Chunk(asked, panel.prepare(asked, [row.place for row in rows]))


def _id(row: Row) -> dict[str, str]:
    """What the file calls the row, if it does: whoever reads the answers will want it."""
    return {"id": row.fields["id"]} if "id" in row.fields else {}


def chunks(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Up to `size` items at a time."""
    waiting = iter(items)
    while chunk := list(islice(waiting, size)):
        yield chunk


def ahead(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """work(item) for each item, in order; a thread takes and works on the next one while this one is used."""
    waiting = iter(items)
    missing: Any = object()

    def step() -> Any:
        item = next(waiting, missing)
        return missing if item is missing else work(item)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(step)
        while (result := future.result()) is not missing:
            future = pool.submit(step)
            yield result


def _check_output(source: str, output: str) -> None:
    """Raises UserError where the answers would take the place of the questions."""
    if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
        raise UserError(f"output={output} is the input itself, and would take its place: choose another output=FILE")


@contextmanager
def open_output(output: str) -> Iterator[TextIO]:
    """A text file for the answers, line by line as they come; "-": standard output.

    They take the place of `output` when all are there; answers before a mistake in the input stay in <output>.part.
    """
    path = Path(output)
    if output == "-" or (path.exists() and not path.is_file()):  # a pipe, or /dev/null
        with nullcontext(sys.stdout) if output == "-" else _open_to_write(path, output) as file:
            yield file
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with _open_to_write(part, output) as file:
            yield file
        part.replace(path)
    except BaseException:
        if part.is_file() and part.stat().st_size:
            print(f"the answers before this are in {part}", file=sys.stderr)
        else:
            part.unlink(missing_ok=True)
        raise


def _open_to_write(path: Path, output: str) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {output} ({error.strerror}): choose another output=FILE") from None
