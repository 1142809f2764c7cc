"""Sentences of tagged words: CoNLL-U, and files with a word a line and its tags in columns. A row is a sentence.

Every column of a sentence becomes a field that holds a list, written as JSON; LINE holds the words' line numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from foundation.core.errors import UserError
from foundation.task.row import Row, as_text

LINE = "LINE"
# https://universaldependencies.org/format.html
CONLLU_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
# Names for a column file that nobody described: its first column and its last.
WORD, TAG = "word", "tag"
_DOCUMENT_MARK = "-DOCSTART-"


@dataclass(slots=True)
class _Sentence:
    """The lines of a sentence so far."""

    words: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, fields: list[str], line: int) -> None:
        self.words.append(fields)
        self.lines.append(line)

    def row(self, columns: Sequence[str], path: str) -> Row:
        by_column = zip(*self.words, strict=True)
        fields = {name: as_text(values) for name, values in zip(columns, by_column, strict=True)}
        return Row({**fields, LINE: as_text(self.lines)}, f"{path}:{self.lines[0]}")


def conllu_rows(lines: Iterable[str], path: str) -> Iterator[Row]:
    """Sentences of a CoNLL-U file by its ten columns; multi-word tokens (3-4) and empty nodes (5.1) are passed over."""
    sentence = _Sentence()
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if sentence.words:
                yield sentence.row(CONLLU_COLUMNS, path)
                sentence = _Sentence()
        elif not line.startswith("#"):
            fields = line.split("\t")
            if len(fields) != len(CONLLU_COLUMNS):
                raise UserError(
                    f"{path}:{number}: {len(fields)} fields where CoNLL-U has {len(CONLLU_COLUMNS)}, divided by tabs: "
                    "mend the line, or set task.format=conll for columns of another kind"
                )
            if "-" in fields[0] or "." in fields[0]:
                continue
            if fields[0] != str(len(sentence.words) + 1):
                raise UserError(
                    f"{path}:{number}: word {fields[0]!r} stands where word {len(sentence.words) + 1} should be: "
                    "mend the numbers, or put a blank line between sentences"
                )
            sentence.add(fields, number)
    if sentence.words:
        yield sentence.row(CONLLU_COLUMNS, path)


def conll_rows(lines: Iterable[str], path: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Sentences of a file with a word a line and a blank line between sentences; -DOCSTART- lines are passed over.

    columns: their names; none: `word` for the first, `tag` for the last, column2, column3, … between. Fields are divided
    by tabs where a line has one, else by white space; empty ones are none.
    """
    names = list(columns)
    sentence = _Sentence()
    for number, line in enumerate(lines, start=1):
        fields = [
            field for field in (line.rstrip("\r\n").split("\t") if "\t" in line else line.split()) if field.strip()
        ]
        if not fields or fields[0] == _DOCUMENT_MARK:
            if sentence.words:
                yield sentence.row(names, path)
                sentence = _Sentence()
            continue
        names = names or [WORD, *(f"column{n}" for n in range(2, len(fields))), TAG][: len(fields)]
        if len(fields) != len(names):
            raise UserError(
                f"{path}:{number}: {len(fields)} fields where {len(names)} should be ({', '.join(names)}): give every word "
                "its tag, and put a blank line between sentences"
            )
        sentence.add(fields, number)
    if sentence.words:
        yield sentence.row(names, path)
