"""Settings as their dataclasses declare them: dotted names, types, and how to say them to a user."""

import dataclasses
import difflib
from collections.abc import Iterator
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

# Of difflib's ratio, from 0 to 1: names less alike than this are no misspelling of one another.
_LIKE = 0.6
# A name of which the other is a whole word: less than the same name, or `lr` would be `layer_lr_decay` where that comes first.
_PART = 0.99
_BATCH = ("rows_per_step", "batch_rows", "batch_tokens")
# What transformers calls them, for whom has its names in mind.
_OUR_NAMES = {
    "learning_rate": ("lr",),
    "hidden_size": ("width",),
    "num_hidden_layers": ("layers",),
    "num_attention_heads": ("heads",),
    "intermediate_size": ("ffn_width",),
    "batch_size": _BATCH,
    "per_device_train_batch_size": _BATCH,
    "train_batch_size": _BATCH,
    "max_steps": ("steps",),
    "num_train_epochs": ("epochs",),
    "max_length": ("seq_len",),
    "max_seq_length": ("seq_len",),
    "max_position_embeddings": ("max_seq_len",),
    "mlm_probability": ("rate",),
    "warmup_ratio": ("warmup_share",),
    "max_grad_norm": ("clip_norm",),
    "output_dir": ("runs_dir",),
}


def settings_of(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every setting below a dataclass; where a setting has several kinds, of all of them."""
    for name, hint in get_type_hints(schema).items():
        yield f"{prefix}{name}", hint
        # The settings of a list's entries have no names of their own on a command line.
        for kind in [] if get_origin(hint) is list else [hint, *get_args(hint)]:
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                for choice in [kind, *kind.__subclasses__()]:
                    yield from settings_of(choice, f"{prefix}{name}.")


def free_dicts(schema: type) -> set[str]:
    """Settings whose own keys the user chooses."""
    return {name for name, hint in settings_of(schema) if get_origin(hint) is dict}


def unknown_setting(key: str, schema: type) -> str:
    """The sentence for a key that nobody knows. Its last part counts, and whether its room is right."""

    room, _, leaf = key.rpartition(".")
    wanted = _OUR_NAMES.get(leaf, (leaf,))
    names = [name for name, _ in settings_of(schema)]
    leaves = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]

    def likeness(name: str) -> tuple[float, float]:
        other_room, _, other_leaf = name.rpartition(".")
        if key.startswith(f"{name}."):
            return 2.0, 2.0
        alike = max(difflib.SequenceMatcher(None, asked, other_leaf).ratio() for asked in wanted)
        if not set(wanted).isdisjoint(other_leaf.split("_")):
            alike = max(alike, _PART)
        return alike + (0.5 if room and room == other_room else 0.0), alike

    nearest = max(leaves, key=likeness)
    if likeness(nearest)[1] > _LIKE:
        return f"unknown setting {key}; the nearest known one is {nearest}"
    if beside := [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == room != ""]:
        return f"unknown setting {key}; {room} has {', '.join(dict.fromkeys(beside))}"
    return f"unknown setting {key}; --help lists those that there are"


def wrong_value(key: str, given: str, hint: Any) -> str:
    """The sentence for a value that a setting of this type cannot take."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    allowed = " or ".join(_in_words(key, given, kind) for kind in kinds)
    is_several = "," in given and not any(get_origin(kind) in (list, dict) for kind in kinds)
    sweep = "; several values, a run each, are a sweep: add -m" if is_several else ""
    return f"{key}={given} does not fit: {key} takes {allowed}{' (or null)' if kinds != [hint] else ''}{sweep}"


def _in_words(key: str, given: str, kind: Any) -> str:
    if get_origin(kind) is list:
        (entry,) = get_args(kind)
        if dataclasses.is_dataclass(entry):
            names = [field.name for field in dataclasses.fields(entry)]
            return f"a list of entries with {', '.join(names)}, written as in  '{key}=[{{{names[0]}: VALUE}}]'"
        return f"a list, written as in  '{key}=[{given.strip('[]{}')}]'"
    if get_origin(kind) is dict:
        return f"names with values, written as in  '{key}={{name: value}}'"
    if dataclasses.is_dataclass(kind):
        return f"settings of its own, written as in  {key}.{dataclasses.fields(kind)[0].name}=VALUE"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    words = {bool: "true or false", int: "a whole number, as 100", float: "a number, as 0.5 or 1e-3"}
    return words.get(kind, f"a text, quoted if it has brackets or commas in it:  {key}=\"'TEXT'\"")
