"""Evaluation from end to end on a toy: what it computes, keeps, takes up again, and refuses."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from pyarrow import parquet

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.evaluation.config import EvaluateConfig, EvaluationConfig, MinimalPairsConfig
from foundation.evaluation.session import evaluate
from foundation.evaluation.subject import find_corpus, load_subject
from foundation.objective.config import MaskUnit, SentenceTask
from foundation.train.config import Precision
from foundation.train.foundation import load_foundation
from tests.evaluation import toy
from tests.task.toy import lay_foundation as lay_other

PAIRS = [
    ("The cat runs.", "The cats runs.", "number"),
    ("The dogs run.", "The dog run.", "number"),
    ("The cat sees a dog.", "The dog sees a cat.", "order"),
    ("The old dog runs.", "The old dog runs.", "order"),
]


def ask(runs: Path, evaluation: EvaluationConfig) -> dict[str, Any]:
    cfg = toy.settings(runs, evaluation)
    cfg.check()
    return evaluate(cfg, to_plain(cfg))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    toy.lay_foundation(tmp_path / "runs")
    rows = [{"sentence_good": good, "sentence_bad": bad, "UID": kind} for good, bad, kind in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "runs"


def pairs_of(runs: Path, **changed: object) -> MinimalPairsConfig:
    return toy.pairs(files=[str(runs.parent / "pairs.jsonl")], **changed)


def test_held_out_scores_of_random_weights_are_those_of_guessing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ask(runs, toy.held_out())
    assert found["masked_nats"] == pytest.approx(math.log(290), abs=0.2)
    assert found["pairs"]["task"] == "nsp"
    assert found["pairs"]["low"] < 0.5 < found["pairs"]["high"]
    assert read_json(runs / "toy/evaluation/held_out/scores.json") == found
    printed = capsys.readouterr().out
    assert f"{found['masked_nats']:.3f} nats a token" in printed
    assert "NSP" in printed and "95 % interval" in printed


def test_bits_per_byte_is_the_loss_over_every_token_and_byte_of_the_text(runs: Path, tmp_path: Path) -> None:
    text = toy.text(30, seed=8)
    (tmp_path / "mine.txt").write_text(text)
    found = ask(runs, toy.held_out(files=[str(tmp_path / "mine.txt")]))
    documents = text.strip().split("\n\n")
    assert found["text"]["bytes"] == sum(len(document.encode()) for document in documents)
    assert found["text"]["words"] == len(text.split())
    nats = found["masked_nats"] * found["text"]["tokens"]
    assert found["masked_bits_per_byte"] == pytest.approx(nats / math.log(2) / found["text"]["bytes"])
    assert found["masked_nats_per_word"] == pytest.approx(nats / found["text"]["words"])


def test_whole_words_can_be_hidden_and_rows_limited(runs: Path) -> None:
    tokens = ask(runs, toy.held_out(rows=4, name="a"))
    words = ask(runs, toy.held_out(rows=4, name="b", unit=MaskUnit.whole_word))
    assert tokens["rows"] == words["rows"] == 4
    assert tokens["masked_tokens"] != words["masked_tokens"]


def test_a_foundation_without_a_sentence_task_takes_a_single_document(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path / "runs", SentenceTask.none)
    (tmp_path / "mine.txt").write_text(toy.text(1))
    found = ask(tmp_path / "runs", toy.held_out(files=[str(tmp_path / "mine.txt")]))
    assert "pairs" not in found


def test_pairs_are_scored_kept_and_summed_up(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(runs, pairs_of(runs))
    assert (found["pairs"], found["identical_dropped"]) == (3, 1)
    assert found["scorers"] == ["foundation", "3-gram", "unigram"]
    table = parquet.read_table(runs / "toy/evaluation/pairs/pairs").to_pydict()
    assert sorted(table["item"]) == ["pairs.jsonl:1", "pairs.jsonl:2", "pairs.jsonl:3"]
    right = {}
    for scorer in found["scorers"]:
        marks = [
            (kind, (good > bad) + (abs(good - bad) < 1e-6) / 2)
            for kind, good, bad in zip(
                table["paradigm"], table[f"good_nats {scorer}"], table[f"bad_nats {scorer}"], strict=True
            )
        ]
        of_kind = {name: [mark for kind, mark in marks if kind == name] for name in ("number", "order")}
        right[scorer] = sum(sum(m) / len(m) for m in of_kind.values()) / 2
        assert found["overall"][scorer]["sum"]["value"] == pytest.approx(right[scorer])
    difference = found["difference_of_sums"]["unigram"]["value"]
    assert difference == pytest.approx(right["foundation"] - right["unigram"])
    printed = capsys.readouterr().out
    assert "mean of paradigms" in printed and "foundation − 3-gram" in printed


def test_permuted_words_tie_for_unigrams(runs: Path) -> None:
    assert ask(runs, pairs_of(runs))["paradigms"]["order"]["unigram"]["sum"]["value"] == 0.5


def test_a_foundation_is_evaluated_without_dropout(runs: Path) -> None:
    objective = load_subject(load_foundation(runs / "toy/final"), torch.device("cpu"), Precision.fp32).objective
    assert not any(module.training for module in objective.modules())


def test_n_grams_are_counted_on_the_text_that_the_foundation_was_trained_on(runs: Path) -> None:
    ask(runs, pairs_of(runs))
    corpus = find_corpus(load_foundation(runs / "toy/final"), runs)
    assert corpus is not None
    specials, n_entries = corpus.tokenizer.specials, corpus.tokenizer.vocab_size
    counts = np.bincount(corpus.train.ids, minlength=n_entries) + 1.0
    counts[[specials.cls, specials.sep]] = 0
    table = parquet.read_table(runs / "toy/evaluation/pairs/pairs/number.parquet").to_pydict()
    for sentence, nats in zip(table["good"], table["good_nats unigram"], strict=True):
        ids = corpus.tokenizer.encode_batch([sentence])[0]
        assert nats == pytest.approx(np.log(counts[ids] / counts.sum()).sum())


def test_only_missing_paradigms_are_scored_again(runs: Path) -> None:
    first = ask(runs, pairs_of(runs))
    folder = runs / "toy/evaluation/pairs/pairs"
    kept = (folder / "number.parquet").stat().st_mtime_ns
    (folder / "order.parquet").unlink()
    assert ask(runs, pairs_of(runs)) == first
    assert (folder / "number.parquet").stat().st_mtime_ns == kept


def test_without_its_corpus_a_foundation_is_scored_without_baselines(runs: Path) -> None:
    (runs / "corpora").rename(runs / "elsewhere")
    assert ask(runs, pairs_of(runs))["scorers"] == ["foundation"]
    with pytest.raises(UserError, match=r"the corpus of .* is not in .*corpora any more: name a text"):
        ask(runs, toy.held_out())


def test_results_of_other_settings_or_texts_are_not_overwritten(runs: Path) -> None:
    ask(runs, pairs_of(runs))
    with pytest.raises(UserError, match=r"(?s)evaluation.max_pairs: None → 1.*under another evaluation.name=\."):
        ask(runs, pairs_of(runs, max_pairs=1))
    file = runs.parent / "pairs.jsonl"
    file.write_text(file.read_text().replace("old", "cat"))
    with pytest.raises(UserError, match=r"texts: "):
        ask(runs, pairs_of(runs))


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "the cat " * 30,
            r"pairs.jsonl:1: a sentence of \d+ tokens, where this foundation takes 1 to 30: take the pair out",
        )
    ],
)
def test_a_sentence_that_does_not_fit_is_named(runs: Path, sentence: str, words: str) -> None:
    row = {"sentence_good": "The cat.", "sentence_bad": sentence}
    (runs.parent / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=words):
        ask(runs, pairs_of(runs))


def test_one_document_is_too_little_for_sentence_pairs(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(toy.text(1))
    with pytest.raises(UserError, match="the text is one document: put blank lines between documents"):
        ask(runs, toy.held_out(files=[str(tmp_path / "one.txt")]))


def test_a_model_without_a_head_that_fills_masks_is_refused(runs: Path) -> None:
    from safetensors.torch import load_file, save_file

    from foundation.core.files import hash_file, write_json

    lay_other(runs, "toy")
    final = runs / "toy/final"
    tensors = {k: v for k, v in load_file(final / "model.safetensors").items() if not k.startswith("heads.")}
    save_file(tensors, final / "model.safetensors")
    info = {**read_json(final / "config.json"), "weights_hash": hash_file(final / "model.safetensors"), "task": {}}
    write_json(final / "config.json", info)
    with pytest.raises(UserError, match=r"has no head that fills masks.*evaluate the foundation that it came from"):
        ask(runs, toy.held_out())


def test_files_that_are_absent_are_said_with_where_to_get_them(runs: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file matches 'none/\*.jsonl' in evaluation.files .*can be had from https://x"
    ):
        ask(runs, toy.pairs(files=["none/*.jsonl"], origin="https://x"))


@pytest.mark.parametrize("choice", sorted(path.stem for path in (conf_folder() / "evaluation").glob("*.yaml")))
def test_every_kind_composes(choice: str) -> None:
    register(EvaluateConfig, "evaluate")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("evaluate", [f"evaluation={choice}", "evaluation.files=[a.jsonl]"]), EvaluateConfig)
    cfg.check()
    assert cfg.evaluation.name == choice
    assert cfg.trainer.precision.value == "fp32"


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (toy.held_out(name="a/b"), "evaluation.name=a/b must be the name of a folder"),
        (toy.held_out(rows=0), "evaluation.rows=0 must be at least 1"),
        (toy.pairs(), "there are no pairs: name their files"),
        (toy.pairs(files=["a"], max_pairs=0), "evaluation.max_pairs=0 must be at least 1, or null for all"),
        (toy.pairs(files=["a"], ngram_order=-1), r"evaluation.ngram_order=-1 must be in 0 … 9"),
        (toy.pairs(files=["a"], batch_tokens=0), "evaluation.batch_tokens=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(evaluation: EvaluationConfig, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        toy.settings(tmp_path, evaluation).check()


def test_a_missing_foundation_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no foundation toy: neither"):
        ask(tmp_path, toy.held_out())


def test_the_command_line_answers_a_mistake_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "foundation.evaluate", "evaluation.rows=0"],
        capture_output=True,
        text=True,
        cwd=conf_folder().parent,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "error: evaluation.rows=0 must be at least 1"


def test_a_second_run_under_another_name_leaves_the_first(runs: Path) -> None:
    ask(runs, pairs_of(runs))
    again = ask(runs, replace(pairs_of(runs), name="other", max_pairs=1))
    assert again["pairs"] == 2
    assert read_json(runs / "toy/evaluation/pairs/scores.json")["pairs"] == 3
