"""Rows of each kind of task, and a tokenizer that divides words."""

import json

import tokenizers
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from foundation.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from foundation.task.config import Pooling, TaskConfig
from foundation.task.examples import Examples
from foundation.task.kinds.base import Answering, Kind
from foundation.task.kinds.build import build_kind
from foundation.task.row import Row


def letters() -> Tokenizer:
    """A WordPiece tokenizer of single characters: a word of n letters has n pieces."""
    characters = [chr(code) for code in range(33, 127)] + ["é", "°"]
    words = [*SPECIAL_TOKENS.values(), *characters, *(f"##{c}" for c in characters)]
    backend = tokenizers.Tokenizer(WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = BertNormalizer(lowercase=False), BertPreTokenizer()
    backend.decoder = WordPieceDecoder()
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    return Tokenizer(backend)


def rows(*fields: dict[str, object]) -> list[Row]:
    """As a JSONL file would give them, on lines 1, 2, …"""
    return [
        Row({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}, f"a:{number}")
        for number, row in enumerate(fields, start=1)
    ]


def examples(kind: Kind, given: list[Row]) -> tuple[Examples, Answering]:
    """Rows with their answers, and how they are answered."""
    labels = kind.label_names(given)
    found = kind.labelled(kind.inputs([f"dev-{n}" for n in range(len(given))], given), given, labels)
    return found, Answering(kind.cfg, labels, Pooling.mean, seq_len=24)


def kind_of(**settings: object) -> Kind:
    cfg = TaskConfig(name="toy", train="a", **settings)
    cfg.check()
    return build_kind(cfg)
