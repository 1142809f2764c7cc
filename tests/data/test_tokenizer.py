import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from foundation.core.errors import UserError
from foundation.data.config import TokenizerConfig, TokenizerKind
from foundation.data.sentences import split_sentences
from foundation.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from foundation.data.tokenizer_training import train_tokenizer

KINDS = [TokenizerKind.wordpiece, TokenizerKind.bpe]
VOCAB = 300


def prose(n_sentences=600, seed=0):
    """Invented English-like sentences, three to a line, over about 300 words."""
    generator = random.Random(seed)
    syllables = ["ba", "co", "di", "fu", "ga", "hel", "in", "jo", "kra", "lum", "mer", "no", "ost", "pi", "que", "ri"]
    words = ["".join(generator.choices(syllables, k=generator.randrange(1, 4))) for _ in range(300)]
    sentences = [
        " ".join(generator.choices(words, k=generator.randrange(3, 12))).capitalize() + generator.choice(".!?")
        for _ in range(n_sentences)
    ]
    return [" ".join(sentences[i : i + 3]) for i in range(0, n_sentences, 3)]


def trained(kind, **changes):
    settings = {"kind": kind, "vocab_size": VOCAB, "lowercase": kind is TokenizerKind.wordpiece, **changes}
    return train_tokenizer(settings.pop("texts", prose()), TokenizerConfig(**settings))


def ids_of(tokenizer, text):
    return tokenizer.encode_batch([text])[0].tolist()


def random_text(generator):
    """Any characters there are: ASCII, letters of many scripts, emoji, control characters, unassigned ones."""
    blocks = [(0x00, 0x80), (0x80, 0x250), (0x370, 0x700), (0x2000, 0x2100), (0x4E00, 0x4F00), (0x1F300, 0x1F650)]
    everything = [(0, 0xD800), (0xE000, 0x110000)]  # but the halves of surrogate pairs, which are no characters
    ranges = [*blocks, *everything]
    return "".join(chr(generator.randrange(*generator.choice(ranges))) for _ in range(generator.randrange(40)))


# --- encoding


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_size_asked_for_and_the_special_tokens_come_first(kind):
    tokenizer = trained(kind)
    specials = tokenizer.specials
    assert tokenizer.vocab_size == VOCAB
    assert [specials.pad, specials.unk, specials.cls, specials.sep, specials.mask] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_adds_no_special_token(kind):
    for ids in trained(kind).encode_batch(prose()):
        assert ids.min() > 4


def test_byte_level_bpe_gives_back_every_string():
    tokenizer = trained(TokenizerKind.bpe)
    generator = random.Random(0)
    texts = [random_text(generator) for _ in range(500)] + ["", " ", "\n\n x", "a [MASK] b[SEP]", "  two  spaces  "]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


def test_byte_level_bpe_cuts_sentences_as_it_cuts_the_whole():
    tokenizer = trained(TokenizerKind.bpe)
    generator = random.Random(1)
    pieces = ["Bado.", " ", "  ", "\n", "\n\n", "Cofu!", '"', "(ga)", "mer", "?", "—", "[MASK]", "'s", "9"]
    for _ in range(300):
        text = "".join(generator.choices(pieces, k=20))
        assert np.concatenate(tokenizer.encode_batch(split_sentences(text))).tolist() == ids_of(tokenizer, text)


def test_wordpiece_spells_every_word_over_its_alphabet():
    tokenizer = trained(TokenizerKind.wordpiece)
    letters = sorted(set("".join(prose()).lower()) - set(" .!?"))
    assert len(letters) > 15
    generator = random.Random(0)
    words = ["".join(generator.choices(letters, k=generator.randrange(1, 30))) for _ in range(500)]
    assert tokenizer.specials.unk not in np.concatenate(tokenizer.encode_batch(words))
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(words)] == words


def test_wordpiece_does_not_know_characters_it_has_not_seen():
    tokenizer = trained(TokenizerKind.wordpiece)
    assert ids_of(tokenizer, "ж") == [tokenizer.specials.unk]


def test_lowercase_makes_capitals_equal_and_without_it_they_differ():
    for kind in KINDS:
        small, large = trained(kind, lowercase=True).encode_batch(["bado", "BADO"])
        assert small.tolist() == large.tolist()
        small, large = trained(kind, lowercase=False).encode_batch(["bado", "BADO"])
        assert small.tolist() != large.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_special_token_written_in_a_text_is_one_token_and_its_small_letters_are_not(kind):
    tokenizer = trained(kind, texts=[*prose(), "[mask]"] * 2)
    assert ids_of(tokenizer, "bado [MASK]co").count(tokenizer.specials.mask) == 1
    assert tokenizer.specials.mask not in ids_of(tokenizer, "bado [mask] co")


@pytest.mark.parametrize("kind", KINDS)
def test_flat_and_batched_encodings_agree(kind):
    tokenizer = trained(kind)
    texts = ["", *prose()[:20], ""]
    flat = tokenizer.encode_flat(texts)
    rows = tokenizer.encode_batch(texts)
    assert flat.lengths.tolist() == [len(row) for row in rows]
    assert flat.ids.tolist() == np.concatenate(rows).tolist()
    assert flat.ids.dtype == np.uint16
    assert rows[0].tolist() == rows[-1].tolist() == []
    assert rows[5].tolist() == ids_of(tokenizer, texts[5])


def each_alone(tokenizer, texts):
    """What the library gives when every text is encoded by itself."""
    return [tokenizer._backend.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", ["", "[SEP]", "[MASK]"])
def test_texts_that_share_a_call_are_encoded_as_if_each_were_alone(kind, written):
    generator = random.Random(7)
    texts = [random_text(generator) + written * (number % 50 == 0) for number in range(300)]
    texts += ["", " ", "[", "SEP]", "[SEP", "]", " a ", "\u0301", "a", "\n\n"]
    generator.shuffle(texts)
    tokenizer = trained(kind)
    assert tokenizer._can_be_joined
    flat = tokenizer.encode_flat(texts)
    alone = each_alone(tokenizer, texts)
    assert flat.lengths.tolist() == [len(ids) for ids in alone]
    assert flat.ids.tolist() == [index for ids in alone for index in ids]


def test_a_foreign_tokenizer_that_does_not_know_the_border_encodes_each_text_alone(tmp_path):
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), "a", "b"])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # and [SEP] is no added token: it is cut like any text
    tokenizer = Tokenizer(backend)
    assert not tokenizer._can_be_joined
    assert tokenizer.encode_flat(["a b", "", "b"]).lengths.tolist() == [2, 0, 1]


# --- words


def groups(tokenizer, text):
    """Texts of the words that continues_word makes of a text."""
    found = []
    for index in ids_of(tokenizer, text):
        if found and tokenizer.continues_word[index]:
            found[-1].append(index)
        else:
            found.append([index])
    return [tokenizer.decode(group) for group in found]


def test_wordpiece_continues_a_word_with_hashes_only():
    tokenizer = trained(TokenizerKind.wordpiece)
    assert tokenizer.continues_word.shape == (VOCAB,)
    assert groups(tokenizer, "Bado kralumhelpi. Gafu?") == ["bado", "kralumhelpi", ".", "gafu", "?"]


def test_byte_level_bpe_groups_hold_one_word_each():
    text = "kralumhelpi bado, ga-fu (merno)\nqueri “ostjo”—café’s 123 x1\n\nLast"
    words = [
        "kralumhelpi", " bado", ",", " ga", "-fu", " (merno", ")", "\nqueri", " “ostjo", "”—café", "’s", " 123", " x1",
        "\n", "\nLast",
    ]  # fmt: skip
    assert groups(trained(TokenizerKind.bpe, texts=[*prose(), *[text] * 50], vocab_size=400), text) == words
    # Even where ( and — have no token with the space or of their own, no group holds two words.
    for group in groups(trained(TokenizerKind.bpe), text):
        assert len(re.findall(r"\w+", group)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_never_continue_a_word(kind):
    assert not trained(kind).continues_word[:5].any()


# --- training


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer_in_every_process(kind):
    program = f"""
from tests.data.test_tokenizer import *
print(trained(TokenizerKind.{kind.value}).fingerprint)
"""
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)
    ]
    assert {run.communicate()[0].strip() for run in runs} == {trained(kind).fingerprint}


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_that_the_text_does_not_support_is_refused_with_the_size_it_does(kind):
    with pytest.raises(UserError, match=r"vocab_size=50000 is more than .* supports, which is (\d+)") as error:
        trained(kind, vocab_size=50_000)
    size = int(str(error.value).partition("which is ")[2].split()[0])
    assert trained(kind, vocab_size=size).vocab_size == size


def ideographs(n_words, seed=0):
    """Words of one to three of 2,000 ideographs, as frequent as one over their rank, without spaces."""
    generator = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(2000)]
    drawn = generator.choices(range(2000), weights, k=2 * n_words)
    return "。".join("".join(chr(0x4E00 + number) for number in drawn[at : at + 20]) for at in range(0, len(drawn), 20))


@pytest.mark.parametrize("latin", [0, 200])
def test_wordpiece_knows_the_ideographs_of_its_text(latin):
    texts = [ideographs(20_000), *prose()[:latin]]
    with pytest.raises(UserError, match=r"set tokenizer\.vocab_size=") as error:
        trained(TokenizerKind.wordpiece, texts=texts, vocab_size=8192)
    size = int(str(error.value).partition("which is ")[2].split()[0])
    tokenizer = trained(TokenizerKind.wordpiece, texts=texts, vocab_size=size)
    assert tokenizer.vocab_size == size > 1500
    unknown = ids_of(tokenizer, texts[0]).count(tokenizer.specials.unk)
    assert unknown < 5e-3 * len(texts[0])  # those that stand there once


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_smaller_than_the_alphabet_is_refused_with_the_size_it_needs(kind):
    with pytest.raises(UserError, match=r"vocab_size=20 is too small.*alphabet take (\d+)") as error:
        trained(kind, vocab_size=20)
    size = int(str(error.value).rpartition(" ")[2])
    assert trained(kind, vocab_size=size).vocab_size == size


def test_rare_characters_do_not_crowd_the_vocabulary():
    rare = [chr(0x4E00 + i) for i in range(500)]
    tokenizer = trained(TokenizerKind.wordpiece, texts=[*prose(), *rare])
    known = sum(tokenizer.specials.unk not in ids for ids in tokenizer.encode_batch(rare))
    assert 0 < known < 100
    assert tokenizer.specials.unk not in np.concatenate(tokenizer.encode_batch(prose()))


def test_min_frequency_keeps_rare_merges_out():
    texts = [*prose(), "zyzzyva"]
    assert len(ids_of(trained(TokenizerKind.bpe, texts=texts, min_frequency=2), "zyzzyva")) > 3


# --- on disk


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same_when_loaded(tmp_path, kind):
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.specials == tokenizer.specials
    assert (loaded.continues_word == tokenizer.continues_word).all()
    assert ids_of(loaded, prose()[0]) == ids_of(tokenizer, prose()[0])
    assert trained(kind, vocab_size=VOCAB - 1).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_the_file_and_encodes_as_we_do(tmp_path, kind):
    from transformers import PreTrainedTokenizerFast

    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    names = {f"{name}_token": text for name, text in SPECIAL_TOKENS.items()}
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **names)
    first, second = prose()[0], "Bado [MASK] merno."
    a, b = ids_of(tokenizer, first), ids_of(tokenizer, second)
    specials = tokenizer.specials

    pair = theirs(first, second, return_token_type_ids=True)
    assert pair["input_ids"] == [specials.cls, *a, specials.sep, *b, specials.sep]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert theirs(first)["input_ids"] == [specials.cls, *a, specials.sep]
    assert theirs.mask_token_id == specials.mask
    assert "[MASK]" not in theirs.decode(theirs(second)["input_ids"], skip_special_tokens=True)
    assert theirs([first, second], padding=True)["input_ids"][1][-1] == specials.pad
    assert len(theirs) == tokenizer.vocab_size


def test_padding_and_truncation_of_a_foreign_file_are_switched_off(tmp_path):
    trained(TokenizerKind.wordpiece).save(tmp_path / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=5)
    backend.save(str(tmp_path / "foreign.json"))
    tokenizer = Tokenizer.load(tmp_path / "foreign.json")
    assert len(ids_of(tokenizer, "ba")) == 1
    assert len(ids_of(tokenizer, "ba " * 9)) == 9


def save_foreign(path, model, specials=True, pre_tokenizer=None):
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    if specials:
        backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    backend.save(str(path))
    return path


def test_files_that_are_no_usable_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer at .*none\.json"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(UserError, match=r"broken\.json is not a tokenizer\.json"):
        Tokenizer.load(tmp_path / "broken.json")
    bare = save_foreign(tmp_path / "bare.json", models.WordPiece({"[UNK]": 0, "a": 1}), specials=False)
    with pytest.raises(UserError, match=r"bare\.json lacks \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        Tokenizer.load(bare)
    with pytest.raises(UserError, match=r"Unigram tokenizer: only WordPiece and byte-level BPE"):
        Tokenizer.load(save_foreign(tmp_path / "unigram.json", models.Unigram([("a", -1.0)], unk_id=0)))
    with pytest.raises(UserError, match=r"BPE tokenizer: only WordPiece and byte-level BPE"):
        Tokenizer.load(save_foreign(tmp_path / "chars.json", models.BPE({"a": 0}, [])))


def test_a_large_vocabulary_takes_wider_ids(tmp_path):
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), *(f"w{i}" for i in range(70_000))])}
    large = Tokenizer.load(save_foreign(tmp_path / "large.json", models.WordPiece(vocab, unk_token="[UNK]")))
    assert large.vocab_size == 70_005
    assert large.encode_flat(["w69999"]).ids.tolist() == [70_004]
    assert large.id_dtype is np.uint32
