"""Sentences of tagged words: what is read, what is passed over, and which line is named."""

import gzip
import json
from pathlib import Path

import pytest

from foundation.core.errors import UserError
from foundation.task.readers import read_rows
from foundation.task.row import Row

CONLLU = """# sent_id = one
# text = Don't go
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
2.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_

1\tHome\thome\tNOUN\tNN\t_\t0\troot\t_\t_
"""


def read(folder: Path, name: str, content: str, **how: object) -> list[Row]:
    path = folder / name
    path.write_text(content)
    return list(read_rows(str(path), **how))


def test_conllu_gives_words_and_passes_over_what_is_none(tmp_path: Path) -> None:
    first, second = read(tmp_path, "a.conllu", CONLLU)
    assert first.get_list("FORM") == ["Do", "n't", "go"]
    assert first.get_list("UPOS") == ["AUX", "PART", "VERB"]
    assert first.get_list("LINE") == ["4", "5", "7"]
    assert first.place == f"{tmp_path}/a.conllu:4"
    assert second.get_list("XPOS") == ["NN"]


def test_conllu_may_be_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu.gz"
    path.write_bytes(gzip.compress(CONLLU.encode()))
    assert [row.get_list("LEMMA") for row in read_rows(str(path))] == [["do", "not", "go"], ["home"]]


COLUMNS = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\n-DOCSTART- -X- -X- O\n\nPeter NNP B-NP B-PER\n"
)


@pytest.mark.parametrize("tabs", [False, True])
def test_columns_are_divided_by_tabs_or_spaces_and_document_marks_are_no_words(tmp_path: Path, tabs: bool) -> None:
    rows = read(tmp_path, "a.conll", COLUMNS.replace(" ", "\t") if tabs else COLUMNS)
    assert [row.get_list("word") for row in rows] == [["EU", "rejects"], ["Peter"]]
    assert [row.get_list("tag") for row in rows] == [["B-ORG", "O"], ["B-PER"]]
    assert rows[0].get_list("column2") == ["NNP", "VBZ"]
    assert rows[1].place.endswith("a.conll:9")


def test_columns_may_have_names_and_any_extension(tmp_path: Path) -> None:
    rows = read(tmp_path, "train.txt", COLUMNS, file_format="conll", columns=["w", "pos", "chunk", "ner"])
    assert rows[0].get_list("chunk") == ["B-NP", "B-VP"]


def test_words_alone_can_be_read_to_be_answered(tmp_path: Path) -> None:
    assert read(tmp_path, "a.conll", "EU\nrejects\n")[0].get_list("word") == ["EU", "rejects"]


def test_tabs_at_the_end_of_a_line_are_no_fields(tmp_path: Path) -> None:
    row = read(tmp_path, "a.conll", "EU\tB-ORG\t\nis\tO\nold\tO\t\t\n")[0]
    assert (row.get_list("word"), row.get_list("tag")) == (["EU", "is", "old"], ["B-ORG", "O", "O"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.conllu", CONLLU.replace("\t0\troot\t_\t_\n\n", "\n\n"), r"a.conllu:7: 6 fields where CoNLL-U has 10"),
        ("a.conllu", CONLLU.replace("\n\n1\tHome", "\n1\tHome"), r"a.conllu:8: word '1' stands where word 4 should be"),
        (
            "a.conll",
            "EU B-ORG\nrejects\n",
            r"a.conll:2: 1 fields where 2 should be \(word, tag\): give every word its tag",
        ),
        ("a.conll", "EU B-ORG\n. O O\n", r"a.conll:2: 3 fields where 2 should be"),
        ("a.conll", "EU\tB-ORG\nx\t \n", r"a.conll:2: 1 fields where 2 should be"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, name, content)


SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Water",
            "paragraphs": [
                {
                    "context": "Water boils at 100 °C.",
                    "qas": [
                        {"id": "q1", "question": "When?", "answers": [{"text": "100 °C", "answer_start": 15}]},
                        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_squad_gives_a_row_a_question_with_its_line(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.json", json.dumps(SQUAD, indent=1))
    assert [(row.get("id"), row.get("question"), row.get("title")) for row in rows] == [
        ("q1", "When?", "Water"),
        ("q2", "Why?", "Water"),
    ]
    assert json.loads(rows[0].get("answers")) == {"text": ["100 °C"], "answer_start": [15]}
    lines = (tmp_path / "a.json").read_text().splitlines()
    for row in rows:
        assert f'"id": "{row.get("id")}"' in lines[int(row.place.rpartition(":")[2]) - 1]


def test_answers_that_are_null_are_not_there(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.json", json.dumps(SQUAD).replace('"answers": []', '"answers": null'))
    assert ["answers" in row.fields for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"data": [\n{]}', r"a.json:2: not valid JSON"),
        ("[1]", r"a.json:1: not a file in the form of SQuAD"),
        ('{"data": null}', r"a.json:1: not a file in the form of SQuAD"),
        ('{"data": [{"paragraphs": null}]}', r"a.json:1: .* 'paragraphs' is a NoneType where a list is needed"),
        (
            json.dumps(SQUAD).replace('"answers": []', '"answers": 5'),
            r"a.json:1: .* 'answers' is a int where a list is",
        ),
        (json.dumps(SQUAD).replace("Water boils", "Water \\ud800"), r"a.json:1: half of a surrogate pair .* 'context'"),
        ('{"data": [{"title": "x"}]}', r"a.json:1: .* has only title where 'paragraphs' is needed"),
        (json.dumps(SQUAD, indent=1).replace('"answer_start"', '"start"'), r"a.json:11: .*'answer_start' is needed"),
        ('{"data": [{"paragraphs": [{"context": "x", "qas": ["y"]}]}]}', r"a.json:1: .* is a str where 'id' is needed"),
    ],
)
def test_what_is_not_in_the_form_of_squad_is_named(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, "a.json", content)
