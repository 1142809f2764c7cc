"""Settings of a run as it was begun, in a YAML, and in what others differ from them."""

from pathlib import Path
from typing import Any

import yaml

from foundation.core.errors import UserError

# The value of a setting that is not there.
ABSENT = object()


def to_yaml(config: dict[str, Any]) -> str:
    """In the order given."""
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text


def read_config(path: Path) -> dict[str, Any]:
    """What to_yaml wrote. Raises UserError where the file is damaged."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())  # several lines, with a drawing of the place
        raise UserError(f"{path} is not valid YAML ({where}): restore what the run wrote, or start a new run") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no settings: restore what the run wrote, or start a new run")
    return config


def shown(value: Any) -> str:
    """A value as a user reads it."""
    return "absent" if value is ABSENT else str(value)


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of the settings that differ, by dotted name."""
    was, now = leaves(old), leaves(new)
    pairs = {key: (was.get(key, ABSENT), now.get(key, ABSENT)) for key in was | now}
    # repr: nan equals itself there, and True is not 1.
    return {key: pair for key, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}


def leaves(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inner = leaves(value, f"{above}{key}.") if isinstance(value, dict) else {}
        found.update(inner or {f"{above}{key}": value})
    return found


def is_within(key: str, names: frozenset[str]) -> bool:
    """Whether a setting is one of these, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
