"""The part of a text that answers a question, or that none does. An item is a question; those about one text are a group.

A text longer than the model is read in overlapping windows. Training asks each window for the answer's ends, or for [CLS] where
it does not hold the answer; answering takes the best span of all windows, and "no answer" where a task allows it and [CLS] has
the higher score (Devlin et al. 2019, 4.2 and 4.3).

Letters: N questions · R windows · L tokens of a row
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.batches import Row as TokenRow
from foundation.data.tokenizer import Tokenizer
from foundation.task.batches import Targets, TokenRows
from foundation.task.config import Metric
from foundation.task.examples import Examples
from foundation.task.interval import Weighted, summed_by_group, weighted_mean
from foundation.task.kinds.answers import answer_f1, exact_match
from foundation.task.kinds.base import Answering, Answers, Kind, refuse_blank
from foundation.task.kinds.spans import N_BEST, Span, Window, best_spans, window_starts
from foundation.task.metrics import Scores
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head

Ints: TypeAlias = NDArray[np.int64]
_ID = "id"
_SIDES = ["wrong", "right"]
# Beside its windows' text a row holds the question: at most so large a share of it.
_QUESTION_SHARE = 0.5
# Logarithms of probabilities stop here, since those of 0 do not exist.
_LEAST_PROBABILITY = 1e-9
# Characters of a context that an error shows.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Questions(Examples):
    """text: the question; text_pair: the text it is about. accepted: right answers; none: there is no answer.

    places: the characters of the first of them, or (0, 0).
    """

    accepted: list[list[str]]
    places: list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRows(TokenRows):
    """A row a window, question by question. contexts: (N) texts."""

    windows: list[Window]
    contexts: list[str]


@dataclass(frozen=True, slots=True)
class SpanAnswers(Answers):
    """predicted: 1 where there is an answer, and 0. candidates: of each question the best spans, None for no answer, with the
    probability of each among them; the first is the answer.
    """

    candidates: list[list[tuple[Span | None, float]]]
    texts: list[str]


class QuestionAnswering(Kind[Questions, WindowRows, SpanAnswers]):
    """Extractive, in the form of SQuAD."""

    too_long = "texts read in windows of"

    def held_out_by(self) -> list[str]:
        """Questions about one text stay together."""
        return [str(self.cfg.text_pair)]

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """What the head tells of a token: whether an answer starts there, and ends there."""
        return ["start", "end"]

    def asks(self) -> dict[str, str]:
        """A question, and a text."""
        return {"question": self.cfg.text, "context": str(self.cfg.text_pair)}

    def inputs(self, ids: list[str], rows: Sequence[Row]) -> Questions:
        """Question and text; a question that has an id goes by it."""
        seen: dict[str, str] = {}
        names = []
        for name, row in zip(ids, rows, strict=True):
            name = row.fields.get(_ID, name)
            if name in seen:
                raise UserError(f"{row.place}: question id {name!r} stands at {seen[name]} too: give each its own")
            seen[name] = row.place
            names.append(name)
        text = [row.get(self.cfg.text) for row in rows]
        contexts = [row.get(str(self.cfg.text_pair)) for row in rows]
        refuse_blank(contexts, rows, str(self.cfg.text_pair))
        nothing = np.zeros(len(rows), np.int64)
        return Questions(names, text, contexts, nothing, [[] for _ in rows], [(0, 0) for _ in rows])

    def labelled(self, inputs: Questions, rows: Sequence[Row], labels: list[str]) -> Questions:
        """The column of answers: {"text": […], "answer_start": […]}."""
        refuse_blank(inputs.text, rows, self.cfg.text)
        accepted, places = [], []
        for name, context, row in zip(inputs.ids, inputs.text_pair or [], rows, strict=True):
            texts, starts = _answers(row, self.cfg.label)
            if not texts and not self.cfg.unanswerable:
                raise UserError(
                    f"{row.place}: question {name!r} has no answer: give it one, or set task.unanswerable=true"
                )
            for text, start in zip(texts, starts, strict=True):
                if not text.strip() or context[start : start + len(text)] != text:
                    there = context[start : start + max(len(text), 1)][:_SHOWN]
                    raise UserError(
                        f"{row.place}: question {name!r}: the answer {text!r} should begin at character {start} of the "
                        f"context, and there stands {there!r}: mend the answer or its answer_start"
                    )
            accepted.append(texts)
            places.append((starts[0], starts[0] + len(texts[0])) if texts else (0, 0))
        return replace(inputs, accepted=accepted, places=places)

    def encode(self, examples: Questions, tokenizer: Tokenizer, seq_len: int) -> WindowRows:
        """[CLS] question [SEP] window [SEP], for as many windows as the text needs; a text is tokenised once."""
        contexts = examples.text_pair or []
        different = list(dict.fromkeys(contexts))
        encoded = dict(zip(different, tokenizer.encode_with_offsets(different), strict=True))
        questions = tokenizer.encode_batch(examples.text)
        longest = int((seq_len - 3) * _QUESTION_SHARE)
        if longest < 1:
            raise UserError(
                f"the model takes {seq_len} tokens, special ones included: too few for a question and a text"
            )
        rows: list[TokenRow] = []
        windows, n_cut = [], 0
        for number, (question, context) in enumerate(zip(questions, contexts, strict=True)):
            ids, offsets = encoded[context]
            asked = question[:longest]
            room = seq_len - 3 - len(asked)
            starts = list(window_starts(len(ids), room, self.cfg.doc_stride or max(room // 2, 1)))
            n_cut += len(starts) > 1
            rows += [(asked, ids[first : first + room]) for first in starts]
            windows += [Window(number, len(asked) + 2, offsets[first : first + room]) for first in starts]
        return WindowRows(rows, tokenizer.specials, n_cut, windows=windows, contexts=contexts)

    def targets(self, examples: Questions, tokens: WindowRows, how: Answering) -> Targets:
        """(R, 2): the first and last token of the first accepted answer."""
        places = [window.place_of(*examples.places[window.item]) for window in tokens.windows]
        return np.array(places, dtype=np.int64).reshape(-1, 2)

    def head(self) -> "type[Head]":
        """Two softmaxes over the window."""
        from foundation.task.heads import SpanHead

        return SpanHead

    def output_sizes(self, tokens: TokenRows) -> Ints:
        """An output a token."""
        return tokens.row_lengths()

    def answer(self, outputs: NDArray[np.float32], tokens: WindowRows, how: Answering) -> SpanAnswers:
        """The best span of all windows of each question, or none."""
        found: list[list[tuple[Span | None, float]]] = [[] for _ in tokens.contexts]
        nothing = np.full(len(found), np.inf)
        ends = np.cumsum(tokens.row_lengths())
        first = 0
        for window, end in zip(tokens.windows, ends, strict=True):
            outputs_L2 = outputs[first:end]
            if len(window.offsets):
                spans = best_spans(outputs_L2, window, self.cfg.max_answer_tokens)
                found[window.item] += [(span, span.score) for span in spans]
            # A window without the answer should say so; only if all of them do, there is none.
            nothing[window.item] = min(nothing[window.item], float(outputs_L2[0].sum()))
            first = int(end)
        candidates = [self._ranked(spans, float(none)) for spans, none in zip(found, nothing, strict=True)]
        best = [ranked[0] for ranked in candidates]
        shares = np.array([share for _, share in best]).reshape(-1, 1)
        probabilities = np.concatenate([1 - shares, shares], axis=1)
        texts = [
            "" if span is None else text[span.start : span.end].strip()
            for text, (span, _) in zip(tokens.contexts, best, strict=True)
        ]
        logits = np.log(probabilities.clip(_LEAST_PROBABILITY)).astype(np.float32)
        predicted = np.array([span is not None for span, _ in best], dtype=np.float64)
        return SpanAnswers(predicted, logits, probabilities, candidates, texts)

    def _ranked(self, spans: list[tuple[Span | None, float]], nothing: float) -> list[tuple[Span | None, float]]:
        """The N_BEST spans, each once, and no answer where that is allowed: best first, with softmax probabilities."""
        by_place: dict[tuple[int, int], tuple[Span | None, float]] = {}
        for span, score in sorted(spans, key=lambda pair: -pair[1]):
            assert span is not None
            by_place.setdefault((span.start, span.end), (span, score))
        ranked = list(by_place.values())[:N_BEST]
        if self.cfg.unanswerable or not ranked:
            ranked = sorted([*ranked, (None, nothing)], key=lambda pair: -pair[1])
        scores = np.array([score for _, score in ranked])
        powers = np.exp(scores - scores.max())
        return [(span, float(share)) for (span, _), share in zip(ranked, powers / powers.sum(), strict=True)]

    def decide(self, examples: Questions, answers: SpanAnswers, how: Answering) -> Decisions:
        """Right or wrong to the letter, with the probability that the model gives to accepted answers together.

        credit: the overlap in words.
        """
        contexts = examples.text_pair or []
        groups = {context: f"text-{number}" for number, context in enumerate(dict.fromkeys(contexts))}
        pairs = list(zip(answers.texts, examples.accepted, strict=True))
        mass = [
            sum(share for span, share in ranked if exact_match(_text(context, span), accepted))
            for ranked, context, accepted in zip(answers.candidates, contexts, examples.accepted, strict=True)
        ]
        right = np.array(mass).clip(0, 1)
        probabilities = np.stack([1 - right, right], axis=1)
        return Decisions(
            labels=_SIDES,
            item_ids=examples.ids,
            groups=[groups[context] for context in contexts],
            gold=np.ones(len(examples)),
            predicted=np.array([exact_match(said, accepted) for said, accepted in pairs]),
            logits=np.log(probabilities.clip(_LEAST_PROBABILITY)).astype(np.float32),
            probabilities=probabilities,
            credit=np.array([answer_f1(said, accepted) for said, accepted in pairs]),
            gold_text=[accepted[0] if accepted else "" for accepted in examples.accepted],
            predicted_text=answers.texts,
        )

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """Exact match and F1; of questions with and without an answer apart, where there are both."""
        assert found.credit is not None and found.gold_text is not None
        has_answer = np.array([bool(text) for text in found.gold_text])
        parts = {"": np.ones(len(found), bool)}
        if not has_answer.all():
            parts |= {"_answerable": has_answer, "_unanswerable": ~has_answer}
        values = {}
        for name, chosen in parts.items():
            if chosen.any():
                values[f"exact_match{name}"] = float(found.predicted[chosen].mean())
                values[f"answer_f1{name}"] = float(found.credit[chosen].mean())
        return Scores(values)

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Resampled by text."""
        assert found.credit is not None
        worth = found.predicted if metric is Metric.exact_match else found.credit
        return weighted_mean(*(summed_by_group(part, found.groups) for part in (worth, np.ones_like(worth))))

    def constant(self, train: Questions, gold: Questions, how: Answering) -> Decisions:
        """That there is no answer; where there always is one, the beginning of the text: as much as an answer is long."""
        length = int(np.median([end - start for start, end in train.places]))
        spans = [None if self.cfg.unanswerable else Span(0, length, 0.0) for _ in gold.ids]
        sure: list[list[tuple[Span | None, float]]] = [[(span, 1.0)] for span in spans]
        texts = [_text(context, span) for context, span in zip(gold.text_pair or [], spans, strict=True)]
        ones = np.ones((len(gold), 2))
        return self.decide(gold, SpanAnswers(ones[:, 0], ones.astype(np.float32), ones, sure, texts), how)

    def describe(self, examples: Questions, answers: SpanAnswers, how: Answering) -> Iterator[dict[str, Any]]:
        """The answer, where its characters stand in the text, up to `end`, and how probable it is; null: there is none."""
        for number, (text, ranked) in enumerate(zip(answers.texts, answers.candidates, strict=True)):
            span, share = ranked[0]
            start = None if span is None else _first_character(examples, number, span)
            yield {
                "answer": None if span is None else text,
                "start": start,
                "end": None if start is None else start + len(text),
                "probability": share,
            }


def _first_character(examples: Questions, number: int, span: Span) -> int:
    """The first character of an answer that is not white space: a byte-level token may begin with a space."""
    raw = (examples.text_pair or [])[number][span.start : span.end]
    return span.start + len(raw) - len(raw.lstrip())


def _text(context: str, span: Span | None) -> str:
    return "" if span is None else context[span.start : span.end].strip()


def _answers(row: Row, column: str) -> tuple[list[str], list[int]]:
    """Texts and first characters of a row's answers."""
    written = row.get(column)
    try:
        content = json.loads(written)
        texts, starts = [str(text) for text in content["text"]], [int(start) for start in content["answer_start"]]
        if len(texts) == len(starts) and all(start >= 0 for start in starts):
            return texts, starts
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        pass
    raise UserError(
        f"{row.place}: column {column!r} is {written[:_SHOWN]!r} where answers should be, as in "
        '{"text": ["an answer"], "answer_start": [17]}: mend the row'
    )
