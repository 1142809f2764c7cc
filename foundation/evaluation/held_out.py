"""How well a foundation fills masks, and tells whole pairs from broken ones, on text that it was not trained on."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.data.corpus import SplitCounts, TokenTable, open_table
from foundation.data.split_writer import SplitWriter
from foundation.data.text_files import file_texts
from foundation.evaluation.config import HeldOutConfig
from foundation.evaluation.subject import Subject, find_corpus
from foundation.objective.config import MaskingConfig
from foundation.objective.pretraining import Scores, added
from foundation.train.held_out import HeldOut
from foundation.train.loop import autocast


@dataclass(frozen=True, slots=True)
class Text:
    """What is read. counts: of the whole text, see SplitCounts; `bytes` is absent in corpora made before it was counted."""

    origin: str
    table: TokenTable
    counts: dict[str, int]


def open_text(subject: Subject, files: list[Path], text_column: str, runs_dir: Path, scratch: Path) -> Text:
    """The files' documents, encoded into `scratch`; or the held-out split of the foundation's own corpus."""
    if files:
        return _encode_files(subject, files, text_column, scratch)
    corpus = find_corpus(subject.foundation, runs_dir)
    if corpus is None:
        raise UserError(
            f"the corpus of {subject.foundation.path} is not in {runs_dir / 'corpora'} any more: name a text to "
            "evaluate on, as in  'evaluation.files=[my.txt]'"
        )
    return Text("held-out documents of its corpus", corpus.held_out, corpus.manifest["held_out"])


def _encode_files(subject: Subject, files: list[Path], text_column: str, scratch: Path) -> Text:
    writer = SplitWriter(scratch / "text", subject.tokenizer)
    texts = chain.from_iterable(map(partial(file_texts, text_column=text_column), files))
    for text in tqdm(texts, "encoding", unit=" texts", disable=None):
        if text := text.strip():
            writer.add(text, len(text.split()))
    counts: SplitCounts = writer.close()
    table = open_table(scratch / "text", subject.tokenizer.id_dtype.__name__)
    return Text(", ".join(path.name for path in files), table, to_plain(counts))


def examine(subject: Subject, cfg: HeldOutConfig, text: Text) -> dict[str, Any]:
    """Scores on the text's rows, in an order and under masks that are the same for every foundation of one tokenizer.

    masked_nats: mean −ln p of a hidden token, 15 % being hidden. Between tokenizers it cannot be compared: their tokens are of
    different size. masked_nats_per_word and masked_bits_per_byte are that mean times the text's tokens, divided by its words or
    bytes: what all its tokens would cost if each were hidden among as many. They can be compared, but are no code length: every
    token is predicted from both its sides.
    """
    if subject.objective.has_pairs and len(text.table.documents) < 3:
        raise UserError(
            "this foundation is asked for sentence pairs too, whose halves come from different documents, and the text is one "
            "document: put blank lines between documents, or name more files"
        )
    held_out = HeldOut(subject.objective, text.table, seq_len=subject.seq_len, rows=cfg.rows)
    held_out.masking = subject.objective.masking_like(MaskingConfig(unit=cfg.unit))
    scores: Scores = {}
    for example in tqdm(held_out.examples(), "held-out rows", held_out.n_batches, unit=" batches", disable=None):
        with autocast(subject.device, subject.precision):
            scores = added(scores, subject.objective.score(example.to(subject.device)))
    masked = scores["mlm"]
    if not masked.targets:
        raise UserError("the text is so short that no token of it was hidden: give more text")
    nats = masked.nats
    found: dict[str, Any] = {
        "rows": held_out.n_batches * held_out.batches.rows_per_step,
        "of_rows": len(held_out.batches),
        "text": text.counts,
        "masked_nats": nats,
        "masked_accuracy": masked.accuracy,
        "masked_tokens": masked.targets,
        "masked_nats_per_word": nats * text.counts["tokens"] / text.counts["words"],
    }
    if "bytes" in text.counts:
        found["masked_bits_per_byte"] = nats * text.counts["tokens"] / text.counts["bytes"] / math.log(2)
    task = subject.objective.cfg.sentence_task.value
    if (pairs := scores.get(task)) and pairs.targets:
        low, high = pairs.accuracy_interval()
        found["pairs"] = {
            "task": task,
            "nats": pairs.nats,
            "accuracy": pairs.accuracy,
            "low": low,
            "high": high,
            "n": pairs.targets,
        }
    return found


def held_out_table(found: dict[str, Any], name: str) -> str:
    """The scores for people."""
    lines = [
        f"{name} on {found['on']}: {found['rows']:,} of {found['of_rows']:,} rows, {found['masked_tokens']:,} masked tokens",
        f"  masked tokens   {found['masked_nats']:.3f} nats a token, accuracy {found['masked_accuracy']:.1%}",
        f"  over the text   {found['masked_nats_per_word']:.3f} nats a word"
        + (f", {found['masked_bits_per_byte']:.3f} bits a byte" if "masked_bits_per_byte" in found else "")
        + " (to compare tokenizers by; not a code length)",
    ]
    if "masked_bits_per_byte" not in found:
        lines.append("  bits a byte     unknown: this corpus was prepared before its bytes were counted")
    if "pairs" in found:
        p = found["pairs"]
        lines.append(
            f"  {p['task'].upper()} {'':<11} accuracy {p['accuracy']:.1%}, 95 % interval [{p['low']:.1%}, {p['high']:.1%}], "
            f"{p['n']:,} pairs"
        )
    return "\n".join(lines)


def evaluate_held_out(subject: Subject, cfg: HeldOutConfig, files: list[Path], runs_dir: Path) -> dict[str, Any]:
    """Scores on the files, or on the held-out split of the foundation's own corpus."""
    with TemporaryDirectory() as scratch:
        text = open_text(subject, files, cfg.text_column, runs_dir, Path(scratch))
        return {"on": text.origin, **examine(subject, cfg, text)}
