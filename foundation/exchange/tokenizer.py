"""The tokenizer as transformers reads it: tokenizer.json, tokenizer_config.json, special_tokens_map.json; and back."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json
from foundation.data.tokenizer import SPECIAL_TOKENS, Tokenizer, row_template


def write_tokenizer(folder: Path, tokenizer: Tokenizer, *, max_tokens: int, inputs: tuple[str, ...]) -> None:
    """Write the three files. max_tokens: a row's, special ones included. inputs: what the model takes."""
    path = folder / "tokenizer.json"
    tokenizer.save(path)
    backend = tokenizers.Tokenizer.from_file(str(path))
    # A tokenizer made elsewhere may lay out rows in another way, or not at all; the model knows this one.
    backend.post_processor = row_template(backend)
    backend.save(str(path))
    tokens = {f"{name}_token": text for name, text in SPECIAL_TOKENS.items()}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "model_input_names": list(inputs),
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings | tokens)
    write_json(folder / "special_tokens_map.json", tokens)


def read_tokenizer(folder: Path) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a stock folder, and what was renamed in it. Raises UserError where it has no such special tokens."""
    path = folder / "tokenizer.json"
    if not path.is_file() and (folder / "vocab.txt").is_file():
        return _from_vocabulary(folder), ["The tokenizer is made from vocab.txt, as BertTokenizer does."]
    if not path.is_file():
        raise UserError(f"{folder} has neither tokenizer.json nor vocab.txt: put its tokenizer there")
    content = read_json(path)
    names = _special_names(folder)
    own = {name: SPECIAL_TOKENS[name] for name in names}
    changed = {names[name]: own[name] for name in names if names[name] != own[name]}
    if changed:
        content = _renamed(content, list(names.values()), changed, str(path))
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path} is not a tokenizer.json of the tokenizers library: {error}") from None
    notes = [f"Special tokens have other names here: {', '.join(f'{a} is {b}' for a, b in changed.items())}."]
    return Tokenizer(backend, origin=str(path)), notes if changed else []


def _special_names(folder: Path) -> dict[str, str]:
    """Field of SpecialIds -> how the folder writes it, where it says so."""
    said: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / file).is_file():
            said |= {key: value for key, value in read_json(folder / file).items() if value is not None}
    found = {}
    for name in SPECIAL_TOKENS:
        token = said.get(f"{name}_token", SPECIAL_TOKENS[name])
        found[name] = token["content"] if isinstance(token, dict) else token
    return found


def _renamed(content: dict[str, Any], names: list[str], changed: dict[str, str], source: str) -> dict[str, Any]:
    """tokenizer.json with special tokens under our names. Raises UserError where one is missing, shared, or a name is taken."""
    vocab, added = content["model"]["vocab"], content.get("added_tokens") or []
    if not isinstance(vocab, dict):
        raise UserError(
            f"{source} is a {content['model']['type']} tokenizer: only WordPiece and byte-level BPE can be used"
        )
    known = set(vocab) | {token["content"] for token in added}
    if missing := [old for old in changed if old not in known]:
        raise UserError(
            f"{source} lacks the special tokens {', '.join(missing)} that its settings name: it is not whole"
        )
    if len(set(names)) < len(names):
        raise UserError(
            f"{source} uses one special token in two roles ({', '.join(names)}): each of the five needs its own"
        )
    if taken := [new for new in changed.values() if new in known]:
        raise UserError(f"{source} has other special tokens and {', '.join(taken)} besides: rename those entries")
    new = {**content, "post_processor": None, "added_tokens": [_retold(token, changed) for token in added]}
    new["model"] = {**content["model"], "vocab": {changed.get(text, text): number for text, number in vocab.items()}}
    if new["model"].get("unk_token") in changed:
        new["model"]["unk_token"] = changed[new["model"]["unk_token"]]
    return new


def _retold(token: dict[str, Any], changed: dict[str, str]) -> dict[str, Any]:
    return {**token, "content": changed.get(token["content"], token["content"])}


def _from_vocabulary(folder: Path) -> Tokenizer:
    """WordPiece over vocab.txt, one entry a line, normalized as tokenizer_config.json says."""
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocab = {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    lowercase = settings.get("do_lower_case", True)
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocab, unk_token=SPECIAL_TOKENS["unk"], max_input_chars_per_word=100)
    )
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    missing = [text for text in SPECIAL_TOKENS.values() if text not in vocab]
    if missing:
        raise UserError(f"{folder / 'vocab.txt'} lacks {', '.join(missing)}: it is not a BERT's vocabulary")
    backend.add_special_tokens(list(SPECIAL_TOKENS.values()))
    return Tokenizer(backend, origin=str(folder / "vocab.txt"))
