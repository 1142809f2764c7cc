"""Several tasks that answer together: what their encoders have in common is in memory once, and computed once.

Letters: R rows
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.core.device import choose_device
from foundation.core.errors import UserError
from foundation.data.batches import Row, assemble
from foundation.model.row_memory import RememberingEncoder
from foundation.objective.base import clean_example
from foundation.serving.weights import hold_once, share_encoders
from foundation.task.answer import Inputs, examples_of, find_model, input_names, json_answers
from foundation.task.batches import TokenRows, by_tokens
from foundation.task.examples import Examples
from foundation.task.finetuned import FineTuned, load_finetuned
from foundation.train.config import DeviceConfig
from foundation.train.loop import autocast

Answer: TypeAlias = dict[str, Any]
_NOTHING = np.empty((0, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of some tasks, understood and tokenised: all that can be done beside the model."""

    examples: Mapping[str, Examples]
    tokens: Mapping[str, TokenRows]


class Panel:
    """Tasks by name. Their models are changed: equal weights become one, and equal encoders too."""

    def __init__(self, models: Mapping[str, FineTuned], batch_tokens: int) -> None:
        self.models, self.batch_tokens = dict(models), batch_tokens
        self.held_alone = sum(p.numel() for model in models.values() for p in model.objective.parameters())
        hold_once([model.objective for model in models.values()])
        encoders = share_encoders(list(models.values()))
        self._names_of: dict[RememberingEncoder, list[str]] = {}
        for name, encoder in zip(models, encoders, strict=True):
            self._names_of.setdefault(encoder, []).append(name)

    @property
    def encoders(self) -> list[list[str]]:
        """Names of the tasks, those with the same encoder together."""
        return list(self._names_of.values())

    @property
    def held(self) -> int:
        """Parameters in memory; held_alone is what the tasks would hold each on its own."""
        every = (p for model in self.models.values() for p in model.objective.parameters())
        return sum(p.numel() for p in {id(p): p for p in every}.values())

    def prepare(self, asked: Mapping[str, Sequence[Inputs]], places: Sequence[str] | None = None) -> Prepared:
        """Tokenise rows of some of the tasks; any thread may do it. places: what an error calls each row.

        Raises UserError for a row that cannot be asked.
        """
        examples = {name: examples_of(self.models[name], rows, places) for name, rows in asked.items() if rows}
        return Prepared(examples, {name: self.models[name].tokenize(part) for name, part in examples.items()})

    def answer(self, prepared: Prepared) -> dict[str, list[Answer]]:
        """Each task's answers, in its rows' order: a row that several tasks ask one encoder about is encoded once."""
        found: dict[str, list[Answer]] = {}
        for encoder, names in self._names_of.items():
            tokens = {name: prepared.tokens[name] for name in names if name in prepared.tokens}
            if tokens:
                for name, outputs in self._outputs_on(encoder, tokens).items():
                    found[name] = json_answers(self.models[name], prepared.examples[name], tokens[name], outputs)
        return found

    def _outputs_on(
        self, encoder: RememberingEncoder, tokens: Mapping[str, TokenRows]
    ) -> dict[str, NDArray[np.float32]]:
        """What each task's head gives, in its rows' order."""
        rows, numbers_of = _distinct(tokens)
        found: dict[str, list[NDArray[np.float32]]] = {
            name: [_NOTHING] * len(part.rows) for name, part in tokens.items()
        }
        for batch in by_tokens(rows.row_lengths(), self.batch_tokens):
            self._encode(encoder, rows.take(batch), next(iter(tokens)))
            is_here = np.zeros(len(rows), np.bool_)
            is_here[batch] = True
            for name, part in tokens.items():
                here = np.flatnonzero(is_here[numbers_of[name]])
                if len(here):
                    few = part.take(here)
                    ends = self.models[name].kind.output_sizes(few).cumsum()
                    outputs = np.split(self.models[name].outputs(few), ends[:-1])
                    for number, output in zip(here, outputs, strict=True):
                        found[name][number] = output
            encoder.forget()
        return {name: np.concatenate(outputs) if outputs else _NOTHING for name, outputs in found.items()}

    def _encode(self, encoder: RememberingEncoder, rows: TokenRows, name: str) -> None:
        """Before the tasks ask: their rows in one pass, where each alone would bring a part of them."""
        model = self.models[name]
        example = clean_example(assemble(rows.rows, rows.specials, None)).to(model.device)
        with torch.no_grad(), autocast(model.device, model.precision):
            encoder(example.ids, example.segments, example.layout())


def _distinct(tokens: Mapping[str, TokenRows]) -> tuple[TokenRows, dict[str, NDArray[np.int64]]]:
    """All rows, each once; and for each task, (R,) their numbers."""
    known: dict[tuple[bytes, ...], int] = {}
    rows: list[Row] = []
    numbers_of = {}
    for name, part in tokens.items():
        numbers = np.empty(len(part.rows), np.int64)
        for place, row in enumerate(part.rows):
            key = tuple(segment.tobytes() for segment in row)
            if key not in known:
                known[key] = len(rows)
                rows.append(row)
            numbers[place] = known[key]
        numbers_of[name] = numbers
    return TokenRows(rows, next(iter(tokens.values())).specials, 0), numbers_of


def load_panel(runs: Sequence[str], trainer: DeviceConfig, batch_tokens: int) -> Panel:
    """The models of some folders, each under its task's name, or under the folder where two have the same."""
    if trainer.threads:
        torch.set_num_threads(trainer.threads)
    device = choose_device(trainer.device)
    # The panel cuts the batches: no model need cut them again, and no row has less than a token.
    models = [
        load_finetuned(find_model(Path(run)), device, batch_rows=batch_tokens, precision=trainer.precision)
        for run in runs
    ]
    tasks = [model.how.task.name for model in models]
    taken = {name for model in models for name in input_names(model.how.task)}
    names = [
        task if tasks.count(task) == 1 and task not in taken else run for task, run in zip(tasks, runs, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UserError(f"two of the tasks have the name {max(names, key=names.count)}: leave out one")
    return Panel(dict(zip(names, models, strict=True)), batch_tokens)
