"""Dataclasses to plain JSON values and back."""

import dataclasses
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from foundation.core.errors import UserError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dataclasses and enums, nested as they may be, as dicts, lists and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], content: dict[str, Any], source: str) -> T:
    """A dataclass from what to_plain gave. Raises UserError, naming `source`, on a key too many or too few."""
    hints = get_type_hints(kind)
    unknown = content.keys() - hints.keys()
    required = {
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if unknown or (missing := required - content.keys()):
        raise UserError(
            f"{source} does not describe a {kind.__name__}: "
            + (f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}")
        )
    return kind(**{name: _restored(hints[name], value, f"{source}: {name}") for name, value in content.items()})


def _restored(hint: Any, value: Any, source: str) -> Any:
    if isinstance(hint, UnionType):  # settings have no other than X | None
        return None if value is None else _restored(get_args(hint)[0], value, source)
    if get_origin(hint) is list and isinstance(value, list):
        return [_restored(get_args(hint)[0], item, source) for item in value]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value, source)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise UserError(f"{source} is {value!r}: choose one of {[member.value for member in hint]}") from None
    return value
