"""Fine-tuning from end to end on a toy: what it writes, what it refuses, what it runs again and what not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.files import hash_file, read_json, write_json
from foundation.core.plain import to_plain
from foundation.model import native
from foundation.task.cell import Arm, begin_cell, run_steps
from foundation.task.config import Metric, Pooling, TaskKind
from foundation.task.finetuned import check_reload, load_finetuned
from foundation.task.load import load_task
from foundation.task.predictions import ALL_ROWS, Predictions, read_predictions
from foundation.task.protocol import finetune, prepare_arms, read_data, study_of
from foundation.task.results import ArmResult, StudyResult, study_table, summarize
from foundation.task.rows import choose_rows
from foundation.task.start import find_start
from foundation.task.study_config import FinetuneConfig, Keep
from foundation.train.config import Precision, TrainerConfig
from tests.task import toy


def run(cfg: FinetuneConfig) -> StudyResult:
    cfg.check()
    return finetune(cfg, to_plain(cfg))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a foundation, a task, and a study of two arms and two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(folder)
    study = run(toy.settings(folder, toy.lay_task(folder / "data"), compare="scratch"))
    (folder / "table.txt").write_text(study_table(study))
    return folder


def test_a_separable_task_is_learnt(runs: Path) -> None:
    scores = read_json(runs / "small/finetune/toy/full/scores.json")
    assert scores["mean"] > 0.9
    assert [seed["seed"] for seed in scores["seeds"]] == [0, 1]
    assert (scores["collapsed"], scores["baseline"]) == (0, 0.5)
    assert scores["seeds"][0]["per_class"].keys() == {"good", "bad"}
    assert np.array(scores["seeds"][0]["confusion"]).sum() == 60
    assert scores["seeds"][0]["reload_difference"] < 1e-5


def test_scores_follow_from_the_predictions(runs: Path) -> None:
    folder = runs / "small/finetune/toy/full"
    scores = read_json(folder / "scores.json")
    for seed, predictions in zip(scores["seeds"], read_predictions(folder / "predictions.parquet"), strict=True):
        assert predictions.seed == seed["seed"]
        assert (predictions.gold == predictions.predicted).mean() == pytest.approx(seed["value"])
        assert np.array_equal(predictions.logits.argmax(1), predictions.predicted)
        assert predictions.probabilities.sum(1) == pytest.approx(np.ones(60))


def test_every_number_names_the_weights_it_comes_from(runs: Path) -> None:
    foundation = read_json(runs / "small/final/config.json")["fingerprint"]
    arms = {
        name: read_predictions(runs / f"small/finetune/toy/{name}/predictions.parquet") for name in ("full", "scratch")
    }
    assert {predictions.foundation for predictions in arms["full"]} == {foundation}
    # Every seed of scratch has random weights of its own.
    assert len({predictions.foundation for predictions in arms["scratch"]} | {foundation}) == 3
    model = read_json(runs / "small/finetune/toy/full/seed-0/final/config.json")
    assert model["parent"] == foundation
    assert model["fingerprint"] == read_json(runs / "small/finetune/toy/full/seed-0/scores.json")["model"]
    record = read_json(runs / "small/finetune/toy/full/run.json")
    assert record["fingerprints"]["start"] == foundation


def test_the_table_shows_arms_seeds_and_difference(runs: Path) -> None:
    table = (runs / "table.txt").read_text()
    assert "toy: accuracy on 60 rows, after 240 training rows; a constant answer has 0.500" in table
    assert "small/full " in table
    assert "0 of 2" in table
    assert "small/full − small/scratch: " in table
    assert "95 % interval [" in table


def arm_of(folder: Path, n_train: int, **changed: object) -> Arm:
    """What is ready for its cells, on a toy of so many rows."""
    toy.lay_foundation(folder)
    cfg = toy.settings(folder, toy.lay_task(folder / "data", n_train, 8), **changed)
    (arm,) = prepare_arms(cfg, to_plain(cfg), read_data(cfg), torch.device("cpu"))
    return arm


def test_the_difference_is_the_foundations_lead_over_what_it_is_compared_with(tmp_path: Path) -> None:
    arm = arm_of(tmp_path, 8)
    constant = arm.kind.constant(arm.train.examples, arm.dev.examples, arm.how)
    results = []
    for name, n_wrong in (("ours", 0), ("theirs", 2)):
        said = np.where(np.arange(len(constant)) < n_wrong, 1 - constant.gold, constant.gold)
        named = {"task": "toy", "split": "dev", "seed": 0, "foundation": "", "sharing": "full", "arm": name}
        run_of = Predictions.of(replace(constant, predicted=said), **named, data_shard=ALL_ROWS)
        results.append(ArmResult(name, tmp_path, {}, [run_of]))
    study = study_of([arm, arm], results)
    assert study.difference is not None
    assert study.difference.difference == pytest.approx(2 / 8)
    assert study.difference.interval.high > 2 / 8 and study.difference.interval.low >= 0


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_epochs_are_whole_and_as_many_as_min_steps_needs(tmp_path: Path, min_steps: int, epochs: int) -> None:
    cell = begin_cell(arm_of(tmp_path, 40, batch_rows=16, epochs=1, min_steps=min_steps), 0)
    assert (cell.batches.steps_per_epoch, cell.epochs, cell.total_steps) == (3, epochs, 3 * epochs)


def test_every_seed_has_an_order_of_its_own(tmp_path: Path) -> None:
    arm = arm_of(tmp_path, 40)
    first, again, other = (begin_cell(arm, seed).batches for seed in (0, 0, 1))
    assert np.array_equal(first.rows_at(0), again.rows_at(0))
    assert not np.array_equal(first.rows_at(0), other.rows_at(0))


def test_every_seed_has_dropout_of_its_own(tmp_path: Path) -> None:
    """From the same weights, on the same rows in the same order."""
    arm = arm_of(tmp_path, 16, dropout=0.5)

    def head_after_a_step(seed: int) -> torch.Tensor:
        cell = begin_cell(arm, 0)
        objective = cell.tuned.objective
        run_steps(arm, objective, cell.batches, lambda *_: True, total_steps=1, seed=seed)
        return objective.heads.dense.weight.detach()

    first, again, other = (head_after_a_step(seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_constant_answer_is_what_the_training_rows_say_most(tmp_path: Path) -> None:
    """It is known before the reported rows are, where another answer would do better."""
    arm = arm_of(tmp_path, 8)
    for name, counts in (("train", (6, 2)), ("dev", (3, 7))):
        labels = [label for label, n in zip(("bad", "good"), counts, strict=True) for _ in range(n)]
        (tmp_path / "data" / f"{name}.csv").write_text("\n".join(["text,label", *(f"film,{x}" for x in labels)]))
    (arm,) = prepare_arms(arm.cfg, arm.settings, read_data(arm.cfg), arm.device)
    assert arm.baseline == pytest.approx(0.3)


def test_only_missing_seeds_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    cfg = toy.settings(tmp_path, task, epochs=1, seeds=1)
    run(cfg)
    first = tmp_path / "small/finetune/toy/full/seed-0/scores.json"
    before = first.stat().st_mtime_ns
    study = run(replace(cfg, seeds=2))
    assert "seed 0 is there already" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before
    assert [seed["seed"] for seed in study.arms[0].summary["seeds"]] == [0, 1]
    assert run(replace(cfg, seed=1, seeds=1)).arms[0].summary["seeds"] == study.arms[0].summary["seeds"]


def test_a_seed_that_was_cut_short_is_run_again(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), epochs=1, seeds=1)
    first = run(cfg)
    (tmp_path / "small/finetune/toy/full/seed-0/scores.json").unlink()
    again = run(cfg)
    assert np.array_equal(first.arms[0].predictions[0].logits, again.arms[0].predictions[0].logits)


def test_other_settings_or_data_are_refused_in_the_same_folder(runs: Path, tmp_path: Path) -> None:
    task = toy.lay_task(tmp_path)
    cfg = toy.settings(runs, task)
    with pytest.raises(UserError, match=r"(?s)settings change the result.*epochs: 6 → 7.*another name="):
        run(replace(cfg, epochs=7))
    (tmp_path / "dev.csv").write_text("text,label\na new film,good\n")
    with pytest.raises(UserError, match=r"(?s)settings change the result.*examples: "):
        run(cfg)


def test_an_arm_from_before_a_data_fingerprint_of_everything_is_told_which_version_goes_on(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data", 32, 8), seeds=1, epochs=1)
    config = run(cfg).arms[0].folder / "config.yaml"
    config.write_text(config.read_text().replace("\nexamples: ", "\ndata: "))
    with pytest.raises(UserError, match=r"(?s)examples: absent → .*absent there is newer than the run"):
        run(cfg)


def test_a_cell_and_its_session_tell_which_passes_trained_it(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    trainer = TrainerConfig(device="cpu", threads=1, precision=Precision.bf16)
    run(toy.settings(tmp_path, toy.lay_task(tmp_path / "data", 32, 8), seeds=1, epochs=1, trainer=trainer))
    folder = tmp_path / "small/finetune/toy/full"
    expected = to_plain(native.passes(torch.device("cpu"), bf16=True))
    assert expected["fused"] or "install" in expected["why"]
    assert read_json(folder / "run.json")["sessions"][0]["passes"] == expected
    assert read_json(folder / "scores.json")["seeds"][0]["passes"] == expected


def test_speed_may_change(runs: Path, tmp_path: Path) -> None:
    cfg = toy.settings(runs, toy.lay_task(tmp_path))
    changed = replace(cfg, trainer=replace(cfg.trainer, micro_batch_rows=4), foundation=str(runs / "small/final"))
    assert run(changed).arms[0].summary["config"]["trainer"]["micro_batch_rows"] == 4


def test_a_name_gives_an_arm_a_folder_of_its_own(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), name="cls", pooling=Pooling.cls)
    assert find_start("small", cfg).folder == tmp_path / "small/finetune/toy/cls"
    assert find_start("scratch", cfg).folder == tmp_path / "small/finetune/toy/cls-scratch"


def test_a_fine_tuned_model_can_be_the_next_foundation(runs: Path, tmp_path: Path) -> None:
    final = runs / "small/finetune/toy/full/seed-0/final"
    cfg = replace(toy.settings(runs, toy.lay_task(tmp_path, 40)), foundation=str(final), seeds=1, epochs=1, name="next")
    study = run(cfg)
    assert study.arms[0].folder == runs / "small/finetune/toy/full/seed-0/finetune/toy/next"
    assert study.arms[0].predictions[0].foundation == read_json(final / "config.json")["fingerprint"]


@pytest.mark.parametrize(
    ("setting", "value"), [("foundation", "small"), ("foundation", "scratch"), ("compare", "base")]
)
def test_a_missing_foundation_says_how_to_make_it(tmp_path: Path, setting: str, value: str) -> None:
    if setting == "compare":
        toy.lay_foundation(tmp_path)
    cfg = replace(toy.settings(tmp_path, toy.lay_task(tmp_path / "data")), **{setting: value})
    with pytest.raises(UserError, match=r"no foundation (small|base): .* python -m foundation.pretrain \+exp=small"):
        run(cfg)
    assert not list(tmp_path.rglob("seed-*"))


@pytest.mark.parametrize("compare", ["small/final", "./small", "other"])
def test_a_foundation_is_not_compared_with_itself_by_another_name(tmp_path: Path, compare: str) -> None:
    toy.lay_foundation(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "small")
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), compare=str(tmp_path / compare))
    with pytest.raises(UserError, match=rf"compare={tmp_path / compare} is the foundation itself, .*small.final: name"):
        run(cfg)
    assert not list(tmp_path.rglob("seed-*"))


def test_no_more_layers_start_anew_than_there_are(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    with pytest.raises(UserError, match=r"reinit_layers=3 are more than the foundation's 2 layers: choose fewer"):
        run(toy.settings(tmp_path, task, reinit_layers=3))
    find_start("small", toy.settings(tmp_path, task, reinit_layers=2))
    find_start("scratch", toy.settings(tmp_path, task, reinit_layers=3))


def test_a_foundation_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    final = tmp_path / "small/final"
    tensors = load_file(final / "model.safetensors")
    del tensors["encoder.token_embedding.weight"]
    save_file(tensors, final / "model.safetensors")
    write_json(
        final / "config.json",
        read_json(final / "config.json") | {"weights_hash": hash_file(final / "model.safetensors")},
    )
    with pytest.raises(UserError, match=r"lacks 1 of 15 weights, among them token_embedding.weight"):
        run(toy.settings(tmp_path, toy.lay_task(tmp_path / "data")))


def test_what_was_loaded_and_what_was_cut_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fingerprint = toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    (tmp_path / "data/dev.csv").write_text(f"text,label\n{'film ' * 11},good\n{'film ' * 10},bad\n")
    run(toy.settings(tmp_path, task, seeds=1, epochs=1))
    said = capsys.readouterr().out
    assert f"encoder {fingerprint} from " in said
    assert "15 weights loaded, 0 missing, 4 not taken" in said or "15 weights loaded, 0 missing, 3 not taken" in said
    # 12 tokens, as the foundation was trained: [CLS], ten words, [SEP].
    assert "texts cut to 12 tokens: 0 of 240 of train, 1 of 2 of dev" in said


def test_runs_no_better_than_a_constant_are_counted(tmp_path: Path) -> None:
    """The reported split contradicts the training rows, so a run that learns them is wrong throughout."""
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    path = tmp_path / "data/dev.csv"
    path.write_text(path.read_text().replace(",good", ",x").replace(",bad", ",good").replace(",x", ",bad"))
    study = run(toy.settings(tmp_path, task))
    assert study.arms[0].summary["collapsed"] == 2
    assert "2 of 2" in study_table(study)
    assert "!" in study_table(study)


def test_the_constant_answer_says_the_label_that_f1_is_of_though_it_is_rarer(tmp_path: Path) -> None:
    """A third of the rows has it: whoever says it of every row has an F1 of ½, and whoever says the other 0."""
    toy.lay_foundation(tmp_path)
    task = replace(toy.lay_task(tmp_path / "data"), metric=Metric.f1, labels=["bad", "good"])
    for name in ("train", "dev"):
        rows = "\n".join(f"the plot,{label}" for label in ("bad", "bad", "good") * 10)
        (tmp_path / "data" / f"{name}.csv").write_text(f"text,label\n{rows}\n")
    summary = run(toy.settings(tmp_path, task, seeds=1, epochs=1)).arms[0].summary
    assert summary["baseline"] == pytest.approx(0.5)
    assert summary["collapsed"] == 1


def test_keep_best_puts_back_the_epoch_that_its_own_rows_prefer(tmp_path: Path) -> None:
    """The rows that pick the epoch contradict the others: the more is learnt, the worse they are answered."""
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    cfg = toy.settings(tmp_path, task, seeds=1, keep=Keep.best, selection_share=0.2)
    _, chosen = choose_rows(cfg, load_task(task, tmp_path).train)
    assert chosen is not None
    path = tmp_path / "data/train.csv"
    header, *lines = path.read_text().splitlines()
    for number in (int(name.removeprefix("train-")) for name in chosen.ids):
        text, label = lines[number].split(",")
        lines[number] = f"{text},{'bad' if label == 'good' else 'good'}"
    path.write_text("\n".join([header, *lines]))
    arm = run(cfg).arms[0]
    logged = (arm.folder / "seed-0/metrics.jsonl").read_text().splitlines()
    tried = [row["eval/selection_accuracy"] for row in map(json.loads, logged) if "eval/selection_accuracy" in row]
    assert len(tried) == cfg.epochs
    assert tried[0] == max(tried) > tried[-1]
    assert arm.summary["seeds"][0]["epoch_kept"] == 1
    assert arm.summary["rows"] == {"train": 192, "dev": 60}
    model = load_finetuned(arm.folder / "seed-0/final", torch.device("cpu"), batch_rows=8, precision=Precision.fp32)
    _, selection = choose_rows(cfg, load_task(task, tmp_path).train)
    assert selection is not None
    predicted = model.answer(model.tokenize(selection)).predicted
    assert (predicted == selection.labels).mean() == tried[0]


def test_chosen_rows_are_nested_and_disjoint(tmp_path: Path) -> None:
    task = toy.lay_task(tmp_path)
    data = load_task(task, tmp_path)
    few, many = (choose_rows(toy.settings(tmp_path, task, max_train=n), data.train)[0].ids for n in (50, 100))
    assert (len(few), len(many)) == (50, 100)
    assert set(few) < set(many)
    train, selection = choose_rows(toy.settings(tmp_path, task, max_train=100, keep=Keep.best), data.train)
    assert selection is not None
    assert (len(train), len(selection)) == (90, 10)
    assert set(train.ids) | set(selection.ids) == set(many)
    with pytest.raises(UserError, match=r"4 training rows leave none for selection_share=0.1: use keep=last"):
        choose_rows(toy.settings(tmp_path, task, max_train=4, keep=Keep.best), data.train)


def test_regression_answers_in_the_labels_own_unit(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    for name in ("train.csv", "dev.csv"):
        path = tmp_path / "data" / name
        path.write_text(path.read_text().replace(",good", ",130").replace(",bad", ",90"))
    study = run(toy.settings(tmp_path, replace(task, kind=TaskKind.regression), seeds=1))
    values = study.arms[0].summary["seeds"][0]["values"]
    assert values["pearson"] > 0.9
    assert values["rmse"] < 15
    predictions = study.arms[0].predictions[0]
    assert predictions.labels == []
    assert 70 < predictions.predicted.min() < predictions.predicted.max() < 150


def test_pairs_are_told_apart_by_their_segments(tmp_path: Path) -> None:
    """The label says which of the two texts is the good one: only whoever keeps the segments apart can know."""
    toy.lay_foundation(tmp_path)
    task = replace(toy.lay_task(tmp_path / "data"), text_pair="other", metric=Metric.matthews)
    draws = np.random.default_rng(3)
    for name, n in (("train.csv", 400), ("dev.csv", 60)):
        rows = [(str(draws.choice(toy.GOOD)), str(draws.choice(toy.BAD))) for _ in range(n)]
        lines = [f"{a} film,{b} plot,first" if n % 2 else f"{b} film,{a} plot,second" for n, (a, b) in enumerate(rows)]
        (tmp_path / "data" / name).write_text("text,other,label\n" + "\n".join(lines) + "\n")
    study = run(toy.settings(tmp_path, task, seeds=1))
    assert study.arms[0].summary["mean"] > 0.9


def test_what_cannot_be_read_back_is_noticed(runs: Path) -> None:
    folder = runs / "small/finetune/toy/full/seed-0/final"
    model = load_finetuned(folder, torch.device("cpu"), batch_rows=8, precision=Precision.fp32)
    few = load_task(model.how.task, runs).dev.take(np.array([0, 1]))
    assert check_reload(model, folder, few) == 0
    with torch.no_grad():
        model.objective.heads.out.bias += 1e-3
    with pytest.raises(RuntimeError, match=r"does not answer as the model .*: outputs differ by 0.00"):
        check_reload(model, folder, few)


def test_summaries_by_hand() -> None:
    assert summarize([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": pytest.approx(7**0.5), "median": 2.0, "max": 6.0}
    assert summarize([1.0])["std"] is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": 0}, "seeds=0 must be at least 1"),
        ({"epochs": 0, "batch_rows": 0}, "epochs=0 must be at least 1; batch_rows=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"max_train": 1}, "max_train=1 must be at least 2"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"selection_share": 0.0}, "selection_share=0.0 must be between 0 and 1"),
        ({"compare": "small"}, "compare=small is the foundation itself"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy.settings(tmp_path, toy.lay_task(tmp_path), **changed).check()


# Tasks on a user's file, which has to be named.
OWN_FILES = ("csv", "multilabel_csv", "conll", "squad_file", "multiple_choice_file", "retrieval_file")


@pytest.mark.parametrize("task", sorted(path.stem for path in (conf_folder() / "task").glob("*.yaml")))
def test_every_task_file_composes_and_passes_its_checks(task: str) -> None:
    register(FinetuneConfig, "finetune")
    extra = ["task.train=a.csv"] if task in OWN_FILES else []
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("finetune", [f"task={task}", *extra]), FinetuneConfig)
    cfg.check()
    assert cfg.task.name == task


def test_the_command_line_ends_a_mistake_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "foundation.finetune", "task=csv", "task.train=a.csv", f"runs_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no foundation small: ")
    assert "Traceback" not in done.stderr
