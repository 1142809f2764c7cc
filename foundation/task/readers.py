"""Rows of a CSV, TSV, JSONL or text file, plain or gzipped, or of the hub, each with the place a complaint can name."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from foundation.core.errors import UserError

FORMATS = ("csv", "tsv", "jsonl", "txt")
# A document in one field may be long: Python's own limit is 128 KiB.
_LONGEST_FIELD = 1 << 30
_QUOTES_HINT = "set task.literal_quotes=true if quotation marks are ordinary characters"


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row by column, and where it stands: "file:line"."""

    fields: dict[str, str]
    place: str

    def get(self, column: str) -> str:
        """The field of this column; a column that is not there raises UserError with those that are."""
        if column not in self.fields:
            there = ", ".join(self.fields) or "(none)"
            raise UserError(f"{self.place}: there is no column {column!r}: the columns are {there}")
        return self.fields[column]


def format_of(path: str, forced: str | None = None) -> str:
    """One of FORMATS: as forced, else from the file's extension, before .gz if it is gzipped."""
    suffixes = [suffix.lstrip(".").lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    found = forced or (suffixes[-1] if suffixes else "")
    if found not in FORMATS:
        name = f"format {found!r}" if forced else path
        raise UserError(f"{name} cannot be read: give a file in one of {', '.join(FORMATS)}, named by its extension")
    return found


@contextmanager
def open_text(path: str, newline: str = "") -> Iterator[TextIO]:
    """Open UTF-8 text, with or without a byte-order mark, gzipped or not; "-" is standard input.

    What cannot be read raises UserError, also when that shows only later, while reading.
    """
    try:
        if path == "-":
            yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=newline)
            return
        opened = gzip.open if path.lower().endswith(".gz") else open
        with cast(TextIO, opened(path, "rt", encoding="utf-8-sig", newline=newline)) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"no file at {path}: check the name, or the folder you are in ({Path.cwd()})") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the file in it") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it to UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): fetch it again") from None


def read_rows(
    path: str,
    *,
    file_format: str | None = None,
    columns: Sequence[str] = (),
    has_header: bool = True,
    literal_quotes: bool = False,
) -> Iterator[Row]:
    """The rows of a file ("-": standard input) in its own order; blank lines are passed over, except in plain text.

    Args:
        file_format: one of FORMATS; None: by the extension. txt has one column, "text", a line a row.
        columns: names of the columns of a CSV or TSV file, instead of its header's; needed where has_header is False.
        literal_quotes: split on the delimiter and take quotation marks as they are, as GLUE's files must be read.
    """
    kind = format_of(path, file_format)
    # Only "\n" ends a line, but for quoted files, where csv decides: a stray "\r" would cut a sentence in two.
    by_line = literal_quotes or kind in ("jsonl", "txt")
    with open_text(path, newline="\n" if by_line else "") as file:
        if kind == "txt":
            for number, line in enumerate(file, start=1):
                yield Row({"text": line.rstrip("\r\n")}, f"{path}:{number}")
        elif kind == "jsonl":
            yield from _objects(file, path)
        else:
            delimiter = "\t" if kind == "tsv" else ","
            split = _split_literally(file, delimiter) if literal_quotes else _split_quoted(file, delimiter, path)
            hint = "" if literal_quotes else f", or {_QUOTES_HINT}"
            yield from _named(split, list(columns), has_header, path, hint)


def _split_literally(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file, start=1):
        if line := line.rstrip("\r\n"):
            yield number, line.split(delimiter)


def _split_quoted(file: TextIO, delimiter: str, path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    first_line = 1
    try:
        for fields in reader:
            if fields:
                yield first_line, fields
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{first_line}: {error}: mend the row's quotes, or {_QUOTES_HINT}") from None


def _named(
    rows: Iterator[tuple[int, list[str]]], header: list[str], has_header: bool, path: str, hint: str
) -> Iterator[Row]:
    is_header = has_header
    for line, fields in rows:
        header = header or fields
        if len(fields) != len(header):
            raise UserError(
                f"{path}:{line}: {len(fields)} fields where there are {len(header)} columns ({', '.join(header)}): "
                f"mend the row{hint}"
            )
        if not is_header:
            yield Row(dict(zip(header, fields, strict=True)), f"{path}:{line}")
        elif len(set(header)) < len(header):
            raise UserError(f"{path}:{line}: a name stands twice in the header ({', '.join(header)}): rename a column")
        is_header = False


def _objects(lines: Iterable[str], path: str) -> Iterator[Row]:
    """One object a line. Numbers, true and false become the text that JSON has for them; null is as good as absent."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: not valid JSON ({error.msg} at column {error.colno}): mend the line") from None
        if not isinstance(content, dict):
            raise UserError(f"{place}: {type(content).__name__} where an object {{…}} should be: mend the line")
        present = {key: value for key, value in content.items() if value is not None}
        yield Row(
            {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in present.items()}, place
        )


def read_hub(name: str, config: str | None, split: str) -> Iterator[Row]:
    """The rows of one split of a data set on the Hugging Face hub; classes are given by their names, not numbers."""
    import datasets

    try:
        table = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # no network, no such data set, no such split: a dozen unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the Hugging Face hub gave no {name}{f'/{config}' if config else ''} ({split}): {reason}; "
            f"check the network and the name, or lay the files where the task looks for them"
        ) from None
    names = {key: kind.names for key, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, content in enumerate(table):
        fields = {
            # -1 is the hub's way to withhold a label: it stays -1, which is no label.
            key: names[key][value] if key in names and value >= 0 else str(value)
            for key, value in content.items()
            if value is not None
        }
        yield Row(fields, f"{name}:{split}:{number}")
