"""A label for each word: parts of speech, or B-, I- and O tags of entities. An item is a word; a sentence is a group.

The first piece of a word answers for it (Devlin et al. 2019, 5.3). A sentence that is too long for the model is divided between
words and read part by part, so that every word is answered.

Letters: N sentences · W words of all sentences · L tokens of a row · K tags
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.batches import Row as TokenRow
from foundation.data.tokenizer import Tokenizer
from foundation.task.batches import Targets, TokenRows
from foundation.task.config import Metric, TagScheme
from foundation.task.conll import LINE
from foundation.task.examples import Examples
from foundation.task.interval import Weighted, summed_by_group, weighted_f1, weighted_mean
from foundation.task.kinds.base import Answering, Answers, Kind, classes_of, unknown_label
from foundation.task.kinds.entities import entities_of, entity_counts, score_entities
from foundation.task.metrics import Scores, score_classification
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head

Ints: TypeAlias = NDArray[np.int64]
_OUTSIDE = "O"
# What the loss passes over: objective/masked_lm.py's, which this file does not import since it needs torch.
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Sentences(Examples):
    """words: of each sentence. tags: their class numbers; empty arrays where nobody knows them."""

    words: list[list[str]]
    tags: list[Ints]


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRows(TokenRows):
    """starts: for each row, where its words' first pieces stand, [CLS] counted as 0. sizes: (N,) words of each sentence."""

    starts: list[Ints]
    sizes: Ints


class Tagging(Kind[Sentences, WordRows, Answers]):
    """Words and tags are lists, or divided by white space."""

    too_long = "sentences divided into parts of"

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """As configured, else those of the training rows, sorted."""
        found = {tag for row in rows for tag in _words(row, self.cfg.label) if tag.strip()}
        names = list(self.cfg.labels) or sorted(found)
        if not names:
            raise UserError(f"no training row of task {self.cfg.name} has a tag in column {self.cfg.label!r}")
        if len(names) < 2:
            raise UserError(
                f"every word of task {self.cfg.name} has the tag {names[0]!r}: there is nothing to tell apart"
            )
        if self.cfg.scheme is TagScheme.bio:
            wrong = [name for name in names if name != _OUTSIDE and name[:2] not in ("B-", "I-")]
            if wrong:
                raise UserError(
                    f"task {self.cfg.name} has the tag {wrong[0]!r}, which is neither O nor B-… nor I-…: "
                    "mend it, or set task.scheme=plain"
                )
        return names

    def label_counts(self, train: Sentences, n_labels: int) -> Ints:
        """Of words."""
        return np.bincount(np.concatenate(train.tags), minlength=n_labels)

    def asks(self) -> dict[str, str]:
        """Words."""
        return {"words": self.cfg.text}

    def inputs(self, ids: list[str], rows: Sequence[Row]) -> Sentences:
        """The column of words."""
        words = [_words(row, self.cfg.text) for row in rows]
        text = [" ".join(sentence) for sentence in words]
        return Sentences(ids, text, None, np.zeros(len(rows), np.int64), words, [np.empty(0, np.int64)] * len(rows))

    def labelled(self, inputs: Sentences, rows: Sequence[Row], labels: list[str]) -> Sentences:
        """The column of tags, one for each word."""
        classes = classes_of(labels, self.cfg.spelled)
        tags, unknown = [], []
        for sentence, row in zip(inputs.words, rows, strict=True):
            written = _words(row, self.cfg.label)
            if not sentence:
                raise UserError(f"{row.place}: column {self.cfg.text!r} has no words: give the row some, or drop it")
            if len(written) != len(sentence):
                raise UserError(f"{row.place}: {len(sentence)} words and {len(written)} tags: give each word one tag")
            unknown += [(row, number, tag) for number, tag in enumerate(written) if tag not in classes]
            tags.append(np.array([classes.get(tag, 0) for tag in written], dtype=np.int64))
        if unknown:
            row, number, _ = unknown[0]
            which = [tag for _, _, tag in unknown]
            raise unknown_label(self.cfg, _place_of_word(row, number), which, labels, len(unknown))
        return Sentences(inputs.ids, inputs.text, None, inputs.labels, inputs.words, tags)

    def encode(self, examples: Sentences, tokenizer: Tokenizer, seq_len: int) -> WordRows:
        """Each sentence as one row, or as many as it needs; of a word longer than a row, the beginning."""
        room = seq_len - 2
        if room < 1:
            raise UserError(f"the model takes {seq_len} tokens, special ones included: too few for a word")
        pieces_of = _spelling(examples.words, tokenizer)
        rows: list[TokenRow] = []
        starts, n_cut = [], 0
        for words in examples.words:
            pieces = [pieces_of[word if first == 0 else f" {word}"][:room] for first, word in enumerate(words)]
            ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
            cuts = _cuts(ends, room)
            n_cut += len(cuts) > 2
            for begin, end in pairwise(cuts):
                offset = int(ends[begin - 1]) if begin else 0
                rows.append((np.concatenate(pieces[begin:end]) if end > begin else np.empty(0, np.int64),))
                starts.append(1 + np.concatenate([[0], ends[begin : end - 1] - offset])[: end - begin].astype(np.int64))
        sizes = np.array([len(words) for words in examples.words], dtype=np.int64)
        return WordRows(rows, tokenizer.specials, n_cut, starts=starts, sizes=sizes)

    def targets(self, examples: Sentences, tokens: WordRows, how: Answering) -> Targets:
        """A tag where a word begins, and elsewhere what the loss passes over."""
        tags_W = np.concatenate(examples.tags)
        ends = np.cumsum([len(starts) for starts in tokens.starts])
        targets = []
        for starts, end, length in zip(tokens.starts, ends, tokens.row_lengths(), strict=True):
            target = np.full(length, _IGNORED, np.int64)
            target[starts] = tags_W[end - len(starts) : end]
            targets.append(target)
        return targets

    def head(self) -> "type[Head]":
        """Cross-entropy at words' first pieces."""
        from foundation.task.heads import TagHead

        return TagHead

    def output_sizes(self, tokens: TokenRows) -> Ints:
        """An output a token."""
        return tokens.row_lengths()

    def answer(self, outputs: NDArray[np.float32], tokens: WordRows, how: Answering) -> Answers:
        """(W, K): word by word, over all sentences."""
        lengths = tokens.row_lengths()
        offsets = np.cumsum(lengths) - lengths
        at = [starts + offset for starts, offset in zip(tokens.starts, offsets, strict=True)]
        logits_WK = outputs[np.concatenate(at) if at else np.empty(0, np.int64)]
        return Answers.of_highest(logits_WK)

    def decide(self, examples: Sentences, answers: Answers, how: Answering) -> Decisions:
        """An item a word, named by its sentence and its place there, from 0."""
        groups = [name for name, words in zip(examples.ids, examples.words, strict=True) for _ in words]
        item_ids = [
            f"{name}:{k}" for name, words in zip(examples.ids, examples.words, strict=True) for k in range(len(words))
        ]
        return answers.beside(np.concatenate(examples.tags), item_ids, how.labels, groups)

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """Of words; with scheme=bio of whole entities too."""
        scores = score_classification(found.gold.astype(np.int64), found.predicted.astype(np.int64), labels)
        # Of tags that one word has each, the F1 over all words is the accuracy.
        kept = ("accuracy", "precision_macro", "recall_macro", "f1_macro")
        values = {name: scores.values[name] for name in kept}
        if self.cfg.scheme is TagScheme.bio:
            values |= score_entities(*_sequences(found))
        return Scores(values, scores.per_class, scores.confusion)

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Resampled by sentence."""
        if metric is Metric.entity_f1:
            hits_G, gold_G, said_G = (part[:, None] for part in entity_counts(*_sequences(found)))
            return weighted_f1(hits_G, gold_G, said_G, is_micro=True)
        if metric is Metric.accuracy:
            hits_W = (found.gold == found.predicted).astype(np.float64)
            return weighted_mean(*(summed_by_group(part, found.groups) for part in (hits_W, np.ones_like(hits_W))))
        numbers = np.arange(len(found.labels))
        gold_WK, said_WK = (np.equal.outer(side, numbers).astype(np.float64) for side in (found.gold, found.predicted))
        sums = [summed_by_group(part, found.groups) for part in (gold_WK * said_WK, gold_WK, said_WK)]
        return weighted_f1(*sums, is_micro=False)

    def constant(self, train: Sentences, gold: Sentences, how: Answering) -> Decisions:
        """The commonest training tag at every word."""
        commonest = int(self.label_counts(train, how.n_out).argmax())
        n_words = sum(map(len, gold.words))
        logits = np.tile(np.eye(how.n_out, dtype=np.float32)[commonest], (n_words, 1))
        return self.decide(gold, Answers.of_highest(logits), how)

    def describe(self, examples: Sentences, answers: Answers, how: Answering) -> Iterator[dict[str, Any]]:
        """Words with their tags and how probable these are; with scheme=bio the entities, `end` being the word after the last."""
        first = 0
        for words in examples.words:
            last = first + len(words)
            tags = [how.labels[int(k)] for k in answers.predicted[first:last]]
            told: dict[str, Any] = {
                "words": words,
                "tags": tags,
                "probabilities": answers.probabilities[first:last].max(1).tolist() if words else [],
            }
            if self.cfg.scheme is TagScheme.bio:
                told["entities"] = [
                    {"label": label, "text": " ".join(words[begin:end]), "start": begin, "end": end}
                    for label, begin, end in entities_of(tags)
                ]
            yield told
            first = last


def _words(row: Row, column: str) -> list[str]:
    listed = row.get_list(column)
    return row.get(column).split() if listed is None else listed


def _place_of_word(row: Row, number: int) -> str:
    """The word's own line, where the file has one for each."""
    lines = row.get_list(LINE) if LINE in row.fields else None
    return f"{row.place} (word {number + 1})" if lines is None else f"{row.place.rpartition(':')[0]}:{lines[number]}"


def _spelling(sentences: Sequence[Sequence[str]], tokenizer: Tokenizer) -> dict[str, NDArray[np.unsignedinteger]]:
    """The pieces of every different word, with a space before it unless it is the first: byte-level BPE minds spaces.

    A word of which nothing is left, such as a lone control character, is an unknown one.
    """
    different = {word if k == 0 else f" {word}" for words in sentences for k, word in enumerate(words)}
    texts = sorted(different)
    unknown: NDArray[np.unsignedinteger] = np.array([tokenizer.specials.unk], dtype=tokenizer.id_dtype)
    return {
        text: pieces if len(pieces) else unknown
        for text, pieces in zip(texts, tokenizer.encode_batch(texts), strict=True)
    }


def _cuts(ends: Ints, room: int) -> list[int]:
    """Word numbers where rows begin, and the number of words: as many whole words a row as fit into `room` pieces."""
    cuts = [0]
    while cuts[-1] < len(ends):
        used = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(int(np.searchsorted(ends, used + room, side="right")))
    return cuts if len(cuts) > 1 else [0, 0]


def _sequences(found: Decisions) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of each sentence."""
    sentences: dict[str, tuple[list[str], list[str]]] = {}
    for name, gold, said in zip(found.groups, found.gold, found.predicted, strict=True):
        pair = sentences.setdefault(name, ([], []))
        pair[0].append(found.labels[int(gold)])
        pair[1].append(found.labels[int(said)])
    return [gold for gold, _ in sentences.values()], [said for _, said in sentences.values()]
