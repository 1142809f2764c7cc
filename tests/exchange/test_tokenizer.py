"""Tokenizers on their way in and out: the same ids there and here, under other names of special tokens too."""

import json
from pathlib import Path

import pytest

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json
from foundation.data.config import TokenizerKind
from foundation.data.tokenizer import SPECIAL_TOKENS
from foundation.exchange.answers import real_texts
from foundation.exchange.tokenizer import read_tokenizer, write_tokenizer
from tests.exchange.made import words

transformers = pytest.importorskip("transformers")
FOREIGN = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


def laid(folder: Path, kind: TokenizerKind = TokenizerKind.wordpiece) -> Path:
    folder.mkdir(parents=True)
    write_tokenizer(folder, words(kind), max_tokens=48, inputs=("input_ids", "attention_mask"))
    return folder


def foreign(folder: Path, names: dict[str, str] = FOREIGN) -> Path:
    """The same tokenizer with special tokens of other names."""
    text = (laid(folder, TokenizerKind.bpe) / "tokenizer.json").read_text()
    for name, token in names.items():
        text = text.replace(json.dumps(SPECIAL_TOKENS[name]), json.dumps(token))
    (folder / "tokenizer.json").write_text(text)
    write_json(folder / "special_tokens_map.json", {f"{name}_token": token for name, token in names.items()})
    write_json(folder / "tokenizer_config.json", {"mask_token": {"content": names["mask"]}, "cls_token": None})
    return folder


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_transformers_gives_the_same_ids(tmp_path: Path, kind: TokenizerKind) -> None:
    folder, texts = laid(tmp_path / "t", kind), real_texts(pairs=True)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours, specials = words(kind), words(kind).specials
    first, second = (ids.tolist() for ids in ours.encode_batch([texts.text[0], texts.text_pair[0]]))
    framed = [specials.cls, *first, specials.sep, *second, specials.sep]
    assert theirs(texts.text[0], texts.text_pair[0])["input_ids"] == framed
    assert theirs.model_max_length == 48 and theirs.mask_token_id == specials.mask


@pytest.mark.parametrize("kind", list(TokenizerKind))
def test_a_tokenizer_comes_back_as_it_left(tmp_path: Path, kind: TokenizerKind) -> None:
    back, notes = read_tokenizer(laid(tmp_path / "t", kind))
    assert back.fingerprint == words(kind).fingerprint and notes == []


def test_special_tokens_of_other_names_are_renamed(tmp_path: Path) -> None:
    back, notes = read_tokenizer(foreign(tmp_path / "t"))
    assert back.specials == words(TokenizerKind.bpe).specials
    text = real_texts(pairs=False).text[1]
    assert back.encode_batch([text])[0].tolist() == words(TokenizerKind.bpe).encode_batch([text])[0].tolist()
    assert back.encode_batch(["a [MASK] b"])[0].tolist().count(back.specials.mask) == 1
    assert "<mask> is [MASK]" in notes[0]


def test_a_vocabulary_alone_makes_berts_tokenizer(tmp_path: Path) -> None:
    folder = laid(tmp_path / "t")
    vocab = read_json(folder / "tokenizer.json")["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n")
    back, notes = read_tokenizer(folder)
    texts = [*real_texts(pairs=False).text, "Ünïcode, [MASK] and 漢字."]
    reference = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    for ours, text in zip(back.encode_batch(texts), texts, strict=True):
        assert ours.tolist() == reference(text, add_special_tokens=False)["input_ids"]
    assert notes == ["The tokenizer is made from vocab.txt, as BertTokenizer does."]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (FOREIGN | {"cls": "</s>"}, r"uses one special token in two roles"),
        (FOREIGN | {"cls": "[SEP]", "sep": "</s>"}, r"has other special tokens and \[SEP\] besides: rename those"),
    ],
)
def test_special_tokens_that_cannot_be_renamed_are_refused(tmp_path: Path, names: dict[str, str], message: str) -> None:
    folder = foreign(tmp_path / "t")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"<s>"', json.dumps(names["cls"])))
    write_json(folder / "special_tokens_map.json", {f"{name}_token": token for name, token in names.items()})
    with pytest.raises(UserError, match=message):
        read_tokenizer(folder)


def test_a_special_token_that_is_named_and_not_there_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "t")
    write_json(folder / "tokenizer_config.json", {"cls_token": "<s>"})
    with pytest.raises(UserError, match="lacks the special tokens <s> that its settings name"):
        read_tokenizer(folder)


def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "t")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("<s>\n</s>\na\n")
    with pytest.raises(UserError, match=r"vocab.txt lacks \[PAD\], .*: it is not a BERT's vocabulary"):
        read_tokenizer(folder)


def test_a_unigram_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = laid(tmp_path / "t")
    write_json(folder / "tokenizer_config.json", {"cls_token": "<s>"})
    write_json(folder / "tokenizer.json", {"model": {"type": "Unigram", "vocab": [["<s>", 0.0]]}})
    with pytest.raises(UserError, match="is a Unigram tokenizer: only WordPiece and byte-level BPE"):
        read_tokenizer(folder)
