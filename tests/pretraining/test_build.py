"""The parts of a run: what the seed decides, what is examined, and how a length becomes steps."""

from dataclasses import replace

import pytest
import torch

from foundation.data.corpus import Corpus
from foundation.pretraining import build
from foundation.pretraining.build import make_batches, make_corpus, make_held_out, make_objective, plan_steps
from foundation.train.pretrain_config import PretrainConfig
from tests.test_config import composed
from tests.test_pretrain import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    return composed(*TINY, f"runs_dir={tmp_path_factory.mktemp('runs')}")


@pytest.fixture(scope="module")
def corpus(cfg: PretrainConfig) -> Corpus:
    return make_corpus(cfg)


def test_the_seed_decides_the_first_weights_and_the_order_of_rows(cfg: PretrainConfig, corpus: Corpus) -> None:
    settings = [cfg, cfg, replace(cfg, seed=1)]
    one, same, other = (make_objective(each, corpus).encoder.token_embedding.weight for each in settings)
    assert torch.equal(one, same) and not torch.equal(one, other)
    one, same, other = (make_batches(each, corpus).at(0).ids.tolist() for each in settings)
    assert one == same != other


def test_the_examination_is_on_the_held_out_text(cfg: PretrainConfig, corpus: Corpus) -> None:
    assert make_held_out(cfg, make_objective(cfg, corpus), corpus).batches.table is corpus.held_out


def test_tokens_become_steps_under_a_ramp_too(cfg: PretrainConfig, corpus: Corpus) -> None:
    rows = replace(cfg.batches, ramp_from=4, ramp_share=0.8)
    cfg = replace(cfg, steps=None, tokens=20_000, batches=rows)
    batches = make_batches(cfg, corpus)
    steps = int(plan_steps(cfg, corpus, batches, CPU, spent_seconds=0.0)["total_steps"])
    batches.ramp_over(steps)
    assert sum(batches.at(step).n_tokens for step in range(steps)) == pytest.approx(20_000, rel=0.1)


def test_a_budget_pays_for_preparation_steps_and_evaluations(
    cfg: PretrainConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 s, 20 s are gone and the last evaluation takes 4 s; with one in 8 steps, a step takes 1 s + 0.5 s."""
    monkeypatch.setattr(build, "_measure", lambda *_: (1.0, 4.0))
    cfg = replace(cfg, steps=None, budget="1min")
    plan = plan_steps(cfg, corpus, make_batches(cfg, corpus), CPU, spent_seconds=20.0)
    assert plan == {"total_steps": 23, "seconds_per_step": 1.0, "seconds_per_evaluation": 4.0}
