"""Figures in rows: what goes to the terminal, to CSV, to the report and to wandb, all from one table."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from foundation.science.inference import Estimate

Cell: TypeAlias = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """name: of its CSV file. note: what the reader must know to read it. Intervals are three columns: x, x low, x high."""

    name: str
    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)

    def as_csv(self) -> str:
        """With a header; numbers in full."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if value is None else value for value in row] for row in self.rows])
        return out.getvalue()

    def compact(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for people: an interval in one cell, numbers to three digits behind the point."""
        names = [name for name in self.columns if not name.endswith((" low", " high"))]
        place = {name: number for number, name in enumerate(self.columns)}

        def shown(name: str, row: list[Cell]) -> str:
            text = show(row[place[name]])
            if f"{name} low" not in place or text == "–":
                return text
            low, high = (row[place[f"{name} {end}"]] for end in ("low", "high"))
            return text if show(low) == "–" else f"{text} [{show(low)}, {show(high)}]"

        return names, [[shown(name, row) for name in names] for row in self.rows]

    def as_text(self) -> str:
        """For the terminal."""
        names, rows = self.compact()
        lines = [names, *rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(names))]
        body = [
            "  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([f"\n{self.title}", *body])


def show(value: Cell) -> str:
    """A number with as many digits as can be read, a dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def spread(estimate: Estimate | None) -> list[Cell]:
    """Value, low, high."""
    return [None, None, None] if estimate is None else [estimate.value, estimate.low, estimate.high]


def varied(*estimates: Estimate | None) -> Cell:
    """What the interval of the first of these that is there counts as a sample; None where there is none."""
    first = next((one for one in estimates if one is not None), None)
    return None if first is None else "foundations, items" if first.about_procedure else "items"


def with_ends(*names: str) -> list[str]:
    """Each name, and the columns of its interval."""
    return [column for name in names for column in (name, f"{name} low", f"{name} high")]


def ratio(above: float | None, below: float | None) -> float | None:
    """None where either is missing or nothing is divided by."""
    return above / below if above is not None and below else None


def plain(rows: Sequence[Sequence[Any]]) -> list[list[Cell]]:
    """Numbers of numpy's as Python's own."""
    return [[value.item() if hasattr(value, "item") else value for value in row] for row in rows]
