"""What a case's turns say: medians, ratios round by round, shares of the product rate; for people and as JSON."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from foundation.benchmark.cases import PRODUCT_NAMES, Case
from foundation.benchmark.contender import Contender, Player
from foundation.core.plain import to_plain

FORMULA = (
    "operations a token = 6 × weights touched (layers: 4·D² + 2·D·F each, of which in the last one D² + 2·D·F at asked and first "
    "tokens only; the vocabulary: D² + D·V at asked tokens) + 12·L·D a layer for attention, L = mean row length of a token; the "
    "same count for everyone, so work on padding or on positions that nobody asks about is not credited"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One contender of a case. rate: median over rounds, units a second. ratio: how many times faster our first contender is."""

    name: str
    rate: float
    low: float
    high: float
    ratio: float
    product_share: float | None
    peak_bytes: int


def lines_of(case: Case, players: list[Player]) -> list[Line]:
    """Those that could run, in every round. Ratios are medians of the rounds' own: a slow minute hits both sides."""
    done = [player for player in players if not player.failure]
    first = [turn.rate for turn in done[0].turns]
    products = {player.contender.name: median(turn.rate for turn in player.turns) for player in done}
    lines = []
    for player in done:
        rates = [turn.rate for turn in player.turns]
        product = products.get(PRODUCT_NAMES.get(player.contender.product or "", ""))
        share = median(rates) * case.flops_per_unit / product if product and case.flops_per_unit else None
        lines.append(
            Line(
                player.contender.name,
                median(rates),
                min(rates),
                max(rates),
                median(ours / theirs for ours, theirs in zip(first, rates, strict=True)),
                share,
                max(turn.peak_bytes for turn in player.turns),
            )
        )
    return lines


def summary(case: Case, players: list[Player]) -> dict[str, Any]:
    """Everything about a case, every turn included."""
    lines = {line.name: line for line in lines_of(case, players)}
    peers = [player.contender for player in players if not player.contender.is_ours and not player.failure]
    best = _nearest([peer for peer in peers if not peer.is_changed], lines)
    changed = _nearest([peer for peer in peers if peer.is_changed], lines)
    default = next((peer for peer in peers if peer.is_default), None)
    return {
        "unit": case.unit,
        "notes": case.notes,
        "flops_per_unit": case.flops_per_unit,
        "best_peer": None if best is None else best.name,
        "times_best_peer": None if best is None else lines[best.name].ratio,
        "times_default_peer": None if default is None else lines[default.name].ratio,
        "best_changed_peer": None if changed is None else changed.name,
        "times_best_changed_peer": None if changed is None else lines[changed.name].ratio,
        "contenders": {
            player.contender.name: {
                **({} if player.failure else to_plain(lines[player.contender.name])),
                "failure": player.failure or None,
                "threads": player.threads,
                "warm_up_seconds": player.warm_up_seconds,
                "turns": to_plain(player.turns),
            }
            for player in players
        },
    }


def _nearest(peers: list[Contender], lines: dict[str, Line]) -> Contender | None:
    """The one that comes nearest to ours, by the ratio that is told of it."""
    return min(peers, key=lambda peer: lines[peer.name].ratio, default=None)


def table(name: str, found: dict[str, Any]) -> str:
    """A case for people."""
    in_seconds = found["unit"] == "s"
    head = "seconds" if in_seconds else f"{found['unit']}/s"
    lines = [f"\n{name}", *(f"  {note}" for note in found["notes"])]
    width = max(map(len, found["contenders"]))
    lines.append(
        f"  {'':<{width}}{head:>14} {'[lowest, highest]':>24} {'ours is':>9} {'of products':>12} {'peak GB':>8}"
    )
    for contender, row in found["contenders"].items():
        if row["failure"]:
            lines.append(f"  {contender:<{width}} could not run: {row['failure']}")
            continue
        rate, low, high = row["rate"], row["low"], row["high"]
        if in_seconds:
            shown, interval = f"{1 / rate:.2f}", f"[{1 / high:.2f}, {1 / low:.2f}]"
        elif "products" in contender:
            shown, interval = f"{rate / 1e9:,.0f} GFLOP/s", f"[{low / 1e9:,.0f}, {high / 1e9:,.0f}]"
        else:
            shown, interval = f"{rate:,.0f}", f"[{low:,.0f}, {high:,.0f}]"
        share = "" if row["product_share"] is None else f"{row['product_share']:.1%}"
        ratio = "" if "products" in contender else f"{row['ratio']:.2f}×"
        lines.append(
            f"  {contender:<{width}}{shown:>14} {interval:>24} {ratio:>9} {share:>12} {row['peak_bytes'] / 1e9:>8.2f}"
        )
    if found["best_peer"]:
        default = found["times_default_peer"]
        lines.append(
            f"  ours is {found['times_best_peer']:.2f}× the peer's best ({found['best_peer']})"
            + (f", {default:.2f}× its default" if default is not None else "")
        )
    if found["best_changed_peer"]:
        lines.append(f"  {found['times_best_changed_peer']:.2f}× its code changed ({found['best_changed_peer']})")
    return "\n".join(lines)
