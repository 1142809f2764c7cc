"""How likely a sentence is to a bidirectional model: the sum of ln p(token | all others), each masked in turn.

Source: Salazar et al. 2020, "Masked Language Model Scoring", eq. 2.

Letters: S sentences · R masked copies (rows) of a pass · T tokens of a pass, [CLS] and [SEP] included · M targets
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foundation.evaluation.subject import Subject
from foundation.objective.base import Example
from foundation.train.loop import autocast

Ints = NDArray[np.int64]

# Copies of one length are computed together in numbers that make their tokens a multiple of this, so that the encoder
# has nothing to fill up and meets few different shapes.
_TOKEN_MULTIPLE = 256


def pseudo_log_likelihoods(
    subject: Subject,
    sentences: Sequence[NDArray[np.integer]],
    *,
    batch_tokens: int,
    on_scored: Callable[[int], object] = lambda n: None,
) -> NDArray[np.float64]:
    """(S,) nats, of sentences given as ids without special tokens; equal sentences are computed once and get the same number.

    Args:
        batch_tokens: of a forward pass, about. on_scored: told after every pass how many copies it held.
    """
    distinct: dict[bytes, int] = {}
    numbers = [distinct.setdefault(sentence.tobytes(), len(distinct)) for sentence in sentences]
    framed = [_framed(subject, sentence) for sentence in dict(zip(numbers, sentences, strict=True)).values()]
    found = np.zeros(len(distinct))
    for sentence_R, masked_R in _passes(np.array([len(ids) for ids in framed], dtype=np.int64), batch_tokens):
        example = _masked_copies([framed[number] for number in sentence_R], masked_R, subject.tokenizer.specials.mask)
        log_p = target_log_probabilities(subject, example)
        np.add.at(found, sentence_R, log_p.cpu().double().numpy())
        on_scored(len(sentence_R))
    return found[numbers]


def n_masked_copies(sentences: Sequence[NDArray[np.integer]]) -> int:
    """How many rows pseudo_log_likelihoods computes."""
    return sum({sentence.tobytes(): len(sentence) for sentence in sentences}.values())


def _framed(subject: Subject, sentence: NDArray[np.integer]) -> Ints:
    specials = subject.tokenizer.specials
    return np.concatenate([[specials.cls], sentence.astype(np.int64), [specials.sep]])


def _passes(lengths_S: Ints, batch_tokens: int) -> Iterator[tuple[Ints, Ints]]:
    """(R,) sentences' numbers, and which token of each is masked. lengths_S: with [CLS] and [SEP].

    A pass is of copies of one length, as many as need no filling up; what then is left over of all lengths shares passes.
    """
    left_over = [np.empty((2, 0), dtype=np.int64)]
    for length in np.unique(lengths_S).tolist():
        of_length = np.flatnonzero(lengths_S == length)
        sentence_R = of_length.repeat(length - 2)
        masked_R = np.tile(np.arange(1, length - 1), len(of_length))
        unit = _TOKEN_MULTIPLE // math.gcd(_TOKEN_MULTIPLE, length)
        most_rows = unit * max(1, batch_tokens // (unit * length))
        whole = len(sentence_R) // unit * unit
        for first in range(0, whole, most_rows):
            rows = slice(first, min(first + most_rows, whole))
            yield sentence_R[rows], masked_R[rows]
        left_over.append(np.stack([sentence_R[whole:], masked_R[whole:]]))
    sentence_R, masked_R = np.concatenate(left_over, axis=1)
    number_of_pass = lengths_S[sentence_R].cumsum() // batch_tokens
    for number in np.unique(number_of_pass):
        yield sentence_R[number_of_pass == number], masked_R[number_of_pass == number]


def _masked_copies(rows: list[Ints], masked_R: Ints, mask: int) -> Example:
    """The rows end to end, one token of each masked, which is its target."""
    lengths = np.array([len(ids) for ids in rows])
    ids_T = np.concatenate(rows)
    targets_at = lengths.cumsum() - lengths + masked_R
    targets = ids_T[targets_at]
    ids_T[targets_at] = mask
    return Example(
        ids=torch.from_numpy(ids_T),
        segments=torch.zeros(len(ids_T), dtype=torch.int64),
        lengths=tuple(lengths.tolist()),
        targets_at=torch.from_numpy(targets_at),
        targets=torch.from_numpy(targets),
        labels=None,
    )


@torch.no_grad()
def target_log_probabilities(subject: Subject, example: Example) -> Tensor:
    """(M,) ln p of each target, in float32 or wider."""
    objective = subject.objective
    example = example.to(subject.device)
    with autocast(subject.device, subject.precision):
        chosen_MD = objective.encoder(example.ids, example.segments, example.layout(), example.targets_at)
        logits_MV = objective.heads["mlm"](chosen_MD, objective.encoder.token_embedding.weight)
    wide = logits_MV if logits_MV.dtype is torch.float64 else logits_MV.float()
    return -F.cross_entropy(wide, example.targets, reduction="none")
