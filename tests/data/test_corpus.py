import gzip
import json
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress
from foundation.data import prepare as prepare_module
from foundation.data import reuse
from foundation.data.config import DataConfig, TokenizerConfig, TokenizerKind
from foundation.data.corpus import Corpus
from foundation.data.prepare import prepare
from foundation.data.sentences import split_sentences
from foundation.data.sources import Document
from foundation.data.spool import HashesSeen, TrainingTexts, fill_spool
from tests.data.test_tokenizer import prose

BPE = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=300, lowercase=False)
WORDPIECE = TokenizerConfig(kind=TokenizerKind.wordpiece, vocab_size=300)
SPLITS = ("train", "held_out")


def texts(n=100, seed=0):
    """Distinct documents of one to three lines, some with characters outside ASCII."""
    lines = iter(prose(9 * n, seed))
    generator = random.Random(seed)
    return [
        "\n".join([f"{i} “ça”:", *(next(lines) for _ in range(generator.randrange(3)))]) for i in range(n)
    ]  # fmt: skip


def write(path, documents):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n\n".join(documents))
    return DataConfig(files=[str(path)], held_out=0.2)


def made(tmp_path, documents, tokenizer=BPE, **changes):
    data = write(tmp_path / "text.txt", documents)
    for name, value in changes.items():
        setattr(data, name, value)
    return prepare(data, tokenizer, tmp_path / "cache", progress=False)


def decoded(corpus, split, bounds):
    """Texts between neighbouring bounds ("documents" or "sentences") of a split."""
    table = getattr(corpus, split)
    edges = getattr(table, bounds)
    return [corpus.tokenizer.decode(table.ids[a:b]) for a, b in pairwise(edges)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is in it


def test_every_document_is_there_once_token_for_token_and_in_order(tmp_path):
    corpus = made(tmp_path, texts())
    train, held_out = (decoded(corpus, split, "documents") for split in SPLITS)
    assert sorted(train + held_out) == sorted(texts())
    assert train == [text for text in texts() if text in set(train)]
    assert 5 < len(held_out) < 40


def test_sentence_bounds_cut_every_document_into_its_sentences(tmp_path):
    corpus = made(tmp_path, texts())
    for split in SPLITS:
        table = getattr(corpus, split)
        expected = [sentence for text in decoded(corpus, split, "documents") for sentence in split_sentences(text)]
        assert decoded(corpus, split, "sentences") == expected
        assert set(table.documents) <= set(table.sentences)
        assert table.documents[0] == table.sentences[0] == 0
        assert table.documents[-1] == table.sentences[-1] == len(table.ids)
        assert (np.diff(table.sentences) > 0).all()


@pytest.mark.parametrize("tokenizer", [BPE, WORDPIECE], ids=["bpe", "wordpiece"])
def test_the_tokens_are_those_of_the_tokenizer_and_the_manifest_counts_them(tmp_path, tokenizer):
    corpus = made(tmp_path, texts(), tokenizer)
    known = {tuple(ids): text for text, ids in zip(texts(), corpus.tokenizer.encode_batch(texts()), strict=True)}
    for split in SPLITS:
        table = getattr(corpus, split)
        rows = [tuple(table.ids[a:b]) for a, b in pairwise(table.documents)]
        counts = corpus.manifest[split]
        assert set(rows) <= set(known)
        assert counts["tokens"] == len(table.ids) == sum(map(len, rows))
        assert counts["documents"] == len(rows)
        assert counts["sentences"] == len(table.sentences) - 1
        assert counts["words"] == sum(len(known[row].split()) for row in rows)
        assert counts["bytes"] == sum(len(known[row].encode()) for row in rows)
    assert sum(corpus.manifest[split]["documents"] for split in SPLITS) == 100
    assert corpus.train.ids.dtype == np.uint16
    assert corpus.train.documents.dtype == corpus.train.sentences.dtype == np.int64


def test_more_sentences_than_a_batch_holds_are_all_written(tmp_path):
    documents = [f"{i}. " + "Ba co! " * 4500 for i in range(8)]
    corpus = made(tmp_path, documents, TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=265, lowercase=False))
    found = [text for split in SPLITS for text in decoded(corpus, split, "documents")]
    assert sorted(found) == sorted(text.strip() for text in documents)
    assert sum(corpus.manifest[split]["sentences"] for split in SPLITS) > 8 * 4500


def test_unigram_entropy_is_that_of_the_training_tokens(tmp_path):
    corpus = made(tmp_path, texts())
    shares = np.bincount(corpus.train.ids) / len(corpus.train.ids)
    expected = -sum(p * np.log(p) for p in shares if p)
    assert corpus.manifest["unigram_entropy_nats"] == pytest.approx(expected, rel=1e-12)


def test_repeated_and_empty_documents_are_dropped_and_white_space_around_does_not_count(tmp_path):
    rows = [{"text": text} for text in [*texts(20), *texts(20)[:7], f"  {texts(20)[8]}\n", "", " \n"]]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cfg = DataConfig(files=[str(tmp_path / "text.jsonl")], held_out=0.2)
    corpus = prepare(cfg, TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=280, lowercase=False), tmp_path / "cache")
    assert corpus.manifest["duplicates_dropped"] == 8
    assert sum(corpus.manifest[split]["documents"] for split in SPLITS) == 20
    assert corpus.manifest["documents_per_source"] == {str(tmp_path / "text.jsonl"): 20}


def test_documents_and_sentences_that_encode_to_nothing_leave_no_trace(tmp_path):
    nothing = ["\u200b", "\x01 \x02", "\ufffd", "\x03", "\x04\x05"]
    documents = [text.replace("\n", "\n\x01\n") for text in texts()]
    corpus = made(tmp_path, [*documents, *nothing], WORDPIECE)
    counts = [corpus.manifest[split] for split in SPLITS]
    assert sum(count["documents"] for count in counts) == 100
    assert sum(count["words"] for count in counts) == len(" ".join(documents).split())
    assert sum(count["sentences"] for count in counts) == sum(len(split_sentences(text)) for text in texts())
    for split in SPLITS:
        table = getattr(corpus, split)
        assert (np.diff(table.documents) > 0).all()
        assert (np.diff(table.sentences) > 0).all()


# --- the two splits


def test_a_document_stays_on_its_side_when_others_come(tmp_path):
    few, many = (made(tmp_path / str(n), texts()[:n]) for n in (60, 100))
    for split in SPLITS:
        assert set(decoded(few, split, "documents")) <= set(decoded(many, split, "documents"))


def test_the_share_that_was_asked_for_is_held_out(tmp_path):
    spool = fill_spool(tmp_path / "spool", (Document(str(i), "here") for i in range(4000)), 0.1)
    assert sum(document.is_held_out for document in spool) == pytest.approx(400, abs=100)


def test_nothing_held_out_is_in_the_training_text_even_if_it_came_twice(tmp_path):
    corpus = made(tmp_path, texts() * 2)
    assert not set(decoded(corpus, "train", "documents")) & set(decoded(corpus, "held_out", "documents"))


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path):
    marks = {chr(0x4E00 + i): f"{chr(0x4E00 + i)} {text}" for i, text in enumerate(prose(180))}
    corpus = made(tmp_path, list(marks.values()), WORDPIECE)
    known = {mark: corpus.tokenizer.encode_batch([mark])[0][0] != corpus.tokenizer.specials.unk for mark in marks}
    trained_on = {text.split()[0] for text in decoded(corpus, "train", "documents")}
    assert {mark for mark in marks if known[mark]} == trained_on
    assert 0 < len(trained_on) < len(marks)


@pytest.mark.parametrize("held_out", [1e-9, 1 - 1e-9])
def test_a_small_corpus_has_at_least_one_document_on_each_side(tmp_path, held_out):
    tokenizer = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=262, lowercase=False)
    corpus = made(tmp_path, ["ba ba ba", "co co co"], tokenizer, held_out=held_out)
    assert [corpus.manifest[split]["documents"] for split in SPLITS] == [1, 1]


@pytest.mark.parametrize("documents", [[], [" "], ["one"], ["one", "one"]])
def test_fewer_than_two_distinct_documents_are_refused(tmp_path, documents):
    with pytest.raises(UserError, match=r"too small: its sources hold [01] distinct documents.*blank line"):
        made(tmp_path, documents)
    assert names(tmp_path / "cache") == []


def test_a_split_without_a_token_is_refused(tmp_path):
    with pytest.raises(UserError, match="no document of the held_out split has a single token"):
        made(tmp_path, ["ba co ba co", "\x01", "\x02", "\x03"], TokenizerConfig(vocab_size=15), held_out=1e-9)


# --- the cache


def state(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_second_preparation_opens_what_the_first_one_made(tmp_path):
    first = made(tmp_path, texts())
    before = state(tmp_path / "cache")
    cfg = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    second = prepare(cfg, BPE, tmp_path / "cache", progress=False)
    assert state(tmp_path / "cache") == before
    assert second.path == first.path
    assert (second.train.ids == first.train.ids).all()
    assert names(first.path) == ["held_out", "manifest.json", "tokenizer.json", "train"]
    assert names(first.path / "train") == ["documents.bin", "ids.bin", "sentences.bin"]


def test_a_change_of_text_or_settings_makes_another_corpus(tmp_path):
    paths = {made(tmp_path, texts()).path, made(tmp_path, texts(seed=1)).path}
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    paths.add(prepare(data, WORDPIECE, tmp_path / "cache").path)
    data.held_out = 0.3
    paths.add(prepare(data, BPE, tmp_path / "cache").path)
    assert len(paths) == 4
    assert {path.name.rpartition("-")[0] for path in paths} == {"files-bpe300", "files-wordpiece300"}


def touched(path, seconds):
    os.utime(path, (seconds, seconds))
    return path


def test_a_file_that_was_copied_is_not_tokenized_again(tmp_path, monkeypatch):
    first = made(tmp_path, texts())
    touched(tmp_path / "text.txt", 1)
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    second = prepare(data, BPE, tmp_path / "cache")
    assert (second.path, second.fingerprint) == (first.path, first.fingerprint)
    monkeypatch.setattr(reuse, "checksum_file", lambda path: pytest.fail("its new time is known"))
    assert prepare(data, BPE, tmp_path / "cache").path == first.path


def test_a_file_of_the_same_size_and_other_content_is_tokenized(tmp_path):
    first = made(tmp_path, texts())
    path = tmp_path / "text.txt"
    path.write_text(path.read_text().replace("ça", "çe", 1))
    touched(path, 1)
    assert made(tmp_path, path.read_text().split("\n\n")).path != first.path


def test_a_file_that_changes_while_it_is_read_is_tokenized_again(tmp_path, monkeypatch):
    """Whether the new content or the old has been read nobody knows."""
    path, fill = tmp_path / "text.txt", prepare_module.fill_spool

    def fill_while_someone_writes(*arguments):
        spool = fill(*arguments)
        touched(path, 1)
        return spool

    monkeypatch.setattr(prepare_module, "fill_spool", fill_while_someone_writes)
    first = made(tmp_path, texts())
    monkeypatch.undo()
    data = DataConfig(files=[str(path)], held_out=0.2)
    assert prepare(data, BPE, tmp_path / "cache").path != first.path


def test_of_a_file_that_only_begins_to_be_read_no_checksum_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(reuse, "checksum_file", lambda path: pytest.fail("it reads the whole file"))
    first = made(tmp_path, texts(), max_words=300)
    touched(tmp_path / "text.txt", 1)
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2, max_words=300)
    assert prepare(data, BPE, tmp_path / "cache").fingerprint == first.fingerprint


def test_a_copied_file_with_another_given_tokenizer_is_tokenized(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mine = tmp_path / "mine.json"
    given = TokenizerConfig(path="~/mine.json")
    shutil.copy(made(tmp_path / "a", texts(), BPE).path / "tokenizer.json", mine)
    first = made(tmp_path, texts(), given)
    touched(tmp_path / "text.txt", 1)
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    assert prepare(data, given, tmp_path / "cache").path == first.path
    shutil.copy(made(tmp_path / "b", texts(), WORDPIECE).path / "tokenizer.json", mine)
    touched(tmp_path / "text.txt", 2)
    assert prepare(data, given, tmp_path / "cache").path != first.path


@pytest.mark.parametrize("tokenizer", [BPE, WORDPIECE], ids=["bpe", "wordpiece"])
def test_the_same_text_gives_the_same_fingerprint_wherever_it_lies(tmp_path, tokenizer):
    corpora = [made(tmp_path / place, texts(), tokenizer) for place in ("here", "there")]
    assert corpora[0].path.name != corpora[1].path.name
    assert corpora[0].fingerprint == corpora[1].fingerprint
    assert corpora[0].manifest["file_hashes"] == corpora[1].manifest["file_hashes"]
    assert made(tmp_path, texts()[:-1], tokenizer).fingerprint != corpora[0].fingerprint


def test_a_failure_in_the_middle_leaves_nothing(tmp_path):
    write(tmp_path / "good.txt", texts())
    (tmp_path / "late.txt.gz").write_bytes(gzip.compress(os.urandom(9999).hex().encode())[:-99])
    data = DataConfig(files=[str(tmp_path / "good.txt"), str(tmp_path / "late.txt.gz")])
    with pytest.raises(UserError, match="damaged gzip"):
        prepare(data, BPE, tmp_path / "cache", progress=False)
    assert names(tmp_path / "cache") == []
    with pytest.raises(UserError, match="more than the training text supports"):
        made(tmp_path, texts(), TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=9999))
    assert names(tmp_path / "cache") == []


def test_an_interruption_of_the_document_stream_leaves_nothing(tmp_path):
    def stream():
        yield Document("one", "here")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), folder_in_progress(tmp_path / "corpus") as folder:
        fill_spool(folder / "spool", stream(), 0.1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("has_manifest", [False, True])
def test_litter_of_a_killed_preparation_does_no_harm_and_goes(tmp_path, has_manifest):
    path = made(tmp_path, texts()).path
    litter = path.with_name(f".{path.name}.0123abcd.partial")
    path.rename(litter)
    if not has_manifest:
        (litter / "manifest.json").unlink()
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    assert prepare(data, BPE, tmp_path / "cache", progress=False).path == path
    assert names(tmp_path / "cache") == [path.name]


def test_a_killed_preparation_is_not_taken_for_the_corpus_of_a_touched_file(tmp_path):
    path = made(tmp_path, texts()).path
    path.rename(path.with_name(f".{path.name}.0123abcd.partial"))
    os.utime(tmp_path / "text.txt", (1, 1))
    data = DataConfig(files=[str(tmp_path / "text.txt")], held_out=0.2)
    assert not prepare(data, BPE, tmp_path / "cache", progress=False).path.name.startswith(".")


def test_preparations_at_once_all_get_the_same_whole_corpus(tmp_path):
    data = write(tmp_path / "text.txt", texts())
    start = threading.Barrier(3)

    def run(_):
        start.wait()
        return prepare(data, BPE, tmp_path / "cache", progress=False)

    with ThreadPoolExecutor(3) as pool:
        corpora = list(pool.map(run, range(3)))
    assert len({corpus.fingerprint for corpus in corpora}) == 1
    assert names(tmp_path / "cache") == [corpora[0].path.name]
    Corpus.open(corpora[0].path, verify=True)


def test_progress_false_is_silent(tmp_path, capfd):
    made(tmp_path, texts())
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


# --- opening


def cut_off_end(path):
    os.truncate(path, path.stat().st_size - 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_manifest(**changes):
    def change(path):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train/ids.bin", cut_off_end, r"train/ids\.bin has \d+ bytes instead of \d+\. Delete the folder"),
        ("held_out/sentences.bin", cut_off_end, r"held_out/sentences\.bin has"),
        ("held_out/documents.bin", lambda path: path.unlink(), r"held_out/documents\.bin is missing"),
        ("tokenizer.json", lambda path: path.write_text("{}"), r"tokenizer\.json has 2 bytes instead"),
        ("manifest.json", lambda path: path.write_text('{"a": '), r"manifest\.json is not valid JSON"),
        ("manifest.json", lambda path: path.write_text("[]"), r"manifest\.json is not a JSON object"),
        ("manifest.json", lambda path: path.unlink(), r"no file at .*manifest\.json"),
        ("manifest.json", replace_manifest(file_bytes=None), r"manifest\.json lacks file_bytes"),
        ("manifest.json", replace_manifest(format_version=0), r"has format 0, while this version reads 1"),
        ("manifest.json", replace_manifest(tokenizer_fingerprint="0"), r"tokenizer\.json is not the one that made it"),
    ],
)
def test_a_damaged_corpus_is_refused(tmp_path, name, damage, message):
    path = made(tmp_path, texts(30)).path
    damage(path / name)
    with pytest.raises(UserError, match=message):
        Corpus.open(path)


@pytest.mark.parametrize("name", ["train/ids.bin", "held_out/documents.bin"])
def test_a_single_wrong_bit_is_found_on_request(tmp_path, name):
    path = made(tmp_path, texts(30)).path
    Corpus.open(path, verify=True)
    flip_a_bit(path / name)
    Corpus.open(path)
    with pytest.raises(UserError, match=f"the content of {name} has changed"):
        Corpus.open(path, verify=True)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no corpus at"):
        Corpus.open(tmp_path / "none")


# --- the tokenizer's part


def test_a_given_tokenizer_is_used_as_it_is(tmp_path):
    first = made(tmp_path, texts())
    given = TokenizerConfig(path=str(first.path / "tokenizer.json"))
    second = made(tmp_path, texts(), given)
    assert second.path != first.path
    assert second.fingerprint == first.fingerprint
    assert second.path.name.startswith("files-own-tokenizer-")
    with pytest.raises(UserError, match=r"no tokenizer at tokenizer\.path=none\.json"):
        made(tmp_path, texts(), TokenizerConfig(path="none.json"))


@pytest.mark.parametrize("max_words", [10, 100, 1000])
def test_train_words_takes_that_many_words_evenly_from_all_training_documents(tmp_path, max_words):
    sizes = random.Random(0).choices(range(3, 12), k=400)
    stream = (Document(f"{i}. " + "Word. " * size, "here") for i, size in enumerate(sizes))
    spool = fill_spool(tmp_path / "spool", stream, 0.1)
    taken = list(TrainingTexts(spool, max_words))
    assert 0.8 * max_words <= sum(len(text.split()) for text in taken) <= max_words

    everything = list(TrainingTexts(spool, spool.n_words))
    assert everything == list(TrainingTexts(spool, None))
    assert everything == [document.text for document in spool if not document.is_held_out]


def test_train_words_reaches_the_tokenizer(tmp_path):
    few = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=280, lowercase=False, train_words=200)
    everything = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=280, lowercase=False)
    assert made(tmp_path, texts(), few).fingerprint != made(tmp_path, texts(), everything).fingerprint


def test_hashes_are_a_set_whatever_of_them_is_sorted_already():
    draws = np.random.default_rng(0).integers(0, 1 << 64, 400, dtype=np.uint64).tolist()
    keys = [0, (1 << 64) - 1, *(draws[index] for index in np.random.default_rng(1).integers(0, 400, 1000))]
    seen, expected = HashesSeen(merge_at=7), set()
    for key in keys:
        assert seen.add(key) == (key not in expected)
        expected.add(key)
    assert len(seen) == len(expected)
    assert (seen.smallest, seen.largest) == (min(expected), max(expected))
