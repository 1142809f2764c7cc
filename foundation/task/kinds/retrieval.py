"""An order of texts, by how well they go with a first one: the right reply among others. An item is a query.

A cross-encoder, in training the same as multiple choice: query and candidate are read together, as sentence pairs are in
pretraining, so that every word of the one sees every word of the other. A bi-encoder would be cheaper over large collections, but
its in-batch negatives make the loss depend on how a step is cut into micro-batches, and that may change speed only. Candidates
are given, or drawn among the right texts of the split's other rows, as in Lowe et al. 2015 (Ubuntu Dialogue Corpus, 1 in 10).

Letters: N queries · C candidates
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.randomness import rng
from foundation.task.config import Metric
from foundation.task.interval import Weighted, weighted_mean
from foundation.task.kinds.base import Answering, Answers, refuse_blank
from foundation.task.kinds.multiple_choice import MultipleChoice, Options
from foundation.task.metrics import Scores
from foundation.task.predictions import Decisions
from foundation.task.row import Row

_DRAW_SEED = 0
# Texts drawn for each candidate that is needed: some are the same as others.
_SPARE_DRAWS = 4
_RECALLS = {Metric.recall_at_1: 1, Metric.recall_at_2: 2, Metric.recall_at_5: 5}


class Retrieval(MultipleChoice):
    """With task.choices the candidates are given, and the label says which is right; with task.text_pair they are drawn."""

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """The numbers of the candidates."""
        return super().label_names(rows) if self.cfg.choices else [str(k) for k in range(self.cfg.n_candidates)]

    def asks(self) -> dict[str, str]:
        """A text, and those that it is to be held against."""
        return super().asks() if self.cfg.choices else {"text": self.cfg.text, "candidates": str(self.cfg.text_pair)}

    def inputs(self, ids: list[str], rows: Sequence[Row]) -> Options:
        """Queries with their candidates; where they are to be drawn, only the right one so far, or those of a list."""
        if self.cfg.choices:
            return super().inputs(ids, rows)
        text = [row.get(self.cfg.text) for row in rows]
        column = str(self.cfg.text_pair)
        choices = [row.get_list(column) or [row.get(column)] for row in rows]
        for candidates, row in zip(choices, rows, strict=True):
            refuse_blank(candidates, [row] * len(candidates), column)
        return Options(ids, text, None, np.zeros(len(rows), np.int64), choices)

    def labelled(self, inputs: Options, rows: Sequence[Row], labels: list[str]) -> Options:
        """The right candidate's number; candidates that are to be drawn are, as a function of the split alone."""
        if self.cfg.choices:
            return super().labelled(inputs, rows, labels)
        refuse_blank(inputs.text, rows, self.cfg.text)
        self._refuse_lists(rows)
        right = [candidates[0] for candidates in inputs.choices]
        different = list(dict.fromkeys(right))
        if len(different) < self.cfg.n_candidates:
            raise UserError(
                f"task {self.cfg.name} has {len(different)} different texts in column {self.cfg.text_pair!r} of a split, and "
                f"{self.cfg.n_candidates} candidates are to be ranked: lower task.n_candidates"
            )
        generator = rng(_DRAW_SEED, "candidates", len(rows))
        places = generator.integers(self.cfg.n_candidates, size=len(rows))
        n = self.cfg.n_candidates
        others = [_others(text, right, different, n - 1, generator) for text in right]
        choices = [
            [*wrong[:place], text, *wrong[place:]] for wrong, text, place in zip(others, right, places, strict=True)
        ]
        return replace(inputs, choices=choices, labels=places.astype(np.int64))

    def _refuse_lists(self, rows: Sequence[Row]) -> None:
        """Of several right texts all but one would be lost, or be drawn as wrong ones."""
        column = str(self.cfg.text_pair)
        for row in rows:
            if (listed := row.get_list(column)) is not None and len(listed) != 1:
                raise UserError(
                    f"{row.place}: column {column!r} has a list of {len(listed)} texts where one right text should be: give "
                    "each a row of its own, or all candidates and which is right (task.choices, task.label)"
                )

    def decide(self, examples: Options, answers: Answers, how: Answering) -> Decisions:
        """credit: 1 / the rank of the right candidate; among equals it is the last."""
        found = super().decide(examples, answers, how)
        right_N1 = found.logits[np.arange(len(found)), examples.labels.astype(np.int64)][:, None]
        return replace(found, credit=1.0 / (found.logits >= right_N1).sum(1))

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """Mean reciprocal rank, and how often the right one is among the first."""
        assert found.credit is not None
        values = {Metric.mrr.value: float(found.credit.mean())}
        return Scores(values | {metric.value: float(_within(found.credit, k).mean()) for metric, k in _RECALLS.items()})

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Every query is a group of its own."""
        assert found.credit is not None
        return weighted_mean(found.credit if metric is Metric.mrr else _within(found.credit, _RECALLS[metric]))

    def constant(self, train: Options, gold: Options, how: Answering) -> Decisions:
        """The candidates as they stand."""
        logits = np.tile(-np.arange(how.n_out, dtype=np.float32), (len(gold), 1))
        shares = np.full(logits.shape, 1 / how.n_out)
        return self.decide(gold, Answers(np.zeros(len(gold)), logits, shares), how)

    def describe(self, examples: Options, answers: Answers, how: Answering) -> Iterator[dict[str, Any]]:
        """The candidates, best first, with their scores."""
        for number, choices in enumerate(examples.choices):
            scores = answers.logits[number, : len(choices)]
            order = np.argsort(-scores, kind="stable")
            yield {"ranked": [{"text": choices[k], "candidate": int(k), "score": float(scores[k])} for k in order]}


def _within(credit: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return (np.round(1 / credit) <= k).astype(np.float64)


def _others(right: str, texts: list[str], different: list[str], n: int, generator: np.random.Generator) -> list[str]:
    """n of `different`, in which every one of `texts` is once, but not the right one; commoner ones more likely."""
    others: list[str] = []
    for number in generator.integers(len(texts), size=_SPARE_DRAWS * (n + 1)):
        if len(others) == n:
            break
        if texts[number] != right and texts[number] not in others:
            others.append(texts[number])
    if len(others) < n:  # so few different texts that chance did not find them all
        others += [text for text in different if text != right and text not in others][: n - len(others)]
    return others
