"""A run in numbers: what is logged, examined and counted, against the parts it is made of."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.core.files import read_json
from foundation.core.logger import read_metrics
from foundation.core.randomness import RowRng
from foundation.pretraining.build import make_batches, make_corpus, make_held_out, make_objective, make_state
from tests.test_config import composed
from tests.test_pretrain import TINY, here
from tests.test_resume import stopped


def test_a_run_logs_the_loss_of_its_seed_and_examines_the_average_that_it_keeps(tmp_path: Path) -> None:
    words = ("seed=7", "steps=12", "ema_decay=0.9", "trainer.eval_every_steps=0", "trainer.save_every_steps=0")
    here(tmp_path, *words)
    rows, record = read_metrics(tmp_path / "smoke" / "metrics.jsonl"), read_json(tmp_path / "smoke" / "run.json")
    cfg = composed(*TINY, *words, f"runs_dir={tmp_path}")
    corpus = make_corpus(cfg)
    objective = make_objective(cfg, corpus)

    example = objective.corrupt(make_batches(cfg, corpus).at(0), RowRng(7, "mask", 0), 0.0)
    loss = objective(example, objective.count(example))[0].item()
    assert rows[0]["train/mlm_loss"] == pytest.approx(loss, rel=1e-5)
    unigram = corpus.manifest["unigram_entropy_nats"]
    assert rows[0]["train/below_unigram"] == pytest.approx(unigram - loss, rel=1e-4)

    objective.load_state_dict(load_file(tmp_path / "smoke" / "final" / "model.safetensors"))
    found = make_held_out(cfg, objective, corpus).metrics(make_state(cfg, objective, torch.device("cpu"), 12))
    assert record["result"]["held_out"]["eval/mlm_loss"] == pytest.approx(found["eval/mlm_loss"], rel=1e-6)


def test_a_resumed_run_goes_on_counting_and_its_ledger_has_the_tokens_of_every_session_once(tmp_path: Path) -> None:
    """As if three updates had been lost before the checkpoint of step 4."""
    words = ("steps=6", "trainer.eval_every_steps=0")
    here(tmp_path, *words)
    whole = read_json(tmp_path / "smoke" / "run.json")["ledger"]["tokens"]
    stopped(tmp_path / "smoke")
    path = tmp_path / "smoke" / "checkpoints" / "step-00000004" / "state.json"
    path.write_text(json.dumps(read_json(path) | {"skipped": 3}))
    here(tmp_path, *words, "resume=true")
    seen = {row["step"]: row for row in read_metrics(tmp_path / "smoke" / "metrics.jsonl") if "train/tokens" in row}
    assert [seen[step]["optim/skipped"] for step in sorted(seen)] == [0, 0, 0, 0, 3, 3]
    ledgers = [session["ledger"] for session in read_json(tmp_path / "smoke" / "run.json")["sessions"]]
    assert seen[6]["train/tokens"] == whole
    assert [ledger["tokens"] for ledger in ledgers] == [whole, whole - seen[4]["train/tokens"]]
