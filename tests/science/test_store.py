"""A store is read whole or refused, with the rows named."""

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from foundation.core.errors import UserError
from foundation.science.conditions import conditions
from foundation.science.store import find_files, gather
from foundation.task.predictions import read_predictions, write_predictions
from tests.science import planted
from tests.science.stored import interrupt, lay_arm, lay_study
from tests.task import toy

FAILED = planted.failures(np.random.default_rng(0), (3, 2, 40))


def lay(runs: Path, **changed: object) -> None:
    """Two foundations; `changed` holds for the second."""
    lay_arm(runs, "one", FAILED[0])
    lay_arm(runs, "two", FAILED[1], **changed)


def test_what_was_predicted_is_what_is_gathered(tmp_path: Path) -> None:
    lay(tmp_path)
    task = gather([str(tmp_path)]).tasks["toy"]
    assert [str(model) for model in task.models] == [f"{n}/full seed {s}" for n in ("one", "two") for s in (0, 1)]
    assert np.array_equal(task.predicted_MN != task.gold_N, FAILED[:2].reshape(4, 40))
    assert np.array_equal(task.logits_MNK.argmax(axis=2), task.predicted_MN)
    assert (task.split, task.labels, len(task.item_ids)) == ("dev", ["no", "yes"], 40)


def test_items_are_matched_by_name_and_not_by_place(tmp_path: Path) -> None:
    lay(tmp_path)
    path = tmp_path / "two/finetune/toy/full/predictions.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    task = gather([str(tmp_path)]).tasks["toy"]
    by_name = {str(m): row for m, row in zip(task.models, task.predicted_MN != task.gold_N, strict=True)}
    assert np.array_equal(by_name["two/full seed 1"], FAILED[1][1])
    assert np.array_equal(task.logits_MNK.argmax(axis=2), task.predicted_MN)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"split": "test"}, r"two/full seed 0 \(.*\) answered split 'test', one/full seed 0 \(.*\) split 'dev'"),
        ({"labels": ["yes", "no"]}, r"two/full seed 0 .* has the labels \['yes', 'no'\], one/full seed 0"),
        (
            {"item_ids": [f"dev-{n + 2}" for n in range(40)]},
            r"two/full seed 0 .* lacks items dev-0, dev-1, which one/full seed 0 .* answered; "
            r".* answered items dev-40, dev-41, which .* did not",
        ),
        (
            {"item_ids": [f"dev-{max(n, 3)}" for n in range(40)]},
            "two/full seed 0 .* answers item dev-3 more than once",
        ),
        (
            {"gold": (np.arange(40) % 2 != (np.arange(40) == 7)).astype(float)},
            "two/full seed 0 .* and one/full seed 0 .* have different gold labels for item dev-7",
        ),
        ({"logits": np.full((40, 2), np.nan, np.float32)}, "has logits that are no numbers for items dev-0, dev-1"),
    ],
    ids=["split", "labels", "items", "twice", "gold", "logits"],
)
def test_models_that_contradict_each_other_are_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    lay(tmp_path, **changed)
    with pytest.raises(UserError, match=words):
        gather([str(tmp_path)])


def test_one_foundation_under_two_names_is_refused(tmp_path: Path) -> None:
    lay(tmp_path, foundation="fp-one")
    with pytest.raises(
        UserError, match=r"full seed 0 is there twice, in .*one.* and in .*two.*, as one and as two: one foundation"
    ):
        gather([str(tmp_path)])


def test_one_foundation_under_two_names_is_noticed_over_tasks(tmp_path: Path) -> None:
    lay_arm(tmp_path, "one", FAILED[0])
    lay_arm(tmp_path, "two", FAILED[1], task="other", foundation="fp-one")
    with pytest.raises(UserError, match=r"foundation fp-one is counted twice, as .* and as .*: leave one of them out"):
        gather([str(tmp_path)])


def test_a_copy_under_another_fingerprint_is_noticed_by_its_logits(tmp_path: Path) -> None:
    lay_arm(tmp_path, "one", FAILED[0])
    lay_arm(tmp_path / "elsewhere", "one", FAILED[0], foundation="fp-two")
    with pytest.raises(
        UserError, match="gave the same logits for every item: one foundation counted twice under two names"
    ):
        gather([str(tmp_path)])


def test_two_foundations_under_one_name_are_refused(tmp_path: Path) -> None:
    lay_arm(tmp_path, "one", FAILED[0])
    lay_arm(tmp_path, "one", FAILED[1], task="other", foundation="fp-new")
    with pytest.raises(
        UserError, match=r"one is two foundations, fp-.* in .* and fp-.* in .*: fine-tune again whichever"
    ):
        gather([str(tmp_path)])


def test_nothing_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no predictions below .*: make them with  python -m foundation.finetune"):
        gather([str(tmp_path)])
    (tmp_path / "predictions.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        gather([str(tmp_path)])


def test_seeds_count_once_and_alone_only_where_their_arm_was_interrupted(tmp_path: Path) -> None:
    arm = lay_arm(tmp_path, "one", FAILED[0])
    seed = lay_arm(tmp_path / "x", "one", FAILED[0]) / "predictions.parquet"
    (arm / "seed-0").mkdir()
    seed.rename(arm / "seed-0/predictions.parquet")
    assert find_files([str(tmp_path)]) == [arm / "predictions.parquet"]
    (arm / "predictions.parquet").unlink()
    assert find_files([f"{tmp_path}/o*"]) == [arm / "seed-0/predictions.parquet"]


def test_an_interrupted_scratch_arm_is_no_second_foundation(tmp_path: Path) -> None:
    lay_arm(tmp_path, "one", FAILED[0])
    scratch = lay_arm(tmp_path, "one", FAILED[1][:1], variant="scratch", foundation="random-0")
    interrupt(scratch, toy.lay_task(tmp_path / "data"))
    store = gather([str(tmp_path)])
    (model,) = [model for model in store.tasks["toy"].models if model.is_scratch]
    assert (model.foundation, model.scores["value"], model.folder) == ("random-0", 1 - FAILED[1][0].mean(), scratch)
    assert f"toy: one/scratch was interrupted, and its seed 0 is taken as what there is ({scratch})" in store.notes


def test_a_seed_that_is_named_alone_was_not_interrupted(tmp_path: Path) -> None:
    arm = lay_arm(tmp_path, "one", FAILED[0])
    run = read_predictions(arm / "predictions.parquet")[0]
    write_predictions(arm / "seed-0/predictions.parquet", [run])
    store = gather([str(arm / "seed-0")])
    assert [model.seed for model in store.tasks["toy"].models] == [0]
    assert store.notes == []


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    arm = lay_arm(tmp_path, "one", FAILED[0])
    interrupt(arm, toy.lay_task(tmp_path / "data"))
    (arm / "config.yaml").write_text("start: [")
    with pytest.raises(UserError, match=r"config\.yaml is not valid YAML .*: restore what the run wrote"):
        gather([str(tmp_path)])


def test_seeds_that_an_arm_has_not_collected_are_named(tmp_path: Path) -> None:
    arm = lay_arm(tmp_path, "one", FAILED[0])
    (arm / "seed-2").mkdir()
    (arm / "seed-2/predictions.parquet").write_bytes(b"")
    (note,) = gather([str(tmp_path)]).notes
    assert note == f"toy: one/full has not collected seed 2: the same foundation.finetune does ({arm})"


def test_conditions_keep_ways_of_sharing_apart(tmp_path: Path) -> None:
    lay_study(tmp_path)
    found = {(c.task.name, c.label): c for c in conditions(gather([str(tmp_path)]))}
    assert set(found) == {(task, kind) for task in ("first", "second") for kind in ("full", "probe", "scratch")}
    full, scratch = found["first", "full"], found["first", "scratch"]
    assert (full.answers.design.n_foundations, full.answers.design.n_seeds, full.is_scratch) == (4, 3, False)
    assert (scratch.answers.design.n_foundations, scratch.answers.design.n_seeds, scratch.is_scratch) == (3, 1, True)
    values = full.values()
    assert values is not None
    assert values[1] == pytest.approx(1 - full.answers.failed_MN[3:6].mean(axis=1))


def test_disjoint_data_is_a_condition_made_of_one_model_a_shard(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("one", "two", "six"):
        failed = planted.failures(draws, (1, 3, 40))[0]
        lay_arm(tmp_path, name, failed, variant="full-shard-1-of-3", sharing="full", data_shard="1/3")
        for part, row in ((2, 1), (3, 2)):
            folder = f"full-shard-{part}-of-3"
            lay_arm(
                tmp_path, name, failed[[row]], variant=folder, sharing="full", data_shard=f"{part}/3", seed=part - 1
            )
    found = {condition.label: condition for condition in conditions(gather([str(tmp_path)]))}
    assert set(found) == {"full, data 1/3", "full, data disjoint"}
    models = found["full, data disjoint"].models
    assert [(m.name, m.data_shard, m.seed) for m in models[:3]] == [
        ("one", "1/3", 0),
        ("one", "2/3", 1),
        ("one", "3/3", 2),
    ]
    assert found["full, data disjoint"].answers.design.keeps_seeds_apart
