"""Train a tokenizer. The same texts and settings give the same tokenizer.json, byte for byte."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from foundation.core.errors import UserError
from foundation.data.config import TokenizerConfig, TokenizerKind
from foundation.data.tokenizer import SPECIAL_TOKENS, Tokenizer, row_template

_SPECIALS = list(SPECIAL_TOKENS.values())
_CONTINUES = "##"
# WordPiece spends up to two entries on each character it can spell. Unlimited, the characters of 10M words of Wikipedia
# take 2,500 of 8,192; with this limit they take 458, and 0.03 % of the tokens are [UNK].
_VOCAB_PER_CHARACTER = 32
_LEAST_CHARACTERS = 100
# An ideograph is a word of its own: it takes one entry and nothing is made of it, so beyond that limit there are more of them,
# until so little of the text is left out (SentencePiece's advice for rich scripts, Kudo & Richardson 2018: 99.95 % covered).
_LEFT_OUT = 5e-4


def train_tokenizer(texts: Iterable[str], cfg: TokenizerConfig) -> Tokenizer:
    """Train on `texts`, which is read twice: a list or another thing that starts anew each time, not a generator."""
    assert iter(texts) is not texts, "texts can be read once only"
    backend = _trained(texts, cfg)
    size = backend.get_vocab_size()
    if size < cfg.vocab_size:
        # A smaller vocabulary may take fewer characters, and then be smaller still.
        while (fewer := _trained(texts, replace(cfg, vocab_size=size)).get_vocab_size()) < size:
            size = fewer
        raise UserError(
            f"tokenizer.vocab_size={cfg.vocab_size} is more than the training text supports, which is {size} "
            f"(with min_frequency={cfg.min_frequency}): set tokenizer.vocab_size={size} or give more text"
        )
    if size > cfg.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={cfg.vocab_size} is too small: the special tokens and the alphabet take {size}"
        )
    backend.post_processor = row_template(backend)
    return Tokenizer(backend)


def _trained(texts: Iterable[str], cfg: TokenizerConfig) -> tokenizers.Tokenizer:
    backend = _train_wordpiece(texts, cfg) if cfg.kind == TokenizerKind.wordpiece else _train_bpe(texts, cfg)
    backend.add_special_tokens(_SPECIALS)
    return backend


def _train_bpe(texts: Iterable[str], cfg: TokenizerConfig) -> tokenizers.Tokenizer:
    """Byte-level BPE: every string can be spelled, and without lowercasing it comes back exactly."""
    backend = tokenizers.Tokenizer(models.BPE())
    if cfg.lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=cfg.min_frequency,
        special_tokens=_SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _wordpiece(vocab: dict[str, int], cfg: TokenizerConfig) -> tokenizers.Tokenizer:
    model = models.WordPiece(vocab, unk_token=SPECIAL_TOKENS["unk"], continuing_subword_prefix=_CONTINUES)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=cfg.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=_CONTINUES)
    return backend


def _train_wordpiece(texts: Iterable[str], cfg: TokenizerConfig) -> tokenizers.Tokenizer:
    """WordPiece, made deterministic.

    The library numbers ##-characters in the order of a randomly seeded hash map and breaks ties between merges by those
    numbers, so two trainings differ in ids and even in entries (seen with tokenizers 0.23). Here the alphabet is chosen
    beforehand and handed over as if it were special tokens, which come first and in order; the vocabulary is then put
    into a fresh tokenizer that knows nothing of the trick. As each character is there in both forms where it can stand
    inside a word, every word over the alphabet can be spelled.
    """
    blank = _wordpiece({SPECIAL_TOKENS["unk"]: 0}, cfg)
    alphabet, inner = _alphabet(texts, blank, cfg)
    trainer = trainers.WordPieceTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=cfg.min_frequency,
        special_tokens=[*_SPECIALS, *alphabet, *(_CONTINUES + character for character in inner)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUES,
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer)
    return _wordpiece(blank.get_vocab(with_added_tokens=True), cfg)


def _alphabet(texts: Iterable[str], blank: tokenizers.Tokenizer, cfg: TokenizerConfig) -> tuple[list[str], list[str]]:
    """The most frequent characters after normalization, and those of them that can stand inside a word."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    for character, count in raw.items():
        # Between two letters, punctuation and ideographs become words of their own; all else stays inside.
        pieces = [
            piece for piece, _ in blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(f"a{character}a"))
        ]
        for normal in "".join(pieces)[1:-1]:
            counts[normal] += count
        if len(pieces) == 1:
            inner.update(pieces[0][1:-1])
    ranked, limit = counts.most_common(), max(_LEAST_CHARACTERS, cfg.vocab_size // _VOCAB_PER_CHARACTER)
    chosen = [character for character, _ in ranked[:limit]]
    room = cfg.vocab_size - len(_SPECIALS) - len(chosen) - len(inner & set(chosen))
    alone = [(character, count) for character, count in ranked[limit:] if character not in inner]
    left_out, bearable = sum(count for _, count in alone), _LEFT_OUT * counts.total()
    for character, count in alone[: max(room, 0)]:
        if left_out <= bearable or count < cfg.min_frequency:
            break
        chosen.append(character)
        left_out -= count
    return sorted(chosen), sorted(inner & set(chosen))
