"""Minimal pairs scored by a foundation and by baselines from its own corpus; a paradigm's scores are kept when they are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from foundation.core.errors import UserError
from foundation.core.files import write_atomically
from foundation.core.plain import to_plain
from foundation.evaluation.config import MinimalPairsConfig
from foundation.evaluation.minimal_pairs import Paradigm, estimate, points
from foundation.evaluation.ngrams import KneserNey, Unigram, corpus_places, sentence_scores
from foundation.evaluation.pseudo_likelihood import n_masked_copies, pseudo_log_likelihoods
from foundation.evaluation.subject import Subject, find_corpus

Floats = NDArray[np.float64]
MODEL = "foundation"


@dataclass(frozen=True, slots=True)
class Scored:
    """One paradigm. scores: by scorer, (2, P) nats, good above bad. tokens: by scorer, (2, P), how many were predicted.

    n_same_tokens: pairs whose sides are the same to this tokenizer, and so always tie.
    """

    paradigm: Paradigm
    scores: dict[str, Floats]
    tokens: dict[str, NDArray[np.int64]]
    n_same_tokens: int

    def points(self, scorer: str, per_token: bool) -> Floats:
        """(P,): who is right, by the sentences' sums or by their means over predicted tokens."""
        scores = self.scores[scorer] / (self.tokens[scorer] if per_token else 1)
        return points(scores[0], scores[1])


def evaluate_pairs(
    subject: Subject, cfg: MinimalPairsConfig, paradigms: list[Paradigm], folder: Path, runs_dir: Path
) -> dict[str, Any]:
    """Score what is not scored yet, write pairs/<paradigm>.parquet as each is done, and sum up."""
    encoded = {paradigm.name: _encode(paradigm, subject) for paradigm in paradigms}
    paths = {paradigm.name: folder / "pairs" / f"{paradigm.name}.parquet" for paradigm in paradigms}
    missing = [paradigm for paradigm in paradigms if not paths[paradigm.name].is_file()]
    baselines, note = _baselines(subject, cfg, runs_dir) if missing else ({}, None)
    total = sum(n_masked_copies(encoded[paradigm.name]) for paradigm in missing)
    with tqdm(total=total, desc="masked copies", unit="", unit_scale=True, disable=None) as bar:
        for paradigm in missing:
            bar.set_postfix_str(paradigm.name)
            sentences = encoded[paradigm.name]
            sums = {
                MODEL: pseudo_log_likelihoods(subject, sentences, batch_tokens=cfg.batch_tokens, on_scored=bar.update)
            }
            sums |= {
                name: sentence_scores(model, sentences, subject.tokenizer.specials) for name, model in baselines.items()
            }
            _write(paths[paradigm.name], paradigm, sentences, sums)
    if note:
        tqdm.write(note)
    return _summary([_read(paths[paradigm.name], paradigm) for paradigm in paradigms], cfg)


def _encode(paradigm: Paradigm, subject: Subject) -> list[NDArray[np.unsignedinteger]]:
    """Ids of the good sentences, then of the bad ones. Raises UserError where one does not fit the model or is empty to it."""
    sentences = subject.tokenizer.encode_batch([*paradigm.good, *paradigm.bad])
    room = subject.seq_len - 2
    for place, sentence in zip(paradigm.items * 2, sentences, strict=True):
        if not 0 < len(sentence) <= room:
            raise UserError(
                f"{place}: a sentence of {len(sentence)} tokens, where this foundation takes 1 to {room}: take the pair out"
            )
    return sentences


def _baselines(
    subject: Subject, cfg: MinimalPairsConfig, runs_dir: Path
) -> tuple[dict[str, KneserNey | Unigram], str | None]:
    """Trained on the foundation's own corpus; none, and why, where it is gone."""
    if not cfg.ngram_order:
        return {}, None
    corpus = find_corpus(subject.foundation, runs_dir)
    if corpus is None:
        return {}, f"no n-gram baselines: the foundation's corpus is not in {runs_dir / 'corpora'} any more"
    specials, vocab_size = subject.tokenizer.specials, subject.tokenizer.vocab_size
    text = corpus_places(corpus.train, specials, cfg.ngram_tokens)
    counting = f"counting n-grams in {len(text.tokens):,} tokens"
    with tqdm(total=cfg.ngram_order - 1, desc=counting, unit=" orders", leave=False, disable=None) as bar:
        longest = KneserNey(
            text, order=cfg.ngram_order, vocab_size=vocab_size, specials=specials, on_counted=bar.update
        )
    unigram = Unigram(text, vocab_size=vocab_size, specials=specials)
    return {f"{cfg.ngram_order}-gram": longest, "unigram": unigram}, None


def _write(path: Path, paradigm: Paradigm, sentences: Sequence[NDArray[np.integer]], sums: dict[str, Floats]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    n = len(paradigm)
    lengths = [len(sentence) for sentence in sentences]
    columns: dict[str, Any] = {
        "paradigm": [paradigm.name] * n,
        "item": paradigm.items,
        "good": paradigm.good,
        "bad": paradigm.bad,
        "good_tokens": lengths[:n],
        "bad_tokens": lengths[n:],
        "same_tokens": [np.array_equal(sentences[i], sentences[n + i]) for i in range(n)],
    }
    for scorer, values in sums.items():
        columns |= {f"good_nats {scorer}": values[:n], f"bad_nats {scorer}": values[n:]}
    with write_atomically(path) as file:
        parquet.write_table(pa.table(columns), file)


def _read(path: Path, paradigm: Paradigm) -> Scored:
    from pyarrow import parquet

    columns = parquet.read_table(path).to_pydict()
    if columns["item"] != paradigm.items:
        raise UserError(
            f"{path} holds other pairs than the settings name: delete the folder, or choose another evaluation.name="
        )
    scorers = [name.removeprefix("good_nats ") for name in columns if name.startswith("good_nats ")]
    tokens = np.array([columns["good_tokens"], columns["bad_tokens"]])
    return Scored(
        paradigm,
        {scorer: np.array([columns[f"{side}_nats {scorer}"] for side in ("good", "bad")]) for scorer in scorers},
        # An n-gram model predicts the end of the sentence as well.
        {scorer: tokens + (scorer.endswith("-gram") and scorer != "unigram") for scorer in scorers},
        sum(columns["same_tokens"]),
    )


def _summary(scored: list[Scored], cfg: MinimalPairsConfig) -> dict[str, Any]:
    """Accuracies of every scorer, by sums and by means, of each paradigm and of all; and how the foundation differs from each."""
    scorers = [name for name in scored[0].scores if all(name in part.scores for part in scored)]

    def accuracies(parts: list[Scored]) -> dict[str, Any]:
        return {
            scorer: {
                by: to_plain(estimate([part.points(scorer, by == "mean") for part in parts], f"{scorer} {by}"))
                for by in ("sum", "mean")
            }
            for scorer in scorers
        }

    differences = {
        scorer: to_plain(
            estimate([part.points(MODEL, False) - part.points(scorer, False) for part in scored], f"over {scorer}")
        )
        for scorer in scorers
        if scorer != MODEL
    }
    return {
        "pairs": sum(len(part.paradigm) for part in scored),
        "max_pairs": cfg.max_pairs,
        "identical_dropped": sum(part.paradigm.n_identical for part in scored),
        "same_tokens": sum(part.n_same_tokens for part in scored),
        "scorers": scorers,
        "overall": accuracies(scored),
        "difference_of_sums": differences,
        "paradigms": {
            part.paradigm.name: {"pairs": len(part.paradigm), "same_tokens": part.n_same_tokens, **accuracies([part])}
            for part in scored
        },
    }


def pairs_table(found: dict[str, Any], name: str) -> str:
    """The scores for people: accuracy in percent, and the 95 % bootstrap interval over pairs."""
    scorers, width = found["scorers"], max(map(len, [*found["paradigms"], "paradigm"]))
    limit = f", the first {found['max_pairs']:,} of each paradigm" if found["max_pairs"] else ""
    header = "".join(f"{scorer:>20}{'mean':>7}" for scorer in scorers)
    lines = [
        f"{name}: {found['pairs']:,} minimal pairs{limit}; {found['identical_dropped']} identical ones dropped, "
        f"{found['same_tokens']} the same to the tokenizer",
        f"{'paradigm':<{width}}  pairs{header}",
    ]
    for paradigm, scores in found["paradigms"].items():
        lines.append(f"{paradigm:<{width}} {scores['pairs']:>6}" + "".join(_cells(scores[s]) for s in scorers))
    lines.append(
        f"{'mean of paradigms':<{width}} {found['pairs']:>6}" + "".join(_cells(found["overall"][s]) for s in scorers)
    )
    for scorer, d in found["difference_of_sums"].items():
        lines.append(
            f"{MODEL} − {scorer}: {100 * d['value']:+.1f} points, 95 % interval [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        )
    lines.append(
        "columns: by the sum of ln p, with its 95 % bootstrap interval over pairs; by the mean. Ties count half."
    )
    return "\n".join(lines)


def _cells(scores: dict[str, dict[str, float]]) -> str:
    by_sum, by_mean = scores["sum"], scores["mean"]
    interval = f"[{100 * by_sum['low']:.1f}, {100 * by_sum['high']:.1f}]"
    return f"{100 * by_sum['value']:>6.1f} {interval:>13}{100 * by_mean['value']:>7.1f}"
