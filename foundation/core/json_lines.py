"""JSON Lines from a user's file: an object a line, with the place that a complaint can name."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from foundation.core.errors import UserError


def json_objects(lines: Iterable[str], path: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """("path:line", object) of every line that is not blank. Raises UserError where one is no object."""
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
        yield place, content


def check_encodable(text: str, key: str, place: str) -> None:
    r"""Raises UserError where an escape such as \ud800 has put half of a character into the text, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: half of a surrogate pair at character {error.start} of {key!r}: mend the escape"
        ) from None
