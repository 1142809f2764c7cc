"""From the cells' JSONs to the record: record.csv, record.md, and the time-to-quality figure."""

import csv
import io
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import Speedrun, trained_under
from matplotlib.figure import Figure

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_atomically

Result = dict[str, Any]
# Standard errors of the difference that a change has to pay, and seeds of either side that it takes to say so.
_ERRORS, _SEEDS = 2.0, 3
_COLUMNS = [
    "side", "stage", "variant", "over", "seeds", "failed", "loss", "sd", "other_loss", "nats_per_byte", "gain", "gain_se",
    "verdict", "to_target_s", "trained_s", "steps", "tokens_per_s", "cpu",
]  # fmt: skip


def seconds_to(target: float, curve: list[dict[str, float]], examination: str) -> float:
    """Training seconds at which the curve first crosses `target`, on the straight line between two examinations; inf: never.

    A curve that is below at its first point was there before: its seconds are an upper bound. nan: there is no target.
    """
    if math.isnan(target):
        return math.nan
    before: dict[str, float] | None = None
    for point in curve:
        loss = point[examination]
        if loss <= target:
            if before is None:
                return point["seconds"]
            share = (before[examination] - target) / (before[examination] - loss)
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return math.inf


@dataclass(frozen=True, slots=True)
class Group:
    """The seeds of one variant."""

    side: str
    stage: str
    variant: str
    over: str | None
    results: list[Result]
    examination: str

    @property
    def ended(self) -> list[Result]:
        """Those that did not fail, by seed."""
        return sorted((r for r in self.results if not r["failure"]), key=lambda r: int(r["seed"]))

    def losses(self, examination: str | None = None) -> list[float]:
        """Of the last examination, nats a target."""
        return [result["curve"][-1][examination or self.examination] for result in self.ended]

    def per_byte(self) -> list[float]:
        """Mean nats a masked token, times the held-out text's tokens, over its bytes: what vocabularies share."""
        return [
            loss * result["held_out"]["tokens"] / result["held_out"]["bytes"]
            for loss, result in zip(self.losses(), self.ended, strict=True)
        ]

    def cpus(self) -> list[str]:
        """Processors that it was run on: seconds of one are not those of another."""
        return sorted(
            {result["machine"]["cpu"].replace("(R)", "").removesuffix(" Processor") for result in self.results}
        )

    def tokenizers(self) -> set[str]:
        """Fingerprints."""
        return {result["tokenizer"] for result in self.results}


def groups(speedrun: Speedrun) -> dict[tuple[str, str, str], Group]:
    """All results under the rules as they are; also of variants that the YAML no longer names: what was run stays."""
    found: dict[tuple[str, str, str], Group] = {}
    for path in sorted((speedrun.results / "cells").rglob("*.json")):
        result = read_json(path)
        if result["rules"] != trained_under(speedrun.rules):
            raise UserError(
                f"{path} was run under other rules than the YAML has now: it cannot stand in one table with the rest"
            )
        key = (result["side"], result["stage"], result["variant"])
        group = found.setdefault(key, Group(*key, result["over"], [], speedrun.rules.examination))
        group.results.append(result)
    if not found:
        raise UserError(f"there is nothing below {speedrun.results / 'cells'} yet: run  run.py peer  and  run.py ours")
    return found


def gain(group: Group, parent: Group | None) -> tuple[float, float, str]:
    """What the change gains over its parent, its standard error, and the verdict by the rules."""
    if not group.ended:
        return math.nan, math.nan, "failed"
    if parent is None or not parent.ended:
        return math.nan, math.nan, "start" if group.over is None else "parent not run"
    if group.results[0]["settings"]["overrides"] == parent.results[0]["settings"]["overrides"]:
        return math.nan, math.nan, "the same again"
    one_vocabulary = group.tokenizers() == parent.tokenizers()
    new, old = ((g.losses() if one_vocabulary else g.per_byte()) for g in (group, parent))
    gained = statistics.fmean(old) - statistics.fmean(new)
    if min(len(new), len(old)) < _SEEDS:
        return gained, math.nan, "screened: better" if gained > 0 else "screened: no better"
    error = math.sqrt(statistics.variance(new) / len(new) + statistics.variance(old) / len(old))
    return gained, error, "kept" if gained > _ERRORS * error and len(group.ended) == len(group.results) else "not kept"


def row(group: Group, parent: Group | None, target: float) -> dict[str, Any]:
    """A line of the record. The gain is in nats a token, or nats a byte where the vocabulary is what changed."""
    ended, losses = group.ended, group.losses()
    other = "single" if group.examination == "pairs" else "pairs"
    gained, error, verdict = gain(group, parent) if group.side == "ours" else (math.nan, math.nan, "the peer")
    mean = statistics.fmean if ended else (lambda _: math.nan)
    last = [result["curve"][-1] for result in ended]
    comparable = (
        target if group.side == "peer" or parent is None or group.tokenizers() == parent.tokenizers() else math.nan
    )
    return {
        "side": group.side, "stage": group.stage, "variant": group.variant, "over": group.over or "",
        "seeds": len(ended), "failed": len(group.results) - len(ended),
        "loss": mean(losses), "sd": statistics.stdev(losses) if len(losses) > 1 else math.nan,
        "other_loss": mean(group.losses(other)), "nats_per_byte": mean(group.per_byte()),
        "gain": gained, "gain_se": error, "verdict": verdict,
        "to_target_s": mean([seconds_to(comparable, result["curve"], group.examination) for result in ended]),
        "trained_s": mean([point["seconds"] for point in last]), "steps": mean([point["step"] for point in last]),
        "tokens_per_s": mean([point["tokens"] / point["seconds"] for point in last]),
        "cpu": ", ".join(group.cpus()),
    }  # fmt: skip


def peer_at_length(found: dict[tuple[str, str, str], Group]) -> Group | None:
    """Of the peer's recipes that were run at length, the one that was given all seeds: the best of the first seed."""
    ran = [group for group in found.values() if (group.side, group.stage) == ("peer", "final") and group.ended]
    return max(ran, key=lambda group: (len(group.ended), -statistics.fmean(group.losses())), default=None)


def find_target(speedrun: Speedrun, found: dict[tuple[str, str, str], Group]) -> float:
    """The rules' target, or the mean of the peer's long runs; nan as long as there is none."""
    if speedrun.rules.target is not None:
        return speedrun.rules.target
    peer = peer_at_length(found)
    return statistics.fmean(peer.losses()) if peer else math.nan


def winner(found: dict[tuple[str, str, str], Group]) -> Group | None:
    """Of ours with enough seeds and the peer's vocabulary, the one of the lowest mean loss; no change that was not kept."""
    peer = peer_at_length(found)
    ready = [
        group
        for group in found.values()
        if group.side == "ours"
        and len(group.ended) >= _SEEDS
        and len(group.ended) == len(group.results)
        and gain(group, found.get(("ours", "run", group.over or "")))[2] != "not kept"
        and (peer is None or group.tokenizers() == peer.tokenizers())
    ]
    return min(ready, key=lambda group: statistics.fmean(group.losses()), default=None)


def report(speedrun: Speedrun) -> str:
    """Write the record and the figure beside the cells; returns the Markdown."""
    found = groups(speedrun)
    target = find_target(speedrun, found)
    # The YAML's order, then what it no longer names.
    order = {variant["name"]: number for number, variant in enumerate(speedrun.ours["variants"])}
    ranked = sorted(
        found.values(), key=lambda g: (g.side == "ours", order.get(g.variant, len(order)), g.stage, g.variant)
    )
    rows = [row(group, found.get(("ours", "run", group.over or "")), target) for group in ranked]
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _short(value, 5) for key, value in line.items()} for line in rows)
    _write(speedrun.results / "record.csv", out.getvalue())
    text = "\n\n".join(
        part for part in (_table(rows), _failures(ranked), _race(found, target, speedrun.rules.examination)) if part
    )
    _write(speedrun.results / "record.md", text + "\n")
    draw(found, target, speedrun)
    return text


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())


def _short(value: Any, digits: int) -> Any:
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return ""
    return "never" if math.isinf(value) else f"{value:.{digits}g}"


def _table(rows: list[dict[str, Any]]) -> str:
    names = [
        "variant",
        "over",
        "seeds",
        "failed",
        "held-out loss",
        "other examination",
        "nats/byte",
        "gain",
        "verdict",
        "s to target",
        "s",
        "tokens/s",
        "processor",
    ]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for line in rows:
        spread = "" if math.isnan(line["sd"]) else f" ± {line['sd']:.4f}"
        error = "" if math.isnan(line["gain_se"]) else f" ± {line['gain_se']:.4f}"
        cells = [
            f"{'peer: ' if line['side'] == 'peer' else ''}{line['variant']}", line["over"], line["seeds"], line["failed"],
            "" if math.isnan(line["loss"]) else f"{line['loss']:.4f}{spread}", _short(line["other_loss"], 5),
            _short(line["nats_per_byte"], 4), "" if math.isnan(line["gain"]) else f"{line['gain']:+.4f}{error}", line["verdict"],
            _short(line["to_target_s"], 4), _short(line["trained_s"], 4), _short(line["tokens_per_s"], 5),
            line["cpu"],
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _failures(ranked: list[Group]) -> str:
    lines = [
        f"- {group.side} {group.variant}, seed {result['seed']}: {result['failure']}"
        for group in ranked
        for result in group.results
        if result["failure"]
    ]
    return "\n".join(["Failures:", "", *lines]) if lines else ""


def _race(found: dict[tuple[str, str, str], Group], target: float, examination: str) -> str:
    """The ratio for every pair of seeds; a peer's seed that never gets there counts with all its seconds, a lower bound."""
    peer, best = peer_at_length(found), winner(found)
    if peer is None or best is None or math.isnan(target):
        return "Time to quality: not yet; it takes the peer's long runs and a variant of ours with 3 seeds."
    lowest = min(peer.losses(), default=math.nan)
    lines = [
        f"Time to quality: target {target:.4f} nats (examination: {examination}), ours is `{best.variant}`.", "",
        f"| ours, seed | s to target | s to the peer's best seed ({lowest:.4f}) | "
        + " | ".join(f"ratio to peer's seed {result['seed']}" for result in peer.ended) + " |",
        "|" + "---|" * (3 + len(peer.ended)),
    ]  # fmt: skip
    times_of_peer = [seconds_to(target, other["curve"], examination) for other in peer.ended]
    for result in best.ended:
        ours = seconds_to(target, result["curve"], examination)
        ratios = [
            _ratio(there, other["curve"][-1]["seconds"], ours)
            for other, there in zip(peer.ended, times_of_peer, strict=True)
        ]
        times = [_short(ours, 4), _short(seconds_to(lowest, result["curve"], examination), 4)]
        lines.append("| " + " | ".join([str(result["seed"]), *times, *ratios]) + " |")
    theirs = ", ".join(
        f"seed {result['seed']} {_short(there, 4)} of {result['curve'][-1]['seconds']:.0f} s"
        for result, there in zip(peer.ended, times_of_peer, strict=True)
    )
    return "\n".join([*lines, "", f"The peer's own seconds to the target: {theirs}."])


def _ratio(theirs: float, their_end: float, ours: float) -> str:
    if math.isinf(ours):
        return "ours never"
    return f"{theirs / ours:.2f}" if math.isfinite(theirs) else f"> {their_end / ours:.2f}"


def draw(found: dict[tuple[str, str, str], Group], target: float, speedrun: Speedrun) -> None:
    """time_to_quality.png and .svg: every seed a thin line, the target level."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    best = winner(found)
    for group, color, label in (
        (peer_at_length(found), "C1", "transformers, tuned"),
        (best, "C0", f"foundation, {best.variant}" if best else ""),
    ):
        for number, result in enumerate(group.ended if group else []):
            axes.plot(
                [point["seconds"] for point in result["curve"]],
                [point[speedrun.rules.examination] for point in result["curve"]],
                color=color, linewidth=0.9, marker=".", markersize=3, label=label if number == 0 else None,
            )  # fmt: skip
    if not math.isnan(target):
        axes.axhline(target, color="0.4", linewidth=0.9, linestyle="--", label=f"target {target:.3f}")
    if speedrun.rules.target is None and math.isnan(target) and best is None:
        axes.set_title("no seeds of either side yet", fontsize=9)
    else:
        axes.legend(frameon=False)
    axes.set_xscale("log")
    axes.set_xlabel(f"training seconds on {speedrun.rules.threads} cores")
    axes.set_ylabel("held-out MLM loss, nats")
    for ending in ("png", "svg"):
        with write_atomically(speedrun.results / f"time_to_quality.{ending}") as file:
            figure.savefig(file, format=ending, dpi=160)
