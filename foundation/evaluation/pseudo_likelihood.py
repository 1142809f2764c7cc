"""How likely a sentence is to a bidirectional model: the sum of ln p(token | all others), each masked in turn.

Source: Salazar et al. 2020, "Masked Language Model Scoring", eq. 2.

Letters: S sentences · R masked copies (rows) · L tokens of a copy, [CLS] and [SEP] included · M targets
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foundation.evaluation.subject import Subject
from foundation.objective.base import Example
from foundation.train.loop import autocast

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
    first_of = {number: place for place, number in reversed(list(enumerate(numbers)))}
    by_length: dict[int, list[int]] = {}
    for number, place in first_of.items():
        by_length.setdefault(len(sentences[place]), []).append(number)
    found = np.zeros(len(distinct))
    for length, group in sorted(by_length.items()):
        ids_SL = np.stack([sentences[first_of[number]] for number in group]).astype(np.int64)
        found[group] = _score_equal_lengths(subject, ids_SL, batch_tokens, on_scored) if length else 0.0
    return found[numbers]


def n_masked_copies(sentences: Sequence[NDArray[np.integer]]) -> int:
    """How many rows pseudo_log_likelihoods computes."""
    return sum({sentence.tobytes(): len(sentence) for sentence in sentences}.values())


def _score_equal_lengths(
    subject: Subject, ids_SL: NDArray[np.int64], batch_tokens: int, on_scored: Callable[[int], object]
) -> NDArray[np.float64]:
    n_sentences, n_tokens = ids_SL.shape
    specials = subject.tokenizer.specials
    framed_SL = np.pad(ids_SL, ((0, 0), (1, 1)), constant_values=((0, 0), (specials.cls, specials.sep)))
    length = n_tokens + 2
    unit = _TOKEN_MULTIPLE // math.gcd(_TOKEN_MULTIPLE, length)
    most_rows = unit * max(1, batch_tokens // (unit * length))
    sums = np.zeros(n_sentences)
    n_copies = n_sentences * n_tokens
    for first in range(0, n_copies, most_rows):
        real = min(most_rows, n_copies - first)
        rows = real + -real % unit
        copy = np.arange(first, first + rows).clip(max=n_copies - 1)  # the last one fills the last pass up
        sentence, masked = copy // n_tokens, copy % n_tokens + 1
        ids_RL = framed_SL[sentence]
        each = np.arange(rows)
        ids_RL[each, masked] = specials.mask
        example = Example(
            ids=torch.from_numpy(ids_RL.reshape(-1)),
            segments=torch.zeros(rows * length, dtype=torch.int64),
            lengths=(length,) * rows,
            targets_at=torch.from_numpy(each * length + masked),
            targets=torch.from_numpy(framed_SL[sentence, masked]),
            labels=None,
        )
        log_p = target_log_probabilities(subject, example)[:real]
        np.add.at(sums, sentence[:real], log_p.cpu().double().numpy())
        on_scored(real)
    return sums


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
