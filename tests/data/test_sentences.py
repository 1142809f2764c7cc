import random
import re
import time

import pytest

from foundation.data.sentences import _is_abbreviation, split_sentences

PIECES = [
    "Mr. Smith",
    "U.S.",
    "e.g.",
    "Hello",
    "hello",
    ".",
    "!",
    "?",
    "…",
    '"',
    "”",
    ")",
    "(",
    " ",
    "  ",
    "\n",
    "\t",
    "Ünder",
]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rained. We stayed in.", ["It rained.", " We stayed in."]),
        ('He said "Stop!" Then he left.', ['He said "Stop!"', " Then he left."]),
        ("(It rained.) We stayed.", ["(It rained.)", " We stayed."]),
        ("What?! Never… “No,” she said.", ["What?!", " Never…", " “No,” she said."]),
        ("One line\nanother line", ["One line", "\nanother line"]),
        ("A paragraph.\n\n  Another", ["A paragraph.", "\n\n  Another"]),
    ],
)
def test_a_sentence_ends_at_its_punctuation_and_at_a_line_end(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    "text",
    [
        "Mr. Smith met Dr. Who.",
        "The U.S. Army came.",
        "J. R. Smith came.",
        "A fruit, e.g. Apples.",
        "It cost 3.50 dollars.",
        "He asked why? and left.",
        "See fig. 4 and vol. 2 (cf. Smith).",
    ],
)
def test_abbreviations_numbers_and_small_letters_do_not_end_a_sentence(text):
    assert split_sentences(text) == [text]


def test_the_pronoun_I_is_not_an_initial():
    assert split_sentences("It is I. He came.") == ["It is I.", " He came."]


def by_the_rules(text):
    """The rules in the order in which one would tell them, without a thought for speed."""
    punctuation = r"""(?P<end>[.!?…]["'”’»)\]]*)(?P<gap>\s+)(?=["'“‘«(\[¿¡]*(?P<first>\w))"""
    line_end = r"(?<!\s)[^\S\n]*\n\s*(?=\S)"
    sentences, start = [], 0
    for match in re.finditer(f"{punctuation}|{line_end}", text):
        end = match.end("end") if match["end"] else match.start()
        if match["end"] and "\n" not in match["gap"]:
            word = text[max(start, match.start() - 12) : match.start()].split(" ")[-1]
            if match["first"].islower() or (match["end"] == "." and _is_abbreviation(word)):
                continue
        if end > start:
            sentences.append(text[start:end])
            start = end
    return [*sentences, text[start:]]


def test_sentences_are_those_of_the_rules_written_out():
    generator = random.Random(1)
    pieces = [
        *PIECES,
        "\r",
        "\x1c",
        "\x85",
        "\u2028",
        "\u00a0",
        "«",
        "[",
        "¿",
        "I",
        "J",
        "über",
        "1",
        "-",
        "approx",
        "\u0301",
    ]
    for _ in range(20_000):
        text = "".join(generator.choices(pieces, k=generator.randrange(16)))
        assert split_sentences(text) == by_the_rules(text)


def test_sentences_joined_are_the_text_and_none_is_blank():
    generator = random.Random(0)
    for _ in range(3000):
        text = "".join(generator.choices(PIECES, k=generator.randrange(1, 25)))
        sentences = split_sentences(text)
        assert "".join(sentences) == text
        assert not text.strip() or all(sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("piece", [" ", ". ", '"', "\n", ' \t"', '."', ". (", "Mr. "])
def test_time_grows_with_the_length_and_not_its_square(piece):
    start = time.perf_counter()
    split_sentences("." + piece * 200_000)  # some 10 ms; with a square, hours
    assert time.perf_counter() - start < 5
