"""How long: steps, tokens, epochs, or a budget of time that is turned into steps once, before the run, and then forgotten."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from foundation.core.errors import UserError

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hours": 3600.0}
_WARM_UP_STEPS, _TIMED_STEPS = 2, 6


@dataclass(kw_only=True, slots=True)
class Duration:
    """Exactly one of: optimizer steps; tokens (special ones included); epochs, times that the corpus is seen; budget, as in 90s,
    10min, 1.5h.
    """

    steps: int | None = None
    tokens: float | None = None
    epochs: float | None = None
    budget: str | None = None

    def check(self) -> None:
        """Raise UserError unless exactly one is given, and it is positive."""
        names = ("steps", "tokens", "epochs", "budget")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if len(given) != 1:
            said = " and ".join(f"{name}={value}" for name, value in given.items()) or "nothing"
            raise UserError(
                f"say how long with exactly one of steps=, tokens=, epochs=, budget= (set the others to null); given: {said}"
            )
        if self.budget is None and min(given.values()) <= 0:
            raise UserError(f"{next(iter(given))}={next(iter(given.values()))} must be positive")
        if self.budget is not None:
            seconds(self.budget)


def seconds(text: str) -> float:
    """`90s`, `10min` or `1.5h` in seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise UserError(f"budget={text} is not a duration: write it like 90s, 10min or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


def seconds_per_step(step: Callable[[int], None], settle: Callable[[], None] = lambda: None) -> float:
    """Mean time of a step, after a warm-up; the caller throws the touched state away. settle: waits until all is done."""
    for number in range(_WARM_UP_STEPS):
        step(number)
    settle()
    start = time.perf_counter()
    for number in range(_WARM_UP_STEPS, _WARM_UP_STEPS + _TIMED_STEPS):
        step(number)
    settle()
    return (time.perf_counter() - start) / _TIMED_STEPS
