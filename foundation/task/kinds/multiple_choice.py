"""One of a few texts: which ending, which option. An item is a question.

Each choice is a row of its own with the question before it; the head gives it one score, and the softmax is over the choices
(Zellers et al. 2018, SWAG; Devlin et al. 2019, 4.4).

Letters: N questions · C choices
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.tokenizer import Tokenizer
from foundation.task.batches import Targets, TokenRows, tokenize
from foundation.task.config import Metric
from foundation.task.examples import Examples
from foundation.task.interval import Weighted, weighted_metric
from foundation.task.kinds.base import Answering, Answers, Kind, classes_of, refuse_blank
from foundation.task.metrics import Scores
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Options(Examples):
    """text: what comes before every choice. text_pair: how each choice of a row begins, or None. choices: of each row.

    labels: (N,) number of the right one, from 0.
    """

    choices: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRows(TokenRows):
    """A row a choice, question by question. sizes: (N,) choices of each question."""

    sizes: Ints


class MultipleChoice(Kind[Options, ChoiceRows, Answers]):
    """Choices are columns, or one column of lists; their numbers count from 0, unless task.spelled says how they are written."""

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """The numbers of the choices: as many as the first row has."""
        return [str(number) for number in range(len(self._choices(rows[0])))]

    def asks(self) -> dict[str, str]:
        """A text, how its choices begin, and the choices."""
        start = {} if self.cfg.text_pair is None else {"text_pair": self.cfg.text_pair}
        columns = self.cfg.choices
        choices = {"choices": columns[0]} if len(columns) == 1 else {column: column for column in columns}
        return {"text": self.cfg.text, **start, **choices}

    def inputs(self, ids: list[str], rows: Sequence[Row]) -> Options:
        """The text, how the choices begin, and the choices."""
        text = [row.get(self.cfg.text) for row in rows]
        pair = None if self.cfg.text_pair is None else [row.get(self.cfg.text_pair) for row in rows]
        choices = [self._choices(row) for row in rows]
        return Options(ids, text, pair, np.zeros(len(rows), np.int64), choices)

    def labelled(self, inputs: Options, rows: Sequence[Row], labels: list[str]) -> Options:
        """The label column: which choice is right."""
        refuse_blank(inputs.text, rows, self.cfg.text)
        self.refuse_uneven(inputs, rows, labels)
        numbers = classes_of(labels, self.cfg.spelled)
        right = []
        for row in rows:
            written = row.get(self.cfg.label).strip()
            if written not in numbers:
                raise UserError(
                    f"{row.place}: label {written!r} is not one of the {len(labels)} choices "
                    f"({', '.join(self.cfg.spelled or labels)}): mend it"
                )
            right.append(numbers[written])
        return replace(inputs, labels=np.array(right, dtype=np.int64))

    def refuse_uneven(self, inputs: Options, rows: Sequence[Row], labels: list[str]) -> None:
        """Training and judging need the same number of choices in every row; asking does not."""
        if self.cfg.spelled and len(self.cfg.spelled) != len(labels):
            raise UserError(
                f"task.spelled has {len(self.cfg.spelled)} entries for {len(labels)} choices: give one for each"
            )
        for choices, row in zip(inputs.choices, rows, strict=True):
            if len(choices) != len(labels):
                raise UserError(
                    f"{row.place}: {len(choices)} choices where the others have {len(labels)}: mend or drop the row"
                )

    def _choices(self, row: Row) -> list[str]:
        columns = self.cfg.choices
        listed = row.get_list(columns[0]) if len(columns) == 1 else None
        choices = [row.get(column) for column in columns] if listed is None else listed
        if len(choices) < 2:
            raise UserError(
                f"{row.place}: {len(choices)} choice in {', '.join(columns)} where there should be some: mend it"
            )
        refuse_blank(choices, [row] * len(choices), ", ".join(columns))
        return choices

    def encode(self, examples: Options, tokenizer: Tokenizer, seq_len: int) -> ChoiceRows:
        """[CLS] text [SEP] choice [SEP] for every choice."""
        starts = examples.text_pair or [""] * len(examples)
        firsts, seconds = [], []
        for text, start, choices in zip(examples.text, starts, examples.choices, strict=True):
            firsts += [text] * len(choices)
            seconds += [f"{start} {choice}".lstrip() for choice in choices]
        tokens = tokenize(firsts, seconds, tokenizer, seq_len)
        sizes = np.array([len(choices) for choices in examples.choices], dtype=np.int64)
        per_unit = int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 1
        return ChoiceRows(tokens.rows, tokens.specials, tokens.n_cut, per_unit, sizes=sizes)

    def targets(self, examples: Options, tokens: ChoiceRows, how: Answering) -> Targets:
        """The number of the right choice."""
        return examples.labels

    def head(self) -> "type[Head]":
        """A score a row, cross-entropy over the rows of a question."""
        from foundation.task.heads import ChoiceHead

        return ChoiceHead

    def answer(self, outputs: NDArray[np.float32], tokens: ChoiceRows, how: Answering) -> Answers:
        """(N, C); where a question has fewer choices than another, −inf stands for those that it lacks."""
        logits = np.full((len(tokens.sizes), int(tokens.sizes.max(initial=1))), -np.inf, np.float32)
        logits[np.arange(logits.shape[1]) < tokens.sizes[:, None]] = outputs[:, 0]
        return Answers.of_highest(logits)

    def decide(self, examples: Options, answers: Answers, how: Answering) -> Decisions:
        """An item a question."""
        return answers.beside(examples.labels, examples.ids, how.labels)

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """The share that is right."""
        return Scores({"accuracy": float((found.gold == found.predicted).mean())})

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Every question is a group of its own."""
        return partial(weighted_metric, metric, found.gold, found.predicted, n_labels=len(found.labels))

    def constant(self, train: Options, gold: Options, how: Answering) -> Decisions:
        """The choice that is right most often in train, whatever it says."""
        counts = np.bincount(train.labels.astype(np.int64), minlength=how.n_out)
        logits = np.tile(counts.astype(np.float32), (len(gold), 1))
        return self.decide(gold, Answers.of_highest(logits), how)

    def describe(self, examples: Options, answers: Answers, how: Answering) -> Iterator[dict[str, Any]]:
        """The choice, its number, and how probable each is."""
        for number, choices in enumerate(examples.choices):
            best = int(answers.predicted[number])
            yield {
                "choice": best,
                "answer": choices[best],
                "probabilities": answers.probabilities[number, : len(choices)].tolist(),
            }
