"""Suites and few-shot curves from end to end on toys: what is run, what is left out, what is said."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from foundation.config import conf_folder
from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.task import load, start
from foundation.task.config import TaskConfig
from foundation.task.few_shot import few_shot
from foundation.task.interval import Differences, macro_differences
from foundation.task.kinds.texts import Classification
from foundation.task.load import load_task
from foundation.task.protocol import Asked
from foundation.task.rows import choose_rows, nested_order
from foundation.task.study_config import FinetuneConfig, Keep, SuiteConfig
from foundation.task.suite import Member, SuiteResult, run_suite
from foundation.task.suite_table import aligned
from tests.task import toy
from tests.test_sharing import shared


def member(runs: Path, task: TaskConfig, **changed: object) -> Member:
    cfg = toy.settings(runs, task, **changed)
    return Member(cfg, to_plain(cfg))


def two_tasks(folder: Path) -> list[TaskConfig]:
    """The second has the labels of the first turned round."""
    first = toy.lay_task(folder / "first")
    toy.lay_task(folder / "second", 120)
    for name in ("train.csv", "dev.csv"):
        path = folder / "second" / name
        path.write_text(path.read_text().replace(",good", ",x").replace(",bad", ",good").replace(",x", ",bad"))
    return [replace(first, name="first"), replace(first, name="second", local=[str(folder / "second")])]


ABSENT = TaskConfig(name="absent", train="train.csv", local=["nowhere"], hub="nobody/nothing")


@pytest.fixture(autouse=True, scope="module")
def _no_hub() -> Iterator[None]:
    """The hub gives nothing, at once."""

    def nothing(name: str, *_: object) -> NoReturn:
        raise UserError(f"the hub gave no {name}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "read_hub", nothing)
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SuiteResult]:
    """Two tasks under two ways of sharing, against scratch, and a third task whose data are nowhere."""
    runs = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(runs)
    members = [
        member(runs, task, compare="scratch", sharing=sharing, seeds=1, epochs=4)
        for sharing in (toy.settings(runs, ABSENT).sharing, shared("lora"))
        for task in (*two_tasks(runs / "data"), ABSENT)
    ]
    return runs, run_suite("pair", members)


def test_every_task_is_run_under_every_method(suite: tuple[Path, SuiteResult]) -> None:
    runs, result = suite
    assert {method: list(of) for method, of in result.studies.items()} == {
        m: ["first", "second"] for m in ("full", "lora")
    }
    for task in ("first", "second"):
        for arm in ("full", "lora", "scratch"):
            assert (runs / f"small/finetune/{task}/{arm}/seed-0/scores.json").is_file()


def test_a_task_without_data_is_left_out_with_its_reason(suite: tuple[Path, SuiteResult]) -> None:
    runs, result = suite
    assert list(result.left_out) == ["absent"]
    assert "nobody/nothing" in result.left_out["absent"]
    assert read_json(runs / "small/finetune/pair/methods/suite.json")["left_out"] == result.left_out


def test_bytes_are_shared_where_the_encoder_is(suite: tuple[Path, SuiteResult]) -> None:
    _, result = suite
    assert result.degrees["full"] == 0
    assert 0.8 < result.degrees["lora"] < 1


def test_the_files_have_a_row_a_method_task_and_arm(suite: tuple[Path, SuiteResult]) -> None:
    runs, _ = suite
    folder = runs / "small/finetune/pair/methods"
    with (folder / "suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {(row["sharing"], row["task"], row["arm"]) for row in rows} >= {("lora", "second", "small/lora")}
    assert float(rows[0]["mean"]) > 0.9
    macro = read_json(folder / "suite.json")["macro"]
    assert macro["full"]["low"] <= macro["full"]["difference"] <= macro["full"]["high"]


def test_only_missing_cells_are_run_and_the_table_comes_out_again(
    suite: tuple[Path, SuiteResult], capsys: pytest.CaptureFixture[str]
) -> None:
    runs, _ = suite
    tasks = two_tasks(runs / "data")
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("seed-*/scores.json")}
    run_suite("pair", [member(runs, task, compare="scratch", seeds=1, epochs=4) for task in tasks])
    said = capsys.readouterr().out
    assert "first/small/full: seed 0 is there already" in said
    assert "average of 2" in said
    assert "small/full − small/scratch" in said
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("seed-*/scores.json")} == before
    assert (runs / "small/finetune/pair/full/suite.json").is_file()


def test_data_that_are_there_and_wrong_are_said_before_any_training(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    tasks = [replace(task, hub="somebody/something") for task in two_tasks(tmp_path / "data")]
    (tmp_path / "data/second/dev.csv").write_text("text,label\na film,unheard\n")
    with pytest.raises(UserError, match=r"dev.csv:2: label 'unheard' is not in"):
        run_suite("pair", [member(tmp_path, task) for task in tasks])
    assert not list(tmp_path.rglob("seed-*"))


def test_a_suite_without_any_data_is_refused(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    with pytest.raises(UserError, match=r"none of absent has data"):
        run_suite("pair", [member(tmp_path, ABSENT)])


def test_a_task_starts_from_the_encoder_of_its_parent_seed_by_seed(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    members = [member(tmp_path, task, seeds=2, epochs=1) for task in two_tasks(tmp_path / "data")]
    result = run_suite("pair", members, parents={"second": "first"})
    parent, child = (result.studies["full"][task].arms[0] for task in ("first", "second"))
    assert child.folder.name == "full-after-first"
    made = [read_json(parent.folder / f"seed-{seed}/final/config.json")["fingerprint"] for seed in (0, 1)]
    assert [run.foundation for run in child.predictions] == made
    info = read_json(child.folder / "seed-1/final/config.json")
    assert info["parent"] == made[1]
    assert info["foundation"] == read_json(tmp_path / "small/final/config.json")["fingerprint"]


def test_a_task_whose_parent_has_no_data_is_left_out_and_so_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.lay_foundation(tmp_path)
    first, second = two_tasks(tmp_path / "data")
    third = replace(first, name="third")
    members = [member(tmp_path, task, seeds=1, epochs=1) for task in (ABSENT, first, second, third)]
    result = run_suite("four", members, parents={"second": "absent", "third": "second"})
    assert list(result.studies["full"]) == ["first"]
    assert result.left_out["second"] == "it starts from absent, which is left out"
    assert result.left_out["third"] == "it starts from second, which is left out"
    assert "third is left out: it starts from second" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["lora", "adapter", "prefix", "bitfit"])
def test_a_parent_whose_encoder_gets_weights_of_its_own_is_refused_before_it_is_trained(
    tmp_path: Path, method: str
) -> None:
    toy.lay_foundation(tmp_path)
    members = [member(tmp_path, task, sharing=shared(method)) for task in two_tasks(tmp_path / "data")]
    with pytest.raises(UserError, match=rf"second cannot start from first, .*sharing={method} adds weights"):
        run_suite("pair", members, parents={"second": "first"})
    assert not list(tmp_path.rglob("seed-*"))


def test_random_weights_have_no_parent(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    members = [member(tmp_path, task, foundation="scratch") for task in two_tasks(tmp_path / "data")]
    with pytest.raises(UserError, match=r"foundation=scratch starts from nothing, and second from first: leave out"):
        run_suite("pair", members, parents={"second": "first"})


def test_a_parent_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    with pytest.raises(UserError, match=r"no finished fine-tune mnli .*foundation.finetune task=mnli foundation=small"):
        run_suite("pair", [member(tmp_path, toy.lay_task(tmp_path / "data"), parent="mnli")])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tasks": []}, "task.tasks must name tasks, each once"),
        ({"tasks": ["a", "a"]}, "task.tasks must name tasks, each once"),
        ({"tasks": ["a"], "train": "x.csv"}, "a suite has no data of its own: leave out task.train"),
        ({"tasks": ["a"], "parents": {"a": "b"}}, "task.parents has a: b, and both must be among"),
        ({"tasks": ["a", "b"], "parents": {"a": "b", "b": "a"}}, "goes in a circle"),
        ({"tasks": ["a"], "settings": {"a": 5}}, "task.settings gives a 5: write settings, as in"),
        ({"tasks": ["a"], "settings": {"b": {"epochs": 2}}}, "task.settings has b, which must be among"),
        (
            {"tasks": ["a"], "settings": {"a": {"seeds": 2}}},
            "task.settings gives a seeds, which is none of those that a task may have: epochs,",
        ),
        *(
            (
                {"tasks": ["a"], "settings": {"a": own}},
                "task.settings gives a another way of sharing: that is .* methods=",
            )
            for own in ({"sharing": "lora"}, {"sharing": {"method": "probe"}}, {"sharing.method": "probe"})
        ),
    ],
)
def test_suites_that_cannot_be_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SuiteConfig(name="suite", **changed).check()


def test_parents_come_first() -> None:
    suite = SuiteConfig(name="suite", tasks=["c", "a", "b"], parents={"c": "b", "b": "a"})
    assert suite.in_order() == ["a", "b", "c"]


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    toy.lay_foundation(folder / "runs")
    for name, text in (("SST-2", "sentence\tlabel\n{}\n"), ("CoLA", "{}\n")):
        (folder / "data/glue" / name).mkdir(parents=True, exist_ok=True)
        row = "a fine film\t{label}" if name == "SST-2" else "x\t{label}\t*\ta fine film"
        rows = "\n".join(row.format(label=number % 2) for number in range(20))
        for part in ("train", "dev"):
            (folder / "data/glue" / name / f"{part}.tsv").write_text(text.format(rows))
    words = ("task=suite", "task.tasks=[sst2,cola]", "seeds=1", "epochs=1", "min_steps=0", "keep_models=false", *words)
    return subprocess.run(
        [sys.executable, "-m", "foundation.finetune", "logger.wandb=disabled", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_task_may_have_settings_of_its_own(tmp_path: Path) -> None:
    words = ["task.settings={cola: {epochs: 3, keep: best, max_train: null}}", "task.settings.cola.optim.lr=1e-4"]
    done = ask(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    found = {
        task: read_json(tmp_path / f"runs/small/finetune/{task}/full/scores.json")["config"]
        for task in ("sst2", "cola")
    }
    assert [found[task]["epochs"] for task in ("sst2", "cola")] == [1, 3]
    assert found["cola"]["keep"] == "best" and found["cola"]["max_train"] is None
    assert found["cola"]["optim"]["lr"] == 1e-4 != found["sst2"]["optim"]["lr"]


def test_what_is_said_of_a_suites_tasks_is_composed(tmp_path: Path) -> None:
    """Hydra alone takes a key that is not there yet for a mistake."""
    done = ask(tmp_path, "task.parents={cola: sst2}", "task.settings.cola.epochs=7", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    import yaml

    task = yaml.safe_load(done.stdout)["task"]
    assert task["parents"] == {"cola": "sst2"} and task["settings"] == {"cola": {"epochs": 7}}


def test_a_mistyped_setting_of_a_task_is_answered_before_anything_is_read(tmp_path: Path) -> None:
    done = ask(tmp_path, "task.settings={cola: {optim.lrr: 1e-4}}")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "optim.lrr" in done.stderr and "optim.lr" in done.stderr


def test_settings_of_one_way_of_sharing_are_not_dropped_where_several_are_compared(tmp_path: Path) -> None:
    done = ask(tmp_path, "methods=[probe,full]", "sharing.lr_scale=0.001")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "methods=[probe,full] takes each method as its YAML has it, and would drop sharing" in done.stderr


def test_a_setting_of_another_optimizer_is_answered_in_one_sentence(tmp_path: Path) -> None:
    done = ask(tmp_path, "task.settings={cola: {optim.muon_lr: 1e-4}}")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "optim.muon_lr is a setting of optim=muon | muon_finetune | " in done.stderr
    assert "and here optim is adamw_finetune: add optim=muon_finetune, or leave it out" in done.stderr


def test_the_tasks_of_every_suite_file_are_there() -> None:
    known = {path.stem for path in (conf_folder() / "task").glob("*.yaml")}
    import yaml

    suites = [yaml.safe_load((conf_folder() / f"task/{name}.yaml").read_text()) for name in ("glue", "six")]
    assert all(set(suite["tasks"]) <= known for suite in suites)


def test_glue_is_every_task_of_glue_but_wnli() -> None:
    import yaml

    tasks = yaml.safe_load((conf_folder() / "task/glue.yaml").read_text())["tasks"]
    assert sorted(tasks) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"]


def test_an_average_over_tasks_is_resampled_task_by_task() -> None:
    draws = np.random.default_rng(0)
    tasks = [Differences(mean, draws.normal(mean, 0.04, 20_000), 100, (3, 2)) for mean in (0.1, 0.3)]
    found = macro_differences(tasks).interval
    assert found.difference == pytest.approx(0.2)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.04 / 2**0.5, rel=0.05)
    assert (found.n_items, found.n_seeds) == (200, (3, 2))


def test_columns_stand_below_one_another() -> None:
    assert aligned([["a", "bb"], ["ccc", ""]]) == ["  a    bb", "  ccc"]


def test_every_beginning_of_an_order_has_the_labels_in_their_shares() -> None:
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    for draw in range(3):
        order = nested_order(labels, draw)
        assert sorted(order) == list(range(1000))
        for n in (8, 100, 333):
            counts = np.bincount(labels[order[:n]], minlength=3)
            assert np.abs(counts - n * np.array([0.7, 0.25, 0.05])).max() <= 1
    assert not np.array_equal(nested_order(labels, 0), nested_order(labels, 1))


def test_shards_are_disjoint_and_hold_all_rows_with_their_labels(tmp_path: Path) -> None:
    task = toy.lay_task(tmp_path / "data")
    train = load_task(task, tmp_path).train
    parts = [choose_rows(toy.settings(tmp_path, task, shard=f"{i}/3"), train)[0] for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [80, 80, 80]
    assert {name for part in parts for name in part.ids} == set(train.ids)
    assert all(abs(part.labels.mean() - 0.5) < 0.02 for part in parts)
    few, _ = choose_rows(toy.settings(tmp_path, task, shard="2/3", max_train=10, subset=1), train)
    assert set(few.ids) < set(parts[1].ids)


def test_a_shard_is_part_of_an_arms_name_and_of_its_predictions(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), shard="1/2", seeds=1, epochs=1)
    study = run_suite("one", [Member(cfg, to_plain(cfg))]).studies["full"]["toy"]
    assert study.arms[0].folder.name == "full-shard-1-of-2"
    assert study.arms[0].predictions[0].data_shard == "1/2"
    assert study.arms[0].summary["rows"]["train"] == 120


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shard": "3/2"}, "shard=3/2 must be i/k with i from 1 to k"),
        ({"shard": "half"}, "shard=half must be i/k"),
        ({"n_train": ["1"]}, "n_train has 1: sizes are at least 2, or full"),
        ({"n_train": ["8"], "max_train": 8}, "n_train and max_train both say how many rows"),
        ({"n_train": ["8"], "methods": ["lora"]}, "methods and n_train are two different studies"),
        ({"patience": 2}, "patience=2 needs keep=best"),
        ({"foundation": "scratch", "parent": "mnli"}, "foundation=scratch starts from nothing: leave out parent=mnli"),
        ({"layer_lr_decay": 0.0}, r"layer_lr_decay=0.0 must be in \(0, 1\]"),
        (
            {"reinit_layers": 1, "sharing": shared("lora")},
            "reinit_layers=1 makes layers random that sharing=lora never",
        ),
        ({"reinit_layers": -1}, "reinit_layers=-1 must be at least 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy.settings(tmp_path, toy.lay_task(tmp_path), **changed).check()


def settings_of_few_shot(folder: Path, **changed: object) -> FinetuneConfig:
    toy.lay_foundation(folder)
    task = toy.lay_task(folder / "data")
    few: dict[str, object] = {"n_train": ["8", "full"], "n_subsets": 2, "seeds": 1, "epochs": 3, "min_steps": 20}
    return toy.settings(folder, task, **(few | {"compare": "scratch"} | changed))


def test_a_few_shot_curve_is_run_drawn_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settings_of_few_shot(tmp_path)
    first = few_shot(cfg, to_plain(cfg))
    assert first.arms[0].sizes == [8, 240]
    assert [[cell.shape for cell in values] for values in first.values] == [[(2, 1), (1, 1)]] * 2
    folder = tmp_path / "small/finetune/toy/few-shot-full"
    assert (folder / "few_shot.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "few_shot.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (2 + 1)
    assert not list(tmp_path.rglob("seed-*/final"))
    said = capsys.readouterr().out
    assert "labels to match" in said
    assert "data advantage" in said
    again = few_shot(cfg, to_plain(cfg))
    assert "seed 0 is there already" in capsys.readouterr().out
    assert all(
        np.array_equal(a, b) for x, y in zip(first.values, again.values, strict=True) for a, b in zip(x, y, strict=True)
    )


def rows_of_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "small/finetune/toy/few-shot-full/few_shot.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_curve_has_the_seeds_that_all_draws_of_a_size_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brief: dict[str, object] = {"n_train": ["8"], "compare": None, "min_steps": 2, "epochs": 1}
    for changed in ({"n_subsets": 1, "seeds": 2}, {"n_subsets": 2, "seeds": 1, "seed": 1}):
        cfg = settings_of_few_shot(tmp_path, **brief, **changed)
        result = few_shot(cfg, to_plain(cfg))
    assert [cell.shape for cell in result.values[0]] == [(2, 1)]
    assert [(row["draw"], row["seed"]) for row in rows_of_table(tmp_path)] == [("0", "1"), ("1", "1")]
    line = next(line for line in capsys.readouterr().out.splitlines()[::-1] if line.startswith("  8 "))
    assert line.split()[:4] == ["8", "2", "×", "1"]


def test_a_curve_reads_the_foundation_and_encodes_the_reported_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[object] = []

    def noted(of: Callable[..., Any], what: Callable[..., object]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            done.append(what(*given))
            return of(*given, **named)

        return call

    monkeypatch.setattr(start, "load_foundation", noted(start.load_foundation, lambda path: path.parent.name))
    monkeypatch.setattr(Classification, "encode", noted(Classification.encode, lambda _kind, rows, *_: len(rows)))
    cfg = settings_of_few_shot(tmp_path, n_train=["8", "20"], min_steps=2, epochs=1)
    few_shot(cfg, to_plain(cfg))
    # Two sizes by two draws by two arms.
    assert sorted(done, key=str) == sorted(["small", 60, *[8] * 4, *[20] * 4], key=str)
    assert capsys.readouterr().out.count("toy: labels: bad (120), good (120)") == 1
    toy.lay_foundation(tmp_path, seed=1)
    made_anew = read_json(tmp_path / "small/final/config.json")["fingerprint"]
    assert start.find_start("small", cfg).foundation.fingerprint == made_anew
    assert done.count("small") == 2


def test_every_draw_of_a_size_has_rows_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Asked] = []

    def refuse(studies: list[Asked], _device: object) -> NoReturn:
        asked.extend(studies)
        raise UserError("no cell is run: what is asked for tells")

    monkeypatch.setattr("foundation.task.few_shot.run_studies", refuse)
    cfg = settings_of_few_shot(tmp_path, n_train=["8"], n_subsets=3, compare=None)
    with pytest.raises(UserError, match="no cell is run"):
        few_shot(cfg, to_plain(cfg))
    assert [study.settings["subset"] for study in asked] == [0, 1, 2]
    drawn = [frozenset(choose_rows(study.cfg, study.data.train)[0].ids) for study in asked]
    assert [len(ids) for ids in drawn] == [8] * 3
    assert len(set(drawn)) == 3


def test_seeds_of_earlier_commands_are_named_as_they_are(tmp_path: Path) -> None:
    brief: dict[str, object] = {"n_train": ["8"], "compare": None, "min_steps": 2, "epochs": 1, "n_subsets": 1}
    for seed in (0, 5):
        cfg = settings_of_few_shot(tmp_path, **brief, seed=seed)
        few_shot(cfg, to_plain(cfg))
    assert [row["seed"] for row in rows_of_table(tmp_path)] == ["0", "5"]


def test_all_rows_are_all_rows_also_where_some_pick_the_epoch(tmp_path: Path) -> None:
    cfg = settings_of_few_shot(tmp_path, n_train=["20", "full"], keep=Keep.best, n_subsets=1, compare=None, epochs=1)
    assert few_shot(cfg, to_plain(cfg)).arms[0].sizes == [20, 240]
    scores = read_json(tmp_path / "small/finetune/toy/few-shot-full/n-240-draw-0/scores.json")
    assert scores["rows"]["train"] == 240 - 24


def test_few_rows_are_trained_on_for_min_steps(tmp_path: Path) -> None:
    cfg = settings_of_few_shot(tmp_path, n_train=["8"], n_subsets=1, compare=None)
    few_shot(cfg, to_plain(cfg))
    scores = read_json(tmp_path / "small/finetune/toy/few-shot-full/n-8-draw-0/seed-0/scores.json")
    assert scores["steps"] == 20


def test_more_rows_than_there_are_are_refused(tmp_path: Path) -> None:
    cfg = settings_of_few_shot(tmp_path, n_train=["8", "500"])
    with pytest.raises(UserError, match=r"n_train has 500, and toy has 240 training rows: use full for all"):
        few_shot(cfg, to_plain(cfg))


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(
        tmp_path, toy.lay_task(tmp_path / "data"), seeds=1, epochs=30, keep=Keep.best, patience=2, keep_models=False
    )
    seed = run_suite("one", [Member(cfg, to_plain(cfg))]).studies["full"]["toy"].arms[0].summary["seeds"][0]
    steps_per_epoch = 216 // 16 + 1
    assert seed["steps"] == (seed["epoch_kept"] + 2) * steps_per_epoch < 30 * steps_per_epoch
