"""Asking a fine-tuned model: texts in, answers out, in order, a chunk at a time; labels are never needed."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch

from foundation.core.device import choose_device
from foundation.core.errors import UserError
from foundation.task.cell import SCORES_FILE
from foundation.task.config import PredictConfig
from foundation.task.finetuned import FineTuned, load_finetuned
from foundation.task.readers import Row, format_of, read_rows


def predict(cfg: PredictConfig) -> None:
    """Write one JSON object a row of the input. Raises UserError for what cannot be read or answered."""
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    device = choose_device(cfg.trainer.device)
    folder = find_model(Path(cfg.run))
    model = load_finetuned(folder, device, batch_rows=cfg.batch_rows, precision=cfg.trainer.precision)
    kind = cfg.format or ("txt" if cfg.input == "-" else format_of(cfg.input))
    rows = read_rows(cfg.input, file_format=kind)
    with _open_output(cfg.output) as file:
        for answer in answers(model, rows, cfg, kind):
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            file.flush()


def find_model(run: Path) -> Path:
    """The `final` of a seed's folder, of a task's folder (its first seed), or the folder itself."""
    seeds = sorted(run.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    finished = [seed for seed in seeds if (seed / SCORES_FILE).is_file()]
    for folder in (run, run / "final", *(seed / "final" for seed in finished[:1])):
        if (folder / "config.json").is_file():
            return folder
    raise UserError(
        f"there is no fine-tuned model in {run}: make one with  python -m foundation.finetune task=sst2  "
        "and name its folder, as in  run=runs/small/finetune/sst2/full"
    )


def answers(model: FineTuned, rows: Iterable[Row], cfg: PredictConfig, kind: str) -> Iterator[dict[str, Any]]:
    """For each row its texts, and its label with the probabilities of all, or its value."""
    is_pair = model.how.task.text_pair is not None
    text_column, pair_column = _columns(model, cfg, kind)
    waiting = iter(rows)
    while chunk := list(islice(waiting, cfg.chunk_rows)):
        text = [row.get(text_column) for row in chunk]
        pair = [row.get(pair_column) for row in chunk] if pair_column else None
        found = model.answer(model.tokenize(text, pair))
        for number in range(len(chunk)):
            answer: dict[str, Any] = {"text": text[number]}
            if is_pair and pair is not None:
                answer["text_pair"] = pair[number]
            if model.how.labels:
                shares = found.probabilities[number].tolist()
                answer["label"] = model.how.labels[int(found.predicted[number])]
                answer["probabilities"] = dict(zip(model.how.labels, shares, strict=True))
            else:
                answer["value"] = float(found.predicted[number])
            yield answer


def _columns(model: FineTuned, cfg: PredictConfig, kind: str) -> tuple[str, str | None]:
    """Where the texts are: as asked, else as in the task's own files; a plain text file has one column only."""
    task = model.how.task
    if kind == "txt":
        if task.text_pair is not None:
            raise UserError(f"task {task.name} is about pairs of texts: give csv, tsv or jsonl with two columns")
        return "text", None
    if task.text_pair is None and cfg.text_pair is not None:
        raise UserError(f"task {task.name} is about single texts: leave out text_pair={cfg.text_pair}")
    return cfg.text or task.text, cfg.text_pair or task.text_pair


def _open_output(output: str) -> AbstractContextManager[TextIO]:
    if output == "-":
        return nullcontext(sys.stdout)
    path = Path(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {output} ({error.strerror}): choose another output=FILE") from None
