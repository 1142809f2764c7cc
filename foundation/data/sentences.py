"""Cut text into sentences without losing a character."""

import re

# A gap that holds a newline ends a sentence whatever stands around it; any other gap needs end punctuation before it
# and something that can start a sentence behind it. The lookbehind keeps long runs of spaces linear: only their first
# is tried.
_GAP = re.compile(
    r"""
      (?P<end> [.!?…] ["'”’»)\]]* ) (?P<gap> \s+ ) (?= ["'“‘«(\[¿¡]* (?P<start> \w ) )
    | (?<!\s) [^\S\n]* \n \s* (?=\S)
    """,
    re.VERBOSE,
)
_ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "rev", "hon", "sr", "jr", "st", "gen", "col", "capt", "lt", "sgt", "maj"}
    | {"sen", "rep", "gov", "vs", "cf", "fig", "vol", "pp", "approx"}
)
_DOTTED = re.compile(r"(?:\w\.)+\w")  # U.S, e.g, a.m (the last dot is the one in question)
_LONGEST_ABBREVIATION = 12


def _is_abbreviated(text: str, start: int, dot: int) -> bool:
    """Whether the full stop at `dot` belongs to the word before it: Mr. Smith, U.S. Army, J. Smith."""
    bare = text[max(start, dot - _LONGEST_ABBREVIATION) : dot].rpartition(" ")[2].strip("\n\t\"'“‘«([")
    is_initial = len(bare) == 1 and bare.isupper() and bare != "I"
    return is_initial or bare.lower() in _ABBREVIATIONS or _DOTTED.fullmatch(bare) is not None


def _goes_on(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the sentence from `start` does not end at `match` after all."""
    if not match["end"] or "\n" in match["gap"]:
        return False
    return match["start"].islower() or (match["end"] == "." and _is_abbreviated(text, start, match.start()))


def split_sentences(text: str) -> list[str]:
    """Sentences of `text`; joined, they are `text` again.

    White space between two sentences goes to the second, so that byte-level BPE, whose tokens carry the space before a
    word, cuts the sentences exactly as it cuts the whole. No sentence is blank unless the whole text is. Rules for
    English; where they find no end, a line is a sentence.
    """
    sentences, start = [], 0
    for match in _GAP.finditer(text):
        end = match.end("end") if match["end"] else match.start()
        if end > start and not _goes_on(text, start, match):
            sentences.append(text[start:end])
            start = end
    sentences.append(text[start:])
    return sentences
