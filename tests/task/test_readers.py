"""Every file that can be read, and every complaint about one that cannot."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from foundation.core.errors import UserError
from foundation.task.readers import format_of, read_hub, read_rows
from foundation.task.row import Row


def lay(folder: Path, name: str, text: str, encoding: str = "utf-8") -> str:
    path = folder / name
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def fields(path: str, **how: object) -> list[dict[str, str]]:
    return [row.fields for row in read_rows(path, **how)]


WANTED = [{"text": "a, b", "label": "1"}, {"text": "c", "label": "2"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'text,label\n"a, b",1\nc,2\n'),
        ("a.csv.gz", 'text,label\r\n"a, b",1\r\n\r\nc,2'),
        ("a.tsv", "text\tlabel\na, b\t1\nc\t2\n"),
        ("a.TSV.GZ", "text\tlabel\na, b\t1\nc\t2\n"),
        ("a.jsonl", '{"text": "a, b", "label": 1}\n\n{"text": "c", "label": "2"}\n'),
        ("a.jsonl.gz", '{"text": "a, b", "label": "1"}\n{"text": "c", "label": 2}\n'),
    ],
)
def test_the_same_rows_come_from_every_format(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())
    assert fields(str(path)) == WANTED


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    assert fields(lay(tmp_path, "a.csv", "text,label\nx,1\n", "utf-8-sig")) == [{"text": "x", "label": "1"}]


def test_quoted_fields_may_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    rows = list(read_rows(lay(tmp_path, "a.csv", 'text,label\n"one\ntwo",1\nx,2\n')))
    assert rows == [
        Row({"text": "one\ntwo", "label": "1"}, f"{tmp_path}/a.csv:2"),
        Row({"text": "x", "label": "2"}, f"{tmp_path}/a.csv:4"),
    ]


def test_literal_quotes_and_stray_line_separators_stay_in_the_text(tmp_path: Path) -> None:
    text = 'text\tlabel\n" so he said\t1\nfoo\x0bbar\u2028baz\rqux "\t2\r\n'
    path = lay(tmp_path, "a.tsv", text)
    assert [f["text"] for f in fields(path, literal_quotes=True)] == ['" so he said', 'foo\x0bbar\u2028baz\rqux "']


def test_columns_can_be_named_or_renamed(tmp_path: Path) -> None:
    path = lay(tmp_path, "a.tsv", "x\ty\n1\t2\n")
    assert fields(path, columns=["a", "b"]) == [{"a": "1", "b": "2"}]
    assert fields(path, columns=["a", "b"], has_header=False) == [{"a": "x", "b": "y"}, {"a": "1", "b": "2"}]


def test_plain_text_has_a_text_a_line_blank_ones_too(tmp_path: Path) -> None:
    assert fields(lay(tmp_path, "a.txt", "one\n\ntwo")) == [{"text": "one"}, {"text": ""}, {"text": "two"}]


def test_null_is_absent_and_other_values_are_written_as_json(tmp_path: Path) -> None:
    path = lay(tmp_path, "a.jsonl", '{"text": null, "ok": true, "n": 1.5}\n')
    assert fields(path) == [{"ok": "true", "n": "1.5"}]


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text,label\nx,1\n")))
    assert [row.place for row in read_rows("-", file_format="csv")] == ["-:2"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "text,label\nx,1\ny\n",
            r"a\.csv:3: 1 fields where there are 2 columns \(text, label\): mend the row, or set",
        ),
        (
            "a.csv",
            'text,label\n"x,1\ny,2\n',
            r"a\.csv:2: unexpected end of data: mend the row's quotes, or set task.literal_quotes=true",
        ),
        ("a.csv", 'text,label\nx,1\n"x"y,1\n', r"a\.csv:3: .*quotes"),
        ("a.csv", "text,text\nx,1\n", r"a\.csv:1: a name stands twice in the header \(text, text\): rename"),
        ("a.jsonl", '{"text": "a\\ud800"}\n', r"a\.jsonl:1: half of a surrogate pair at character 1 of 'text': mend"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl:2: not valid JSON \(.* at column \d+\): mend the line"),
        ("a.jsonl", '["x"]\n', r"a\.jsonl:1: list where an object {…} should be"),
        ("a.parquet", "x", r"a\.parquet cannot be read: give a file in one of csv, tsv, jsonl, txt"),
        ("a", "x", r"a cannot be read: give a file in one of csv, tsv, jsonl, txt"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fields(lay(tmp_path, name, text))


def test_literal_rows_are_counted_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.tsv:2: 3 fields where there are 2 columns \(text, label\): mend the row$"):
        fields(lay(tmp_path, "a.tsv", "text\tlabel\nx\ty\t1\n"), literal_quotes=True)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file at .*none\.csv: check the name, or the folder you are in"):
        fields(str(tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder: name the file in it"):
        fields(str(tmp_path / "folder.csv"))
    with pytest.raises(UserError, match=r"not UTF-8 text \(.* at byte \d+\): convert"):
        fields(lay(tmp_path, "a.csv", "text\ncafé\n", "latin-1"))
    (tmp_path / "a.csv.gz").write_bytes(b"text,label\n")
    with pytest.raises(UserError, match=r"not a whole gzip file .*: fetch it again"):
        fields(str(tmp_path / "a.csv.gz"))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text,label\nx,1\n" * 1000)[:-20])
    with pytest.raises(UserError, match=r"not a whole gzip file .*: fetch it again"):
        fields(str(tmp_path / "b.csv.gz"))


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(UserError, match=r"a.csv:2: there is no column 'review': the columns are text, label"):
        Row({"text": "x", "label": "1"}, "a.csv:2").get("review")


def test_a_forced_format_wins_and_must_exist() -> None:
    assert format_of("-", "jsonl") == "jsonl"
    with pytest.raises(UserError, match="format 'xml' cannot be read"):
        format_of("a.csv", "xml")


def test_hub_rows_name_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    table = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [1, 0, -1]}, features=kinds)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    assert [row.fields["label"] for row in read_hub("some/set", None, "train")] == ["good", "bad", "-1"]


def test_a_hub_that_gives_nothing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"gave no some/set/part \(train\): Couldn't reach the Hub; check the network"):
        list(read_hub("some/set", "part", "train"))
