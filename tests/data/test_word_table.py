import random
from functools import cache

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from foundation.data.config import TokenizerConfig, TokenizerKind
from foundation.data.tokenizer import SPECIAL_TOKENS, Spaces, Tokenizer
from foundation.data.tokenizer_training import train_tokenizer
from foundation.data.word_table import WordTable

KINDS = [TokenizerKind.wordpiece, TokenizerKind.bpe]
# What can go wrong at a space: other white space, characters that are dropped or are white space to some and not to others,
# accents without a letter, marks of the tokenizers' own, and special tokens, whole and in parts.
HARD = [" ", " ", " ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u2028", "\u3000", "\u200b", "\x0b", "\x1c", "\x85"]
HARD += [
    "\u0301",
    "\ufeff",
    "\ufffd",
    "Ġ",
    "##a",
    "[MASK]",
    "[SEP]",
    "[SE",
    "P]",
    "'s",
    "'",
    "中",
    "文",
    "İ",
    "ß",
    "😀",
]
HARD += ["the", "The", "cat", "sat", "a", "1", "23", ".", ",", "?", "-", "_", "word", "é", "e\u0301", "x" * 120]


@cache
def trained(kind, lowercase):
    generator = random.Random(0)
    texts = ["".join(generator.choices([*HARD, "the cat ", " sat. "], k=30)) for _ in range(400)]
    return train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=600, lowercase=lowercase, min_frequency=1))


def hard_texts(n, seed):
    generator = random.Random(seed)
    return ["".join(generator.choices(HARD, k=generator.randrange(12))) for _ in range(n)]


def encoded(table, texts):
    return table.number(texts).encode()


def assert_encodes_as_the_tokenizer(table, tokenizer, texts):
    flat = encoded(table, texts)
    alone = [tokenizer._backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert flat.lengths.tolist() == [len(ids) for ids in alone]
    assert flat.ids.tolist() == [index for ids in alone for index in ids]
    assert flat.ids.dtype == tokenizer.id_dtype
    assert flat.lengths.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_words_looked_up_have_the_ids_that_their_text_has(kind, lowercase):
    tokenizer = trained(kind, lowercase)
    assert tokenizer.spaces is (Spaces.kept if kind is TokenizerKind.bpe else Spaces.dropped)
    table = WordTable(tokenizer)
    for seed in range(3):  # the second and third time most words are known
        assert_encodes_as_the_tokenizer(table, tokenizer, hard_texts(1500, seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], [" "], ["", " a", "  ", ""], ["a\0b c", "\0", "a"], [" \0a", "a"]])
def test_texts_of_nothing_but_a_border_are_encoded_too(kind, texts):
    tokenizer = trained(kind, True)
    table = WordTable(tokenizer)
    assert_encodes_as_the_tokenizer(table, tokenizer, ["a the", "a"])
    assert_encodes_as_the_tokenizer(table, tokenizer, texts)


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_words_are_forgotten_and_nothing_changes(kind):
    tokenizer, generator = trained(kind, True), random.Random(1)
    table, sizes = WordTable(tokenizer, most_words=50), []
    for _ in range(60):
        words = ["".join(generator.choices("abcdef", k=3)) for _ in range(20)]
        assert_encodes_as_the_tokenizer(table, tokenizer, [" ".join(words), words[0]])
        sizes.append(len(table))
    assert max(sizes) <= 50 + 2 * 20  # what there may be, and the words of one call
    assert min(sizes[10:]) < 50


@pytest.mark.parametrize("kind", KINDS)
def test_texts_can_be_numbered_long_before_they_are_encoded(kind):
    tokenizer = trained(kind, False)
    table = WordTable(tokenizer, most_words=100)
    batches = [hard_texts(40, seed) for seed in range(20)]
    numbered = [table.number(texts) for texts in batches]
    assert len(table) < 500  # of about a thousand: some were forgotten before their texts are encoded
    for texts, words in zip(batches, numbered, strict=True):
        flat = words.encode()
        alone = tokenizer.encode_flat(texts)
        assert (flat.ids.tolist(), flat.lengths.tolist()) == (alone.ids.tolist(), alone.lengths.tolist())


def test_long_words_are_forgotten_before_they_fill_the_memory():
    tokenizer = trained(TokenizerKind.wordpiece, True)
    table = WordTable(tokenizer, most_characters=1000)
    for number in range(6):
        encoded(table, [f"{number}" * 400])
        assert len(table) <= 3


def test_a_word_is_remembered_once():
    table = WordTable(trained(TokenizerKind.bpe, True))
    for _ in range(3):
        encoded(table, ["the cat sat", " the cat"] * 700)
    assert len(table) == len({"the", " cat", " sat", "", " the"})


def of_parts(model="wordpiece", normalizer=None, splitter=None, **added):
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), "a", "b", "Ġ"])}
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocab, unk_token="[UNK]") if model == "wordpiece" else models.BPE(vocab, [], **added)
    )
    if model == "bpe":
        backend.decoder = tokenizers.decoders.ByteLevel()
        added = {}
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter or pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    if added:
        backend.add_tokens([AddedToken(**added)])
    return Tokenizer(backend)


@pytest.mark.parametrize(
    "parts",
    [
        {"splitter": pre_tokenizers.Whitespace()},
        {"splitter": pre_tokenizers.Metaspace()},
        {"normalizer": normalizers.Replace("a b", "b")},
        {"normalizer": normalizers.BertNormalizer(), "splitter": pre_tokenizers.ByteLevel(add_prefix_space=False)},
        {"model": "bpe", "splitter": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"model": "bpe", "splitter": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
        {"model": "bpe", "splitter": pre_tokenizers.ByteLevel(add_prefix_space=False), "dropout": 0.5},
        {"content": "a b", "normalized": False},
        {"content": "b", "normalized": False, "lstrip": True},
        {"content": "b", "normalized": False, "rstrip": True},
        {"content": "b", "normalized": False, "single_word": True},
        {"content": "b", "normalized": True},
    ],
    ids=str,
)
def test_where_no_cut_is_known_to_be_safe_the_tokenizer_gets_the_texts_whole(parts):
    tokenizer = of_parts(**parts)
    assert tokenizer.spaces is Spaces.unknown
    table = WordTable(tokenizer)
    if "dropout" not in parts:
        assert_encodes_as_the_tokenizer(table, tokenizer, ["a b", "b  a", " a b"])
    encoded(table, ["a b"])
    assert len(table) == 0
