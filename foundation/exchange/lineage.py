"""Where a model comes from and what came of it, read from the fingerprints in the run folders; names of files prove nothing.

corpus -> tokenizer -> foundation -> fine-tunes, as nodes and arrows, and as a Mermaid diagram.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.core.files import read_json
from foundation.core.run import RUN_FILE
from foundation.task.results import SCORES_FILE

_SHOWN = 12  # digits of a fingerprint in a diagram


@dataclass(frozen=True, slots=True)
class Node:
    """One thing with a content hash, its own. name: what it is, for people."""

    kind: str
    name: str
    fingerprint: str


@dataclass(slots=True)
class Lineage:
    """arrows: fingerprint of a parent -> fingerprint of a child. subject: the model that this is about.

    foundation: the `final` at the root of it, where that is still among the runs.
    """

    subject: str
    foundation: Path | None = None
    nodes: dict[str, Node] = field(default_factory=dict)
    arrows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, node: Node, *parents: str) -> None:
        """A node below its parents; one that is there already stays."""
        self.nodes.setdefault(node.fingerprint, node)
        self.arrows += [(p, node.fingerprint) for p in parents if p and (p, node.fingerprint) not in self.arrows]

    def mermaid(self) -> str:
        """A flow chart in Mermaid, the subject in a bold frame."""
        numbers = {fingerprint: f"n{number}" for number, fingerprint in enumerate(self.nodes)}
        lines = ["```mermaid", "graph LR"]
        for fingerprint, node in self.nodes.items():
            parts = [node.kind, node.name.replace('"', "'"), fingerprint[:_SHOWN]]
            lines.append(f'  {numbers[fingerprint]}["{"<br/>".join(part for part in parts if part)}"]')
        lines += [f"  {numbers[a]} --> {numbers[b]}" for a, b in self.arrows if a in numbers and b in numbers]
        lines += [f"  style {numbers[self.subject]} stroke-width:4px", "```"]
        return "\n".join(lines)


def trace(final: Path) -> Lineage:
    """Up from a `final` to its corpus, and from a foundation down to the fine-tunes that began with its very weights."""
    info = read_json(final / "config.json")
    lineage = Lineage(_own_hash(info))
    if "task" in info:
        _add_finetune(lineage, final, info)
    else:
        _add_foundation(lineage, final, info)
        for arm in arms_of(final, info["fingerprint"]):
            _add_arm(lineage, arm, info["fingerprint"])
    return lineage


def arms_of(final: Path, foundation: str) -> list[Path]:
    """The folders of finished fine-tunes beside a foundation that began with its very weights, unlike random ones."""
    arms = [file.parent for file in sorted(final.parent.glob(f"finetune/*/*/{SCORES_FILE}"))]
    return [arm for arm in arms if read_json(arm / RUN_FILE)["fingerprints"].get("start") == foundation]


def _own_hash(info: dict[str, Any]) -> str:
    """The encoder's fingerprint; where that is the parent's, as a probe's is, the hash of the model's own tensors."""
    return str(info["weights_hash"] if info["fingerprint"] == info.get("parent") else info["fingerprint"])


def _add_foundation(lineage: Lineage, final: Path, info: dict[str, Any]) -> None:
    """The foundation, below its corpus and tokenizer, or below the files that it was imported from."""
    lineage.foundation = final
    above = []
    if corpus := info.get("corpus"):
        lineage.add(Node("corpus", "", corpus))
        above.append(corpus)
    if imported := info.get("imported"):
        origin = next(iter(imported["weights"].values()))
        lineage.add(Node("imported", imported["architecture"], origin))
        above.append(origin)
    if tokenizer := info.get("tokenizer"):
        lineage.add(Node("tokenizer", "", tokenizer), *above)
        above.append(tokenizer)
    if began_with := info.get("init"):
        lineage.add(Node("foundation", info["init_name"], began_with))
        above.append(began_with)
    lineage.add(Node("foundation", str(info.get("name", "")), info["fingerprint"]), *above)


def _add_finetune(lineage: Lineage, final: Path, info: dict[str, Any]) -> None:
    """A fine-tune below the encoder that it began with, that one below its own parents."""
    parent = str(info.get("parent", ""))
    found = _find(parent, final) if parent else None
    if found is not None:
        above = read_json(found / "config.json")
        if "task" in above:
            _add_finetune(lineage, found, above)
        else:
            _add_foundation(lineage, found, above)
    elif parent:
        kind = "encoder that is not here" if info.get("foundation") == parent else "encoder before training"
        lineage.add(Node(kind, "", parent))
    lineage.add(Node("fine-tune", str(info.get("name", info["task"]["name"])), _own_hash(info)), parent)


def _find(fingerprint: str, final: Path) -> Path | None:
    """The `final` with this encoder, among the runs around: <home>/final and <home>/finetune/<task>/<arm>/<seed>/final."""
    if len(final.parents) < 5:
        return None
    home = final.parents[4]
    candidates = [home / "final", *sorted(home.glob("finetune/*/*/seed-*/final"))]
    files = [folder for folder in candidates if (folder / "config.json").is_file() and folder != final]
    return next(
        (folder for folder in files if read_json(folder / "config.json").get("fingerprint") == fingerprint), None
    )


def _add_arm(lineage: Lineage, arm: Path, foundation: str) -> None:
    """The seeds of an arm, one node: its run's, since tasks that were trained together have one encoder."""
    scores = read_json(arm / SCORES_FILE)
    name = f"{scores['task']} ({arm.name}): {scores['metric']} {spread(scores)}"
    lineage.add(Node("fine-tune", name, str(read_json(arm / RUN_FILE)["id"])), foundation)


def spread(scores: dict[str, Any]) -> str:
    """`0.812 ± 0.004, 3 seeds` of a scores.json."""
    n_seeds = len(scores["seeds"])
    deviation = "" if scores["std"] is None else f" ± {scores['std']:.3f}"
    return f"{scores['mean']:.3f}{deviation}, {n_seeds} seed{'s' if n_seeds > 1 else ''}"
