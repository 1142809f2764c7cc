"""How the report's figures look: one style, colours that every eye tells apart, SVG with text that stays text."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Okabe & Ito: told apart by every eye.
SHARED, CONTROL, DIFFICULTY, INDEPENDENCE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
COLOURS = (SHARED, CONTROL, DIFFICULTY, INDEPENDENCE, "#56B4E9", "#D55E00", "#000000", "#F0E442")
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and needs no room
    "svg.hashsalt": "foundation",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """name: of its file. caption: what is shown, and what to look at."""

    name: str
    title: str
    caption: str
    svg: str


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What `draw` puts on a figure of so many inches; no window, no global state, the same bytes every time."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    # Without the XML declaration, which may not stand inside HTML.
    return text[text.index("<svg") :]
