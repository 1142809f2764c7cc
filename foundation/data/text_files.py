"""Texts from the user's own files: .txt, .jsonl, either with .gz, and .parquet. Every fault is told with its place."""

import glob
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from foundation.core.errors import UserError
from foundation.core.json_lines import check_encodable, json_objects

_GZIP_MAGIC = b"\x1f\x8b"
_ROWS_PER_READ = 1024
_EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")


def find_files(patterns: Iterable[str], setting: str = "data.files") -> list[Path]:
    """The files that paths and globs name, each once, in the order of the patterns and sorted within one."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise UserError(f"{path} is a folder: name its files, for example {setting}=['{path}/**/*.txt']")
        # An existing path is meant as it stands, even if it has a [ or * in its name.
        names = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
        matches = [Path(name).resolve() for name in names if Path(name).is_file()]
        if not matches:
            raise UserError(f"no file matches '{pattern}' in {setting} (looked from {Path.cwd()})")
        found.update(dict.fromkeys(matches))
    for path in found:
        if not path.name.endswith(_EXTENSIONS):
            raise UserError(f"{path} has an unknown extension: the readable ones are {', '.join(_EXTENSIONS)}")
    return list(found)


def file_texts(path: Path, text_column: str) -> Iterator[str]:
    """The documents of one file, by its extension."""
    if path.name.endswith(".parquet"):
        return _parquet_texts(path, text_column)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _jsonl_texts(path, text_column)
    return _plain_texts(path)


def missing_column(place: object, column: str, present: Iterable[str]) -> UserError:
    """The error for rows that lack the text column."""
    return UserError(f"{place} has no column '{column}': its columns are {', '.join(present)} (set data.text_column)")


def _decode(line: bytes, path: Path, offset: int) -> str:
    unit = "byte (of the decompressed text)" if path.name.endswith(".gz") else "byte"
    if (zero := line.find(b"\0")) >= 0:
        raise UserError(f"{path} is not text: it has a zero at {unit} {offset + zero} (a binary file, or UTF-16)")
    try:
        return line.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the byte order mark.
        mark = 3 if offset == 0 and line.startswith(b"\xef\xbb\xbf") else 0
        raise UserError(
            f"{path} is not UTF-8: {unit} {offset + mark + error.start} is 0x{error.object[error.start]:02x} "
            f"({error.reason}). Convert it, for example with:  iconv -f latin1 -t utf-8"
        ) from None


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, plain or gzip, without their ends."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    if path.name.endswith(".gz") and not zipped:
        raise UserError(f"{path} is not a gzip file, though its name says so")
    offset = 0
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            for line in file:
                yield _decode(line, path, offset).rstrip("\r\n")
                offset += len(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file: {error} (after {offset} bytes of text)") from None


def _plain_texts(path: Path) -> Iterator[str]:
    """Blank lines stand between documents; a single line end is kept inside."""
    lines: list[str] = []
    for line in _lines(path):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def text_of(row: dict[str, Any], column: str, place: object) -> str:
    """The text of one row; a missing value (null) counts as an empty document."""
    if column not in row:
        raise missing_column(place, column, row)
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{place}: column '{column}' holds {type(text).__name__}, not text")
    return text


def _jsonl_texts(path: Path, column: str) -> Iterator[str]:
    for place, row in json_objects(_lines(path), path):
        text = text_of(row, column, place)
        check_encodable(text, column, place)
        yield text


def _parquet_texts(path: Path, column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise missing_column(path, column, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_ROWS_PER_READ, columns=[column]):
                for row in batch.to_pylist():
                    yield text_of(row, column, path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from None
