"""experiments/2026-11-25-cpu-speedrun: both sides at toy size, the record of them, and what cannot be mixed up."""

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

HERE = Path(__file__).parent.parent / "experiments" / "2026-11-25-cpu-speedrun"
sys.path.insert(0, str(HERE))

import cells  # noqa: E402
import record  # noqa: E402
import run  # noqa: E402
import sides  # noqa: E402

from foundation.core.errors import UserError  # noqa: E402
from foundation.data.batches import Pairs  # noqa: E402
from foundation.pretraining.build import make_corpus, make_held_out, make_objective  # noqa: E402

TOY_MODEL = ["model.layers=1", "model.width=16", "model.heads=2", "model.ffn_width=32"]
TOY = {
    "rules": {
        "common": [], "seq_len": 32, "eval_rows": 8, "examination": "pairs", "target": None, "threads": 1,
    },
    "peer": {
        "base": {"rows": 8, "lr": 1e-3, "precision": "fp32", "layers": 1, "width": 16, "heads": 2},
        "tune": {
            "budget_s": 0.05, "evaluations": 2, "grid": {"lr": [1e-3, 1e-2]},
            "more": {"alone": {"nsp": False, "precision": "bf16"}},
        },
        "final": {"budget_s": 0.1, "evaluations": 3, "seeds": 2, "more": {"constant": {"schedule": "constant"}}},
    },
    "ours": {
        "budget_s": 0.1, "evaluations": 3,
        "base": ["model=modern_mini", *TOY_MODEL, "optim=adamw", "batches.rows_per_step=8", "batches.seq_len=32", "trainer=cpu"],
        "variants": [
            {"name": "base", "seeds": 3},
            {"name": "muon", "over": "base", "overrides": ["optim=muon"], "seeds": 3},
            {"name": "diverges", "over": "base", "overrides": ["optim.lr=1e30"]},
            {"name": "averaged", "over": "base", "steps_of": "base", "overrides": ["ema_decay=0.9", "batches.ramp_from=4"]},
            {"name": "cosine", "over": "base", "overrides": ["schedule=cosine"], "steps_of": "base"},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> cells.Speedrun:
    folder = tmp_path_factory.mktemp("speedrun")
    words = [f"w{number}" for number in range(60)]
    draw = np.random.default_rng(0)
    sentences = [" ".join(draw.choice(words, 12)) + "." for _ in range(1200)]
    documents = ["\n".join(sentences[start : start + 6]) for start in range(0, len(sentences), 6)]
    (folder / "text.txt").write_text("\n\n".join(documents))
    content = json.loads(json.dumps(TOY))
    content["rules"]["common"] = [
        "data=text", f"data.files=[{folder / 'text.txt'}]", "data.held_out=0.2", "tokenizer.vocab_size=80",
        f"runs_dir={folder / 'runs'}",
    ]  # fmt: skip
    (folder / "toy.yaml").write_text(yaml.safe_dump(content))
    return cells.read_speedrun(folder / "toy.yaml", folder / "results")


@pytest.fixture(scope="module")
def raced(toy: cells.Speedrun) -> str:
    """Both sides and the report, through the command line."""
    threads = torch.get_num_threads()
    words = ["--speedrun", str(toy.results.parent / "toy.yaml"), "--results", str(toy.results)]
    for what in ("peer", "ours", "report"):
        assert run.main([what, *words]) == 0
    torch.set_num_threads(threads)
    return (toy.results / "record.md").read_text()


def of(toy: cells.Speedrun, name: str) -> Any:
    return json.loads((toy.results / "cells" / f"{name}.json").read_text())


def long_best(toy: cells.Speedrun) -> str:
    names = ("peer/final/tuned", "peer/final/tuned-constant")
    return min(names, key=lambda name: of(toy, f"{name}-seed0")["curve"][-1]["pairs"])


def test_both_sides_are_examined_after_the_same_kind_of_seconds(toy: cells.Speedrun, raced: str) -> None:
    for name in (long_best(toy) + "-seed1", "ours/run/base-seed0"):
        curve = of(toy, name)["curve"]
        assert [point["step"] for point in curve][-1] == of(toy, name)["total_steps"]
        assert all(a["seconds"] < b["seconds"] and a["tokens"] < b["tokens"] for a, b in pairwise(curve))
        assert all(0 < point["pairs"] < 10 and 0 < point["single"] < 10 for point in curve)


def test_seeds_of_a_variant_have_one_number_of_steps(toy: cells.Speedrun, raced: str) -> None:
    assert len({of(toy, f"ours/run/muon-seed{seed}")["total_steps"] for seed in range(3)}) == 1
    losses = {of(toy, f"ours/run/muon-seed{seed}")["curve"][-1]["pairs"] for seed in range(3)}
    assert len(losses) == 3


def test_a_change_that_costs_no_time_is_given_the_steps_of_another_variant(toy: cells.Speedrun, raced: str) -> None:
    assert of(toy, "ours/run/cosine-seed0")["total_steps"] == of(toy, "ours/run/base-seed0")["total_steps"]
    assert "steps_of" not in of(toy, "ours/run/base-seed0")["settings"]
    other = replace(toy.variants()[-1], steps_of="diverges-not-run")
    with pytest.raises(
        UserError, match="cosine takes the steps of diverges-not-run, which was not run: run that one first"
    ):
        run.plan_steps(toy, other, SimpleNamespace(one_step=lambda step: None))


def test_a_ramp_is_laid_over_the_run_and_averaged_weights_are_examined(toy: cells.Speedrun, raced: str) -> None:
    """A quarter fewer rows in the first half of the steps, on the same seed."""
    tokens = {name: of(toy, f"ours/run/{name}-seed0")["curve"][-1]["tokens"] for name in ("base", "averaged")}
    assert 0.8 < tokens["averaged"] / tokens["base"] < 0.95
    words = next(cell.overrides for cell in toy.variants() if cell.variant == "averaged")
    cfg = sides.composed([*toy.rules.common, *words, "trainer.precision=fp32", "steps=16", "name=x"])
    corpus = make_corpus(cfg)
    side = sides.Ours(cfg, corpus)
    side.train(16, lambda *told: None)
    (example,) = sides.examination(corpus, toy.rules, Pairs.next)
    examined, last = side.examine(example), side.state.objective.score(example)["mlm"].loss
    with side.state.averaged():
        assert examined == side.state.objective.score(example)["mlm"].loss != last


def test_the_peers_long_runs_have_the_recipe_that_was_best_in_its_short_ones(toy: cells.Speedrun, raced: str) -> None:
    short = {cell.variant: of(toy, cell.name)["curve"][-1]["pairs"] for cell in toy.tuning()}
    best = min(short, key=lambda name: short[name])
    assert (
        of(toy, "peer/final/tuned-seed0")["settings"]["recipe"]
        == of(toy, f"peer/tune/{best}-seed0")["settings"]["recipe"]
    )


def test_of_the_recipes_run_at_length_the_best_has_all_seeds(toy: cells.Speedrun, raced: str) -> None:
    best = long_best(toy)
    assert {path.stem for path in (toy.results / "cells/peer/final").glob("*-seed1.json")} == {
        f"{Path(best).name}-seed1"
    }
    assert of(toy, f"{best}-seed1")["settings"] == of(toy, f"{best}-seed0")["settings"]
    assert f"| peer: {Path(best).name} |  | 2 | 0 |" in raced


def test_a_run_that_diverges_stays_in_the_table(toy: cells.Speedrun, raced: str) -> None:
    assert of(toy, "ours/run/diverges-seed0")["failure"]
    assert "| diverges | base | 0 | 1 |" in raced and "ours diverges, seed 0:" in raced
    assert (toy.results / "time_to_quality.svg").stat().st_size > 1000


def test_what_was_run_is_not_run_again(
    toy: cells.Speedrun, raced: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("a finished cell was run"))
    words = ["--speedrun", str(toy.results.parent / "toy.yaml"), "--results", str(toy.results)]
    run.main(["peer", *words])
    run.main(["ours", *words])
    run.main(["plan", *words])
    assert "left: about 0 minutes" in capsys.readouterr().out


def test_a_result_of_other_settings_is_refused(toy: cells.Speedrun, raced: str) -> None:
    changed = cells.Speedrun(toy.rules, toy.peer, {**toy.ours, "budget_s": 9.0}, toy.results)
    with pytest.raises(UserError, match="give the variant a new name"):
        changed.result(changed.variants()[0])


def test_the_examination_is_that_of_pretraining(toy: cells.Speedrun) -> None:
    cfg = sides.composed([*toy.rules.common, *toy.variants()[0].overrides, "steps=1", "trainer.eval_rows=8", "name=x"])
    corpus = make_corpus(cfg)
    held_out = make_held_out(cfg, make_objective(cfg, corpus), corpus)
    for mine, theirs in zip(sides.examination(corpus, toy.rules, Pairs.next), held_out.examples(), strict=True):
        assert torch.equal(mine.ids, theirs.ids) and torch.equal(mine.targets_at, theirs.targets_at)


def test_the_peers_examined_loss_is_the_one_its_own_model_computes(toy: cells.Speedrun) -> None:
    cell = toy.tuning()[0]
    corpus = make_corpus(sides.composed([*toy.rules.common, *toy.variants()[0].overrides, "steps=1", "name=x"]))
    assert cell.recipe is not None
    peer = sides.Peer(cell.recipe, toy.rules, corpus, 0)
    (example,) = sides.examination(corpus, toy.rules, Pairs.next)
    (rows,) = sides.padded_steps(example, 0, toy.rules.seq_len)
    found = peer.examine(example) / len(example.targets)
    with torch.no_grad():
        out = peer.model(
            **{name: t for name, t in rows.inputs.items() if name not in ("labels", "next_sentence_label")}
        )
    labels = rows.inputs["labels"]
    expected = torch.nn.functional.cross_entropy(
        out.prediction_logits.flatten(0, 1), labels.flatten(), ignore_index=-100
    )
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_seconds_to_the_target_lie_on_the_line_between_two_examinations() -> None:
    curve = [{"seconds": s, "pairs": loss} for s, loss in ((10.0, 6.0), (20.0, 5.0), (40.0, 4.0))]
    assert record.seconds_to(4.5, curve, "pairs") == 30.0
    assert record.seconds_to(6.5, curve, "pairs") == 10.0
    assert math.isinf(record.seconds_to(3.9, curve, "pairs"))
    assert math.isnan(record.seconds_to(math.nan, curve, "pairs"))


def a_group(name: str, losses: tuple[float, ...], overrides: list[str]) -> record.Group:
    results = [
        {"failure": "", "seed": i, "tokenizer": "t", "curve": [{"pairs": loss}], "settings": {"overrides": overrides}}
        for i, loss in enumerate(losses)
    ]
    return record.Group("ours", "run", name, None if name == "a" else "a", results, "pairs")


@pytest.mark.parametrize(("losses", "verdict"), [((4.0, 4.1, 4.2), "kept"), ((4.8, 4.9, 5.0), "not kept")])
def test_a_change_is_kept_when_it_pays_more_than_two_standard_errors(losses: tuple[float, ...], verdict: str) -> None:
    gained, error, said = record.gain(a_group("b", losses, ["seed=1"]), a_group("a", (4.9, 5.0, 5.1), []))
    assert said == verdict
    assert gained == pytest.approx(5.0 - sum(losses) / 3)
    assert error == pytest.approx(math.sqrt(0.01 / 3 * 2))


@pytest.mark.parametrize(("losses", "name"), [((4.0, 4.1, 4.2), "b"), ((4.8, 4.9, 5.0), "a")])
def test_the_winner_is_the_best_of_what_was_kept(losses: tuple[float, ...], name: str) -> None:
    """A change within the noise does not become the recipe for a mean that happens to be lower."""
    both = [a_group("a", (4.9, 5.0, 5.1), []), a_group("b", losses, ["seed=1"])]
    won = record.winner({("ours", "run", group.variant): group for group in both})
    assert won is not None and won.variant == name


def test_a_recipe_that_is_run_again_elsewhere_is_no_change_of_itself() -> None:
    gained, _, said = record.gain(a_group("b", (4.0, 4.1, 4.2), ["seed=1"]), a_group("a", (4.9, 5.0, 5.1), ["seed=1"]))
    assert said == "the same again" and math.isnan(gained)


def test_another_choice_of_a_group_takes_what_was_said_inside_it_along() -> None:
    words = cells.merged(
        ["optim=adamw", "optim.lr=1", "model.width=8", "optim=muon", "optim.muon_lr=2", "model.width=9"]
    )
    assert words == ("optim=muon", "optim.muon_lr=2", "model.width=9")


def test_a_misspelt_key_of_a_variant_is_refused(toy: cells.Speedrun) -> None:
    # YAML takes a bare `on` for a truth value: variants would silently change nothing of what they name.
    broken = cells.Speedrun(toy.rules, toy.peer, {**toy.ours, "variants": [{"name": "a", True: "b"}]}, toy.results)
    with pytest.raises(UserError, match="a: unknown"):
        broken.variants()


def test_a_typo_in_an_override_is_answered_with_the_nearest_setting() -> None:
    with pytest.raises(UserError, match=r"unknown setting batches\.rows_per_stp; .*batches\.rows_per_step"):
        sides.composed(["batches.rows_per_stp=8", "steps=1", "name=x"])


def test_every_variant_of_the_speedrun_composes_and_no_nsp_keeps_the_mask_rates() -> None:
    speedrun = cells.read_speedrun(HERE / "speedrun.yaml", HERE / "results")
    found = {
        cell.variant: sides.composed([*speedrun.rules.common, *cell.overrides, "steps=1", "name=x"])
        for cell in speedrun.variants(seeds=1)
    }
    with_nsp, without = found["small"].objective, found["no-nsp"].objective
    assert with_nsp.sentence_task.value == "nsp" and without.sentence_task.value == "none"
    assert without.masking == with_nsp.masking
