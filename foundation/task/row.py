"""A row of data, where it stands, and the opening of the file that holds it."""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from foundation.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row by column, and where it stands: "file:line". A list in a field is written as JSON."""

    fields: dict[str, str]
    place: str

    def get(self, column: str) -> str:
        """The field of this column; a column that is not there raises UserError with those that are."""
        if column not in self.fields:
            there = ", ".join(self.fields) or "(none)"
            raise UserError(f"{self.place}: there is no column {column!r}: the columns are {there}")
        return self.fields[column]

    def get_list(self, column: str) -> list[str] | None:
        """The field of this column if it is a list of texts or numbers written as JSON; else None."""
        written = self.get(column)
        if not written.lstrip().startswith("["):
            return None
        try:
            content = json.loads(written)
        except json.JSONDecodeError:
            return None
        return [item if isinstance(item, str) else as_text(item) for item in content]


def as_text(value: Any) -> str:
    """What a value of JSON is as a field."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): name another file") from None
