"""Text to token ids and back: a thin, verified wrapper of the tokenizers library. Training is in tokenizer_training."""

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import processors

from foundation.core.errors import UserError
from foundation.core.files import fingerprint, write_atomically


def tokenizer_file(path: str) -> Path:
    """The file that tokenizer.path names, or tokenizer.json in that folder; ~ is home. Raises UserError where there is none."""
    file = Path(path).expanduser()
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"no tokenizer at tokenizer.path={path} (looked from {Path.cwd()})")
    return file


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the five special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


# Field of SpecialIds -> how it is written. transformers wants the same names as pad_token="[PAD]" and so on.
SPECIAL_TOKENS = {field.name: f"[{field.name.upper()}]" for field in fields(SpecialIds)}


def row_template(backend: tokenizers.Tokenizer) -> processors.TemplateProcessing:
    """How special tokens frame one text or two: [CLS] A [SEP] and [CLS] A [SEP] B [SEP], B in segment 1."""
    cls, sep = SPECIAL_TOKENS["cls"], SPECIAL_TOKENS["sep"]
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )


# Enough to make a call's own cost small, few enough to keep every core busy.
_TEXTS_A_CALL = 32
# White space and letters on both sides of a border, a special token, an accent without its letter, and nothing at all.
_HARD_TO_JOIN = [
    "One two.",
    " three",
    "\nfour ",
    "",
    "[MASK]",
    "cafe",
    "\u0301s",
    "5",
    ",6",
    "[",
    "SEP]",
    "  ",
    "ab[MASK]cd",
    "end",
]


@dataclass(frozen=True, slots=True)
class FlatEncoding:
    """Many texts in one row of ids: `ids` holds all tokens in order, `lengths` how many each text has (int64)."""

    ids: NDArray[np.unsignedinteger]
    lengths: NDArray[np.int64]


class Spaces(Enum):
    """What a space between words is to a tokenizer, and so where a text can be cut without a change of its tokens.

    dropped: no part of any token; at every space. kept: part of the word behind it; before a space that does not follow
    other white space. unknown: perhaps nowhere.
    """

    dropped = auto()
    kept = auto()
    unknown = auto()


class Tokenizer:
    """A WordPiece or byte-level BPE tokenizer with the five special tokens of BERT.

    A special token written out in a text is that token and is never split: "The cat [MASK]." holds the mask, as it does
    in transformers. Case matters: "[mask]" is ordinary text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, origin: str = "the tokenizer") -> None:
        # A tokenizer.json from elsewhere may ask to cut or pad, which would silently change a corpus.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        content = json.loads(backend.to_str())
        self._starts_word = _word_start_rule(content, origin)
        self.spaces = _spaces(content)
        vocab = backend.get_vocab()
        if missing := [text for text in SPECIAL_TOKENS.values() if text not in vocab]:
            raise UserError(f"{origin} lacks {', '.join(missing)}: it must have {', '.join(SPECIAL_TOKENS.values())}")
        self.specials = SpecialIds(**{name: vocab[text] for name, text in SPECIAL_TOKENS.items()})
        self.vocab_size = 1 + max(vocab.values())
        self.fingerprint = fingerprint(content)

    @property
    def id_dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The smallest type that holds every id on disk."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    @cached_property
    def continues_word(self) -> NDArray[np.bool_]:
        """For each id, whether it goes on with the word before it; shape (vocab_size,).

        WordPiece: it starts with ##. Byte-level BPE marks the space before a word, not its inside, so a token is taken
        to go on unless it starts with white space or punctuation. A word that follows no space, at the start of a line
        or behind a bracket, is therefore joined to the newline or bracket before it, never to another word; whoever
        groups tokens into words must start a group at the first token of a sequence whatever this says.
        """
        marks = np.zeros(self.vocab_size, dtype=np.bool_)
        for token, index in self._backend.get_vocab().items():
            marks[index] = token not in SPECIAL_TOKENS.values() and not self._starts_word(token)
        return marks

    def encode_flat(self, texts: list[str]) -> FlatEncoding:
        """Encode many texts, on all cores, without [CLS] and [SEP]; TOKENIZERS_PARALLELISM=false uses one core."""
        joined = self._encode_joined(texts) if self._can_be_joined else None
        return self._encode_each(texts) if joined is None else joined

    def _encode_each(self, texts: list[str]) -> FlatEncoding:
        """A text a call."""
        ids = [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return FlatEncoding(np.fromiter(chain.from_iterable(ids), self.id_dtype, count=int(lengths.sum())), lengths)

    def _encode_joined(self, texts: list[str]) -> FlatEncoding | None:
        """Some texts a call, each with [SEP] behind it; None where a text has a [SEP] of its own.

        The library has a fixed cost a call, which for sentences is a fifth of the whole. It cuts at a special token before it
        does anything else, so a text's tokens are those it has alone.
        """
        mark = SPECIAL_TOKENS["sep"]
        groups = [
            mark.join([*texts[first : first + _TEXTS_A_CALL], ""]) for first in range(0, len(texts), _TEXTS_A_CALL)
        ]
        encoded = self._encode_each(groups).ids
        ends = np.flatnonzero(encoded == self.specials.sep)
        if len(ends) != len(texts):
            return None
        return FlatEncoding(np.delete(encoded, ends), np.diff(ends, prepend=-1) - 1)

    @cached_property
    def _can_be_joined(self) -> bool:
        """Whether texts that are hard to keep apart come out as they do alone; a tokenizer.json from elsewhere may differ."""
        joined, alone = self._encode_joined(_HARD_TO_JOIN), self._encode_each(_HARD_TO_JOIN)
        return joined is not None and all(
            np.array_equal(*pair) for pair in ((joined.ids, alone.ids), (joined.lengths, alone.lengths))
        )

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.unsignedinteger]]:
        """The ids of each text, without [CLS] and [SEP]."""
        flat = self.encode_flat(texts)
        ends = flat.lengths.cumsum()
        return [flat.ids[end - length : end] for end, length in zip(ends, flat.lengths, strict=True)]

    def encode_with_offsets(self, texts: list[str]) -> list[tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]]:
        """The ids of each text, (L,), and the characters that each stands for, (L, 2): the first, and the one after the last."""
        return [
            (np.array(encoding.ids, self.id_dtype), np.array(encoding.offsets, np.int64).reshape(-1, 2))
            for encoding in self._backend.encode_batch(texts, add_special_tokens=False)
        ]

    def decode(self, ids: NDArray[np.integer] | list[int]) -> str:
        """Text of ids, special tokens included: exact from cased byte-level BPE, a tidy form from WordPiece."""
        return self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=False)

    def save(self, path: Path) -> None:
        """Write a tokenizer.json, which transformers.PreTrainedTokenizerFast opens too."""
        with write_atomically(path) as file:
            file.write(self._backend.to_str(pretty=True).encode())

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.json, ours or another's, if it has the five special tokens."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"no tokenizer at {path}") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{path} is not a tokenizer.json of the tokenizers library: {error}") from None
        return cls(backend, origin=str(path))


def _word_start_rule(content: dict[str, Any], origin: str) -> Callable[[str], bool]:
    """Whether a token starts a word, for the kind of tokenizer that a tokenizer.json describes."""
    model = content["model"]
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return lambda token: not token.startswith(prefix)
    if model["type"] == "BPE" and (content["decoder"] or {}).get("type") == "ByteLevel":
        return _starts_outside_a_word
    raise UserError(f"{origin} is a {model['type']} tokenizer: only WordPiece and byte-level BPE can be used")


def _spaces(content: dict[str, Any]) -> Spaces:
    """Judged by the parts that a tokenizer.json names; only what BERT and byte-level BPE are made of is known."""
    for token in content["added_tokens"]:
        takes_neighbours = token["lstrip"] or token["rstrip"] or token["single_word"] or token["normalized"]
        if takes_neighbours or any(map(str.isspace, token["content"])):
            return Spaces.unknown
    normalizer, splitter = content["normalizer"] or {"type": None}, content["pre_tokenizer"] or {"type": None}
    if content["model"].get("dropout"):
        return Spaces.unknown
    if splitter["type"] == "BertPreTokenizer" and normalizer["type"] in (None, "Lowercase", "BertNormalizer"):
        return Spaces.dropped
    cuts_bytes = splitter["type"] == "ByteLevel" and splitter["use_regex"] and not splitter["add_prefix_space"]
    return Spaces.kept if cuts_bytes and normalizer["type"] in (None, "Lowercase") else Spaces.unknown


def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in a byte-level vocabulary (Radford et al. 2019, its code)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()


# First bytes in UTF-8 of U+0080 to U+00BF, U+2000 to U+2FFF and emoji: hardly a letter among them.
_BYTES_BEFORE_PUNCTUATION = (0xC2, 0xE2, 0xF0)


def _starts_outside_a_word(token: str) -> bool:
    """Whether a byte-level token starts with white space or punctuation, or with a part of such a character."""
    if not all(character in _BYTES for character in token):
        return True  # an added token, written as it is
    spelled = bytes(_BYTES[character] for character in token)
    first = spelled.decode(errors="replace")[0]
    return spelled[0] in _BYTES_BEFORE_PUNCTUATION if first == "\ufffd" else unicodedata.category(first)[0] not in "LNM"
