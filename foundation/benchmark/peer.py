"""Hugging Face transformers, used as its own scripts and documentation advise, in a bare loop without the Trainer's costs.

The peer gets what helps it: tensors that are padded and on the device before the clock starts, one shape throughout (to which a
compiler and oneDNN adapt), SDPA attention, fused AdamW. As in run_mlm.py, the vocabulary product is over every position, unless
the peer is told to gather, which its classes do not do by themselves.

Letters: R rows · L tokens of a padded row · M targets of a step, padded with such as are ignored · D width
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.benchmark.config import FinetuningCase, Padding, PeerConfig, PretrainingCase, SizeConfig
from foundation.benchmark.contender import Contender, Done, Setup, Work
from foundation.benchmark.text import MIN_POSITIONS, classified_rows, open_corpus, pretraining_examples
from foundation.core.memory import keep_freed_memory
from foundation.core.randomness import rng
from foundation.data.batches import NO_PAIR
from foundation.data.config import DataConfig
from foundation.objective.base import Example
from foundation.train.loop import autocast

# What its models take for "no target here".
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class PaddedStep:
    """Inputs of one optimizer step, each (R, L), (R,) or (M,), under the peer's names; and how many tokens are real."""

    inputs: dict[str, Tensor]
    n_tokens: int


def bert_settings(size: SizeConfig, seq_len: int) -> Any:
    """The peer's own configuration of this shape, its defaults otherwise."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=max(seq_len, MIN_POSITIONS),
    )


def padded_steps(example: Example, rows: int, seq_len: int) -> Iterator[PaddedStep]:
    """A step's rows as rectangles of `rows` rows, padded to seq_len; labels wherever a token is asked, as run_mlm.py has them."""
    for part in example.split(rows or len(example.lengths)):
        yield _padded(part, seq_len)


def _padded(part: Example, seq_len: int) -> PaddedStep:
    labels = torch.full_like(part.ids, _IGNORED)
    labels[part.targets_at] = part.targets
    assert part.labels is not None
    flat = {
        "input_ids": part.ids,
        "token_type_ids": part.segments,
        "attention_mask": torch.ones_like(part.ids),
        "labels": labels,
    }
    inputs = {
        name: _rectangle(values, part.lengths, seq_len, _IGNORED if name == "labels" else 0)
        for name, values in flat.items()
    }
    inputs["next_sentence_label"] = part.labels.masked_fill(part.labels == NO_PAIR, _IGNORED)
    return PaddedStep(inputs, part.n_tokens)


def _rectangle(flat: Tensor, lengths: tuple[int, ...], seq_len: int, fill: int) -> Tensor:
    """(R, L) from the rows laid end to end."""
    out = flat.new_full((len(lengths), seq_len), fill)
    cells = torch.arange(seq_len) < torch.tensor(lengths)[:, None]
    out[cells] = flat
    return out


def gathered(steps: list[PaddedStep]) -> list[PaddedStep]:
    """The same steps with targets told as (M,) positions in R·L and (M,) labels, M that of the largest step: one shape."""
    asked = [(step.inputs["labels"].flatten() != _IGNORED).nonzero().flatten() for step in steps]
    most = max(map(len, asked))
    found = []
    for step, at in zip(steps, asked, strict=True):
        labels = step.inputs["labels"].flatten()[at]
        filler = (0, most - len(at))
        told = {"targets_at": F.pad(at, filler), "labels": F.pad(labels, filler, value=_IGNORED)}
        found.append(PaddedStep(step.inputs | told, step.n_tokens))
    return found


class GatheringBert(torch.nn.Module):
    """The peer's own modules and loss, its head at the targets alone: what somebody does who cannot wait for the class to."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *, targets_at: Tensor, labels: Tensor, next_sentence_label: Tensor, **inputs: Tensor) -> Any:
        """Inputs as of PaddedStep, gathered; what has the attribute `loss`."""
        states = self.model.bert(**inputs)
        at_targets_MD = states.last_hidden_state.flatten(0, 1).index_select(0, targets_at)
        logits, pair_logits = self.model.cls(at_targets_MD, states.pooler_output)
        loss = F.cross_entropy(logits, labels) + F.cross_entropy(pair_logits, next_sentence_label)
        return SimpleNamespace(loss=loss)


def _loop(model: Any, steps: list[PaddedStep], setup: Setup, peer: PeerConfig, pieces: int) -> Work:
    """Work of `pieces` optimizer steps over the given ones, round and round."""
    device = torch.device(setup.device)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    forward = torch.compile(model) if peer.compiled else model
    ready = [PaddedStep({name: t.to(device) for name, t in step.inputs.items()}, step.n_tokens) for step in steps]
    turn = cycle(ready)

    def work() -> Done:
        n_tokens = 0
        for _ in range(pieces):
            step = next(turn)
            with autocast(device, peer.precision):
                loss = forward(**step.inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            n_tokens += step.n_tokens
        return Done(n_tokens)

    return work


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPretraining(Contender):
    """BertForPreTraining on the same rows, masks and pairs."""

    case: PretrainingCase
    data: DataConfig
    peer: PeerConfig

    def build(self, setup: Setup) -> Work:
        """A model of random weights and its steps."""
        from transformers import BertForPreTraining

        if self.peer.keeps_memory:
            keep_freed_memory()
        corpus = open_corpus(self.data, self.case.size.vocab_size, setup.runs_dir)
        examples = pretraining_examples(self.case, corpus)
        steps = [step for example in examples for step in padded_steps(example, self.peer.rows, self.case.seq_len)]
        torch.manual_seed(0)
        model: Any = BertForPreTraining(bert_settings(self.case.size, self.case.seq_len))
        if self.peer.gathers:
            model, steps = GatheringBert(model), gathered(steps)
        return _loop(model, steps, setup, self.peer, pieces=len(steps) // len(examples))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFinetuning(Contender):
    """BertForSequenceClassification on the same texts."""

    case: FinetuningCase
    data: DataConfig
    peer: PeerConfig

    def build(self, setup: Setup) -> Work:
        """A model of random weights, and an epoch of padded batches."""
        from transformers import BertForSequenceClassification

        if self.peer.keeps_memory:
            keep_freed_memory()
        tokenizer = open_corpus(self.data, self.case.size.vocab_size, setup.runs_dir).tokenizer
        rows, labels = classified_rows(self.case, self.data, tokenizer)
        order = rng(0, "order").permutation(len(rows))
        if self.peer.padding is Padding.grouped:
            order = order[np.argsort(rows.lengths()[order], kind="stable")]
        steps = []
        size = self.peer.rows or self.case.rows
        for first in range(0, len(rows), size):
            batch = rows.batch(order[first : first + size], labels)
            lengths = tuple(batch.lengths.tolist())
            longest = self.case.seq_len if self.peer.padding is Padding.maximum else max(lengths)
            ids = torch.from_numpy(batch.ids)
            inputs = {
                "input_ids": _rectangle(ids, lengths, longest, 0),
                "attention_mask": _rectangle(torch.ones_like(ids), lengths, longest, 0),
                "labels": torch.from_numpy(np.asarray(batch.labels)),
            }
            steps.append(PaddedStep(inputs, batch.n_tokens))
        torch.manual_seed(0)
        model = BertForSequenceClassification(bert_settings(self.case.size, self.case.seq_len))
        return _loop(model, steps, setup, self.peer, pieces=len(steps))
