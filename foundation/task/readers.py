"""Rows of a file in any of the forms we read, plain or gzipped, or of the hub, each with the place a complaint can name."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from foundation.core.errors import UserError
from foundation.core.json_lines import check_encodable, json_objects
from foundation.task.config import FileFormat
from foundation.task.conll import conll_rows, conllu_rows
from foundation.task.row import Row, as_text, open_text
from foundation.task.squad import squad_rows

FORMATS = tuple(kind.value for kind in FileFormat)
# Extensions that do not name their format.
_EXTENSIONS = {"json": "squad", "bio": "conll", "iob": "conll", "iob2": "conll"}
# A document in one field may be long: Python's own limit is 128 KiB.
_LONGEST_FIELD = 1 << 30
_QUOTES_HINT = "set task.literal_quotes=true if quotation marks are ordinary characters"


def format_of(path: str, forced: str | None = None) -> str:
    """One of FORMATS: as forced, else from the file's extension, before .gz if it is gzipped."""
    suffixes = [suffix.lstrip(".").lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    last = suffixes[-1] if suffixes else ""
    found = forced or _EXTENSIONS.get(last, last)
    if found not in FORMATS:
        name = f"format {found!r}" if forced else path
        raise UserError(f"{name} cannot be read: give a file in one of {', '.join(FORMATS)}, named by its extension")
    return found


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
        columns: names of the columns of a CSV or TSV file, instead of its header's, needed where has_header is False; or of
            a CoNLL file, which has no header.
        literal_quotes: split on the delimiter and take quotation marks as they are, as GLUE's files must be read.
    """
    kind = FileFormat(format_of(path, file_format))
    # Only "\n" ends a line, but for quoted files, where csv decides: a stray "\r" would cut a sentence in two.
    is_table = kind in (FileFormat.csv, FileFormat.tsv)
    with open_text(path, newline="\n" if literal_quotes or not is_table else "") as file:
        match kind:
            case FileFormat.txt:
                for number, line in enumerate(file, start=1):
                    yield Row({"text": line.rstrip("\r\n")}, f"{path}:{number}")
            case FileFormat.jsonl:
                yield from _objects(file, path)
            case FileFormat.conllu:
                yield from conllu_rows(file, path)
            case FileFormat.conll:
                yield from conll_rows(file, path, columns)
            case FileFormat.squad:
                yield from squad_rows(file, path)
            case FileFormat.csv | FileFormat.tsv:
                delimiter = "\t" if kind is FileFormat.tsv else ","
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
    for place, content in json_objects(lines, path):
        row = Row({key: as_text(value) for key, value in content.items() if value is not None}, place)
        for key, value in row.fields.items():
            check_encodable(value, key, place)
        yield row


def read_hub(name: str, config: str | None, split: str, revision: str | None = None) -> Iterator[Row]:
    """The rows of one split of a data set on the Hugging Face hub; classes are given by their names, not numbers."""
    import datasets

    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # no network, no such data set, no such split: a dozen unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the Hugging Face hub gave no {name}{f'/{config}' if config else ''} ({split}): {reason}; "
            f"check the network and the name, or lay the files where the task looks for them"
        ) from None
    names = {key: _class_names(kind) for key, kind in table.features.items()}
    for number, content in enumerate(table):
        fields = {key: _hub_field(value, names[key]) for key, value in content.items() if value is not None}
        yield Row(fields, f"{name}:{split}:{number}")


def _class_names(kind: Any) -> list[str]:
    """Of a column of classes, or of lists of classes; none for any other."""
    import datasets

    inner = getattr(kind, "feature", kind)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else []


def _hub_field(value: Any, names: list[str]) -> str:
    """As the same data would stand in a file. -1 is the hub's way to withhold a label: it stays -1, which is no label."""
    if isinstance(value, list):
        return as_text([names[item] if names else item for item in value])
    if isinstance(value, dict):
        return as_text(value)
    return names[value] if names and value >= 0 else str(value)
