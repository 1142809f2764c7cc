"""Questions of a file in the JSON of SQuAD 1.1 (Rajpurkar et al. 2016) or 2.0 (Rajpurkar et al. 2018). A row is a question.

Fields are those of the hub's copies: id, title, context, question, and answers: {"text": […], "answer_start": […]} as JSON.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from foundation.core.errors import UserError
from foundation.core.json_lines import check_encodable
from foundation.task.row import Row, as_text


def squad_rows(file: TextIO, path: str) -> Iterator[Row]:
    """The questions in their order. Raises UserError, with the line, for what is not JSON or not of this form."""
    content = file.read()
    try:
        articles = json.loads(content)["data"]
        if not isinstance(articles, list):
            raise TypeError
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno}): mend it there"
        ) from None
    except (KeyError, TypeError):
        raise UserError(
            f'{path}:1: not a file in the form of SQuAD: it should be an object with a list "data"'
        ) from None
    lines = _Lines(content)
    for article in articles:
        for paragraph in _members(article, "paragraphs", path, lines.line):
            context = str(_member(paragraph, "context", path, lines.line))
            for question in _members(paragraph, "qas", path, lines.line):
                name = as_text(_member(question, "id", path, lines.line))
                line = lines.of(name)
                fields = {
                    "id": name,
                    "title": str(article.get("title", "")),
                    "context": context,
                    "question": str(_member(question, "question", path, line)),
                }
                # A file to be answered has no answers; whoever needs them asks for the column.
                if question.get("answers") is not None:
                    fields["answers"] = _answers(_members(question, "answers", path, line), path, line)
                for key, value in fields.items():
                    check_encodable(value, key, f"{path}:{line}")
                yield Row(fields, f"{path}:{line}")


class _Lines:
    """Line numbers of ids, which come in the order of the text."""

    def __init__(self, content: str) -> None:
        self.content, self.at, self.line = content, 0, 1

    def of(self, name: str) -> int:
        """Of this id, looked for after the one before."""
        found = self.content.find(json.dumps(name), self.at)
        if found < 0:
            found = self.content.find(json.dumps(name, ensure_ascii=False), self.at)
        if found >= 0:
            self.line += self.content.count("\n", self.at, found)
            self.at = found
        return self.line


def _answers(answers: list[Any], path: str, line: int) -> str:
    texts = [str(_member(answer, "text", path, line)) for answer in answers]
    starts = [_member(answer, "answer_start", path, line) for answer in answers]
    return as_text({"text": texts, "answer_start": starts})


def _member(owner: Any, name: str, path: str, line: int) -> Any:
    if not isinstance(owner, dict) or name not in owner:
        has = f"has only {', '.join(map(str, owner))}" if isinstance(owner, dict) else f"is a {type(owner).__name__}"
        raise UserError(f"{path}:{line}: here or below, something {has} where {name!r} is needed: see SQuAD's form")
    return owner[name]


def _members(owner: Any, name: str, path: str, line: int) -> list[Any]:
    found = _member(owner, name, path, line)
    if not isinstance(found, list):
        kind = type(found).__name__
        raise UserError(f"{path}:{line}: here or below, {name!r} is a {kind} where a list is needed: see SQuAD's form")
    return found
