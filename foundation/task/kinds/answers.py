"""How right an answer taken from a text is: the measures of SQuAD (Rajpurkar et al. 2016, 6.1; 2018, 4.2)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation and articles, words divided by one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(said: str, accepted: Sequence[str]) -> float:
    """1 if it is one of the accepted answers, after normalisation, else 0. No accepted answer: there is none, and "" says so."""
    return float(any(normalise(said) == normalise(text) for text in _wanted(accepted)))


def answer_f1(said: str, accepted: Sequence[str]) -> float:
    """F1 of its words against those of the accepted answer that it is nearest to; 0 or 1 where either has no words."""
    words = normalise(said).split()
    return max(_overlap(words, normalise(text).split()) for text in _wanted(accepted))


def _wanted(accepted: Sequence[str]) -> Sequence[str]:
    return [text for text in accepted if normalise(text)] or [""]


def _overlap(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    hits = (Counter(said) & Counter(gold)).total()
    return 2 * hits / (len(said) + len(gold))
