"""Several tasks over one encoder: whose step it is, what a step learns, and that the encoder is stored once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.core.randomness import RowRng
from foundation.model.sharing.config import MultitaskConfig, Sampler
from foundation.task.answer import examples_of
from foundation.task.config import Pooling
from foundation.task.finetuned import load_finetuned
from foundation.task.heads import TaskObjective
from foundation.task.multitask import MultitaskBatches, MultitaskObjective, task_of_steps
from foundation.task.study_config import Keep
from foundation.task.suite import Member, SuiteResult, run_suite
from foundation.train.config import AdamWConfig, Precision, ScheduleConfig, Shape
from tests.builders import bert_config
from tests.task import toy
from tests.task.test_batches import task_batches
from tests.test_suite import two_tasks

ROWS = [64_000, 1_000, 16_000]


@pytest.mark.parametrize(
    ("sampler", "shares"),
    [
        (Sampler.uniform, [1 / 3, 1 / 3, 1 / 3]),
        (Sampler.proportional, [64 / 81, 1 / 81, 16 / 81]),
        # Square roots: 8 : 1 : 4.
        (Sampler.temperature, [8 / 13, 1 / 13, 4 / 13]),
    ],
)
def test_steps_are_shared_out_as_the_sampler_says(sampler: Sampler, shares: list[float]) -> None:
    tasks = task_of_steps(MultitaskConfig(sampler=sampler, temperature=2.0), ROWS, 2600)
    assert len(tasks) == 2600
    assert np.bincount(tasks) == pytest.approx(np.array(shares) * 2600, abs=1)
    # Evenly: every tenth of the run has a tenth of each task's steps.
    for part in tasks.reshape(10, -1):
        assert np.bincount(part, minlength=3) == pytest.approx(np.array(shares) * 260, abs=1.5)


def test_a_task_with_few_rows_has_a_step_at_least() -> None:
    assert np.bincount(task_of_steps(MultitaskConfig(sampler=Sampler.proportional), [10**6, 1], 100)).min() == 1


def test_a_temperature_of_one_is_proportional() -> None:
    by_temperature, by_rows = (
        task_of_steps(MultitaskConfig(sampler=sampler, temperature=1.0), ROWS, 500)
        for sampler in (Sampler.temperature, Sampler.proportional)
    )
    assert np.array_equal(by_temperature, by_rows)


def test_every_task_goes_through_its_own_batches_from_the_first_and_leaves_none_out() -> None:
    alone = [task_batches(20, batch_rows=8, seed=0), task_batches(20, batch_rows=10, seed=1)]
    tasks = np.array([1, 0, 0, 1, 0])
    together = MultitaskBatches(alone, tasks)
    steps = {number: np.flatnonzero(tasks == number) for number in (0, 1)}
    for number, batches in enumerate(alone):
        for own_step, step in enumerate(steps[number]):
            ours, theirs = together.at(step), batches.at(own_step)
            assert np.array_equal(ours.ids, theirs.ids) and np.array_equal(ours.labels, theirs.labels)
        seen = np.concatenate([together.at(step).labels for step in steps[number]])
        assert sorted(seen.tolist()) == list(range(20)), "one epoch"


def test_a_step_moves_the_encoder_and_its_own_head_only() -> None:
    objectives = [TaskObjective(bert_config(), n_out=n, pooling=Pooling.mean, dropout=0.0) for n in (2, 3)]
    objectives[1].encoder = objectives[0].encoder
    joint = MultitaskObjective(objectives, np.array([0, 1]))
    assert sum(name.startswith("encoder.") for name in joint.state_dict()) == len(objectives[0].encoder.state_dict())
    from foundation.data.batches import assemble
    from tests.builders import SPECIALS

    batch = assemble([(np.arange(5, 9),), (np.arange(6, 12),)], SPECIALS, np.array([0, 2]))
    example = joint.corrupt(batch, RowRng(0, "mask", 1), 0.0)
    assert (example.task, [part.task for part in example.split(1)]) == (1, [1, 1])
    assert example.to(torch.device("cpu")).task == 1
    joint(example, joint.count(example)).sum().backward()
    assert joint.encoder.layers[0].attention.qkv.weight.grad is not None
    assert joint.heads[1].out.weight.grad is not None
    assert joint.heads[0].out.weight.grad is None


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SuiteResult]:
    runs = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(runs)
    return runs, run_suite("pair", members(runs))


def members(runs: Path, **changed: object) -> list[Member]:
    settings: dict[str, object] = {"seeds": 1, "epochs": 8, "sharing": MultitaskConfig()}
    cfgs = [toy.settings(runs, task, **(settings | changed)) for task in two_tasks(runs / "data")]
    return [Member(cfg, to_plain(cfg)) for cfg in cfgs]


def test_tasks_that_contradict_one_another_are_both_learnt(joint: tuple[Path, SuiteResult]) -> None:
    _, result = joint
    assert all(study.arms[0].summary["mean"] > 0.9 for study in result.studies["multitask"].values())


def test_the_encoder_is_stored_once_and_every_task_names_it(joint: tuple[Path, SuiteResult]) -> None:
    runs, result = joint
    encoder = read_json(runs / "small/finetune/first+second/multitask/seed-0/encoder/config.json")
    finals = [runs / f"small/finetune/{task}/multitask/seed-0/final" for task in ("first", "second")]
    for final in finals:
        info = read_json(final / "config.json")
        assert info["shares"]["fingerprint"] == encoder["fingerprint"] == info["fingerprint"]
        assert info["parent"] == read_json(runs / "small/final/config.json")["fingerprint"] == encoder["parent"]
        assert info["shares"]["tensors"] == 15
    models = [load_finetuned(final, torch.device("cpu"), batch_rows=2, precision=Precision.fp32) for final in finals]
    text = toy.sentences(1, 9)[0][0]
    said = [model.answer(model.tokenize(examples_of(model, [{"text": text}]))).predicted[0] for model in models]
    assert said[0] != said[1], "the second task has its labels turned round"
    costs = result.studies["multitask"]["first"].arms[0].summary["seeds"][0]["costs"]
    n_head = sum(p.numel() for p in models[0].objective.heads.parameters())
    assert result.degrees["multitask"] == pytest.approx(1 - n_head / costs["parameters"])


def test_the_same_command_finds_all_done(joint: tuple[Path, SuiteResult], capsys: pytest.CaptureFixture[str]) -> None:
    runs, first = joint
    again = run_suite("pair", members(runs))
    assert "second/small/multitask: seed 0 is there already" in capsys.readouterr().out
    for task in ("first", "second"):
        runs_of = [result.studies["multitask"][task].arms[0].predictions[0].logits for result in (first, again)]
        assert np.array_equal(*runs_of)


def test_other_company_is_another_result(joint: tuple[Path, SuiteResult]) -> None:
    runs, _ = joint
    first, second = members(runs)
    third = Member(replace(second.cfg, task=replace(second.cfg.task, name="third")), second.settings)
    with pytest.raises(UserError, match=r"(?s)settings change the result.*together.*another name="):
        run_suite("trio", [first, second, third])


def test_an_epoch_cannot_be_picked_for_all_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keep=best picks an epoch for one task: with sharing=multitask use keep=last"):
        members(tmp_path, keep=Keep.best)[0].cfg.check()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"optim": AdamWConfig(lr=0.1)}, "first and second .* different optim: "),
        ({"dropout": 0.0, "reinit_layers": 1}, "first and second .* different dropout and reinit_layers: "),
        ({"layer_lr_decay": 0.9}, "different layer_lr_decay"),
        ({"schedule": ScheduleConfig(shape=Shape.cosine)}, "different schedule"),
        ({"sharing": MultitaskConfig(temperature=5.0)}, "different sharing"),
    ],
)
def test_settings_that_one_training_has_once_are_the_same_for_all_tasks(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    toy.lay_foundation(tmp_path)
    first, second = members(tmp_path)[0], members(tmp_path, **changed)[1]
    with pytest.raises(UserError, match=words):
        run_suite("pair", [first, second])
    assert not list(tmp_path.rglob("seed-*"))


def test_a_task_keeps_rows_epochs_and_batches_of_its_own(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    own = {"max_train": 40, "batch_rows": 8, "epochs": 2, "reinit_layers": 1}
    result = run_suite("pair", [members(tmp_path, epochs=1, reinit_layers=1)[0], members(tmp_path, **own)[1]])
    seeds = [study.arms[0].summary["seeds"][0] for study in result.studies["multitask"].values()]
    # 240 rows by 16, once; 40 by 8, twice.
    assert [seed["steps"] for seed in seeds] == [15 + 10] * 2


def test_no_task_of_one_training_starts_from_another(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    with pytest.raises(UserError, match=r"second starts from first, .* sharing=multitask trains all tasks at once"):
        run_suite("pair", members(tmp_path), parents={"second": "first"})
    with pytest.raises(UserError, match=r"parent=mnli .* sharing=multitask"):
        members(tmp_path, parent="mnli")[0].cfg.check()
    with pytest.raises(UserError, match=r"foundation=scratch .* sharing=multitask"):
        members(tmp_path, foundation="scratch")[0].cfg.check()
    assert not list(tmp_path.rglob("seed-*"))
