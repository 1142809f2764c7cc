"""From stored predictions to the report: every file, every figure, and sentences that claim no more than is licensed."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.config import LoggerConfig, WandbMode
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.core.plain import to_plain
from foundation.science import figures
from foundation.science.conditions import conditions
from foundation.science.config import HomogenizeConfig
from foundation.science.items import length_bin, read_groups
from foundation.science.layers import INDEX_FILE, cka_table
from foundation.science.report import Report, homogenize, make_report, write_report
from foundation.science.store import gather
from foundation.science.tables import Table, show
from foundation.science.within_tasks import Analysed
from foundation.task.config import TaskConfig
from foundation.task.load import load_task
from tests.science import planted
from tests.science.stored import interrupt, lay_arm, lay_study
from tests.task import toy


def settings(folder: Path, **changed: object) -> HomogenizeConfig:
    defaults = {"runs": [str(folder / "runs")], "output": str(folder / "report"), "runs_dir": str(folder / "runs")}
    return HomogenizeConfig(**defaults | {"logger": LoggerConfig(wandb=WandbMode.disabled)} | changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A study of two tasks, with the texts of a real task file behind one of them."""
    folder = tmp_path_factory.mktemp("study")
    lay_study(folder / "runs", n=(4, 3, 60))
    task = toy.lay_task(folder / "data", n_dev=60)
    arm = folder / "runs/foundation0/finetune/first/full"
    summary = json.loads((arm / "scores.json").read_text())
    summary["config"] = {"task": to_plain(task)}
    summary["fingerprints"]["data"] = load_task(task, folder).fingerprint()
    write_json(arm / "scores.json", summary)
    cfg = settings(folder)
    cfg.check()
    return folder, homogenize(cfg, to_plain(cfg))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"report/tables/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_ratio_to_independence_never_stands_alone(made: tuple[Path, Report]) -> None:
    found = rows(made[0], "systemic_failure")
    assert {(row["task"], row["sharing"], row["k"]) for row in found} >= {
        ("first", "full", "2"),
        ("second", "probe", "3"),
    }
    for row in found:
        for name in ("N0 independence", "N1 difficulty", "N2 control", "ratio to N0", "ratio to N1", "ratio to N2"):
            # Two models of other foundations cannot show how often three fail together.
            is_open = "N1" in name and int(row["k"]) > int(row["foundations"]) - 1
            assert bool(row[name]) != is_open, name
    assert {row["sharing"] for row in found if not row["N1 difficulty"]} == {"scratch"}


def test_every_figure_of_a_table_names_what_it_stands_on(made: tuple[Path, Report]) -> None:
    for name in ("pairs", "systemic_failure", "variance", "methods", "sharing"):
        for row in rows(made[0], name):
            assert int(row["foundations"]) >= 1 and int(row["seeds"]) >= 1 and row["items"] == "60", name


def test_the_planted_defect_is_in_the_tables(made: tuple[Path, Report]) -> None:
    by_kind = {(r["task"], r["sharing"], r["measure"]): r for r in rows(made[0], "pairs")}
    probe = by_kind["first", "probe", "correctness difference"]
    assert float(probe["effect low"]) > 0
    assert probe["interval over"] == "foundations, items"
    assert float(probe["p"]) < 0.01
    assert float(probe["p"]) < float(probe["p Holm"]) <= 4 * float(probe["p"]) + 1e-12
    assert by_kind["first", "scratch", "correctness difference"]["shared"] == ""
    inheritance = {row["sharing"]: row for row in rows(made[0], "across_tasks")}
    full = inheritance["full"]
    assert (full["tasks"], full["foundations"], full["seeds"]) == ("2", "4", "3")
    assert float(full["σ² seed"]) > 0
    assert float(full["mean z"]) == pytest.approx(
        np.mean([float(r["z"]) for r in rows(made[0], "scores") if r["sharing"] == "full"])
    )
    assert inheritance["scratch"]["inheritance"] == ""


class _Page(HTMLParser):
    """What the page would ask of others, and whether its elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.asked += [link for link in links if not link.startswith(("#", "data:"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(made: tuple[Path, Report]) -> None:
    text = (made[0] / "report/report.html").read_text()
    page = _Page()
    page.feed(re.sub(r"<(path|use|rect|stop|image)([^>]*)/>", "", text))
    assert page.asked == []
    assert page.open == []
    assert text.count("<svg") == len(made[1].pictures) == 5


def test_the_texts_that_every_model_gets_wrong_are_shown(made: tuple[Path, Report]) -> None:
    folder, report = made
    first = [item for item in report.items if item["task"] == "first"]
    texts = {f"dev-{n}": text for n, (text, _) in enumerate(toy.sentences(60, 2))}
    assert first
    for item in first:
        assert item["text"] == texts[item["item"]]
        assert item["failed"] >= item["models"] / 2
        assert len(item["p"]) == item["models"] == len(report.models["first"]) == 24
        assert item["everyone"] == (item["failed"] == item["models"])
        assert item["groups"] == {"length": length_bin(item["text"])}
    assert any(
        "second: there is no scores.json" in note or "second: texts are not shown" in note for note in report.notes
    )
    embedded = re.search(r'id="data-items">(.*?)</script>', (folder / "report/report.html").read_text(), re.S)
    assert embedded is not None
    assert json.loads(embedded.group(1)) == report.items


def test_a_report_removes_its_own_files_and_no_others(tmp_path: Path) -> None:
    def report(table: str) -> Report:
        return Report([Table(table, "t", "n", ["a"], [[1]])], [], [], [], {}, [], [], "f")

    folder = tmp_path / "report"
    write_report(folder, report("first"), {})
    (folder / "tables/mine.csv").write_text("kept")
    write_report(folder, report("second"), {})
    assert sorted(path.name for path in (folder / "tables").iterdir()) == ["mine.csv", "second.csv"]
    assert json.loads((folder / "report.json").read_text())["files"] == ["report.html", "tables/second.csv"]


def test_a_folder_of_another_kind_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "report/tables").mkdir(parents=True)
    (tmp_path / "report/tables/thesis.csv").write_text("years of work")
    cfg = settings(tmp_path)
    with pytest.raises(UserError, match=r"report holds tables and no report.json that names them .* output=FOLDER"):
        homogenize(cfg, {})
    assert (tmp_path / "report/tables/thesis.csv").read_text() == "years of work"


def test_a_text_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    from foundation.science.report import page

    evil = "</script><script>alert(1)</script>"
    item = {
        "task": evil,
        "item": "a",
        "text": evil,
        "label": evil,
        "answer": "b",
        "groups": {},
        "failed": 1,
        "models": 1,
    }
    table = Table("t", evil, evil, ["a"], [[evil]])
    text = page(Report([table], [], [evil], [item | {"everyone": True, "p": [1]}], {evil: ["m"]}, [evil], [], "f"))
    assert "alert(1)</script>" not in text


def test_two_foundations_claim_nothing_about_the_procedure(tmp_path: Path) -> None:
    for p, failed_SN in enumerate(planted.failures(np.random.default_rng(0), (2, 2, 40))):
        lay_arm(tmp_path / "runs", f"foundation{p}", failed_SN)
    report = make_report(settings(tmp_path))
    assert "fewer than 3 foundations: about these ones only, and no p-value is licensed" in report.sentences[0]
    assert "permutation" not in report.sentences[0]
    pairs = next(table for table in report.tables if table.name == "pairs")
    place = pairs.columns.index("p")
    assert all(row[place] is None for row in pairs.rows)


def test_an_interval_over_items_only_is_called_that_beside_its_p(tmp_path: Path) -> None:
    """Four foundations, of which one has all the pairs of seeds: without it there is no shared arm."""
    for p, failed_SN in enumerate(planted.failures(np.random.default_rng(0), (4, 3, 60))):
        lay_arm(tmp_path / "runs", f"foundation{p}", failed_SN[: 1 if p else 3])
    report = make_report(settings(tmp_path))
    first = table(report, "pairs")[0]
    assert first["p"] is not None and first["interval over"] == "items"
    assert table(report, "systemic_failure")[0]["interval over"] == "items"
    assert "nothing is left to compare: its intervals are about these ones only" in report.sentences[0]


def test_a_matrix_stops_at_whole_ways_of_sharing_and_says_so(
    made: tuple[Path, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve models in full, twelve as probes, three of random weights; twenty-five find room."""
    monkeypatch.setattr(figures, "_MOST_MODELS", 25)
    found = [Analysed(c, [], [], None) for c in conditions(gather([str(made[0] / "runs")])) if c.task.name == "first"]
    drawn = {picture.name: picture for picture in figures.pictures(found, None)}["kappa_matrix"]
    assert drawn.caption.startswith("Error consistency of every pair of models, but for those of first: scratch. ")
    names = re.findall(r"<text[^>]*>([^<]*)</text>", drawn.svg)
    assert {"full", "probe"} <= set(names) and "scratch" not in names
    whole = next(picture for picture in made[1].pictures if picture.name == "kappa_matrix")
    assert whole.caption.startswith("Error consistency of every pair of models. ")


def test_sharing_pays_against_scratch_on_the_same_data(tmp_path: Path) -> None:
    """100 s of pretraining; a task takes 5 s, from scratch 25 s on a third of the data and 500 s on all."""
    good, bad = np.arange(40) % np.array([[8], [10]]) == 0, np.arange(40) % np.array([[3], [4]]) == 0
    lay_arm(tmp_path / "runs", "one", good, variant="full-shard-1-of-3", sharing="full", data_shard="1/3")
    write_json(tmp_path / "runs/one/run.json", {"result": {"training_seconds": 100}})
    for part, seconds in (("1/1", 500.0), ("1/3", 25.0)):
        folder = "scratch" if part == "1/1" else "scratch-shard-1-of-3"
        for seed in (0, 1):
            changed = {
                "foundation": f"random-{part}-{seed}",
                "data_shard": part,
                "seed": seed,
                "arm": f"s{seed}/{folder}",
            }
            arm = lay_arm(tmp_path / "runs", f"s{seed}", bad[[seed]], variant=folder, sharing="full", **changed)
            summary = json.loads((arm / "scores.json").read_text())
            record = summary["seeds"][0] | {"seed": seed, "seconds": seconds}
            write_json(arm / "scores.json", summary | {"seeds": [record], "fingerprints": {"start": "scratch-1"}})
    rows = {(row["sharing"], row["data"]): row for row in table(make_report(settings(tmp_path)), "sharing")}
    assert rows["scratch", "1/1"]["seconds a task"] == 500
    assert rows["full", "1/3"]["T*"] == 100 / (25 - 5)


def test_one_foundation_says_what_is_missing(tmp_path: Path) -> None:
    lay_arm(tmp_path / "runs", "one", planted.failures(np.random.default_rng(0), (1, 2, 40))[0], with_scores=False)
    notes = " ".join(make_report(settings(tmp_path)).notes)
    for words in ("shared and control arms cannot be compared", "one task only", "no scratch arm", "no scores.json"):
        assert words in notes


def table(report: Report, name: str) -> list[dict[str, object]]:
    found = next(one for one in report.tables if one.name == name)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_an_interrupted_arm_has_its_own_metric_and_stays_across_tasks(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(3, 2, 40), variants=("full",))
    arm = tmp_path / "runs/foundation1/finetune/first/full"
    for folder in (tmp_path / "runs").glob("*/finetune/first/full"):
        summary = json.loads((folder / "scores.json").read_text())
        seeds = [seed | {"value": 0.25} for seed in summary["seeds"]]
        write_json(folder / "scores.json", summary | {"metric": "matthews", "baseline": 0.0, "seeds": seeds})
    interrupt(arm, toy.lay_task(tmp_path / "data"))
    report = make_report(settings(tmp_path))
    first = next(row for row in table(report, "models") if row["task"] == "first")
    assert (first["metric"], first["score"]) == ("matthews", 0.25)
    (across,) = table(report, "across_tasks")
    assert (across["tasks"], across["foundations"], across["seeds"]) == (2, 3, 2)
    for seed in (0, 1):
        (arm / f"seed-{seed}/scores.json").unlink()
    report = make_report(settings(tmp_path))
    first = next(row for row in table(report, "models") if row["task"] == "first")
    assert first["metric"] == "accuracy" and first["score"] != 0.25
    assert any(
        note.startswith("across tasks, full: without first, of which a model has no scores") for note in report.notes
    )


def test_what_one_foundation_did_alone_leaves_the_others_in_place(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(4, 2, 40), variants=("full", "probe", "scratch"))
    extra = planted.failures(np.random.default_rng(5), (1, 2, 40))[0]
    lay_arm(tmp_path / "runs", "foundation0", extra, task="third")
    shutil.rmtree(tmp_path / "runs/foundation3/finetune/first/probe")
    lay_arm(tmp_path / "runs", "new", extra, task="first", variant="probe")
    report = make_report(settings(tmp_path))
    across = {row["sharing"]: row for row in table(report, "across_tasks")}
    assert (across["full"]["tasks"], across["full"]["foundations"]) == (2, 4)
    paired = [
        r for r in table(report, "methods") if (r["task"], r["sharing"], r["measure"]) == ("first", "probe", "accuracy")
    ]
    assert [(row["reference"], row["foundations"]) for row in paired] == [("full, 1/1", 3), ("scratch", 4)]
    for note in (
        "across tasks, full: without third, which foundation1, foundation2, foundation3 did not do",
        "across tasks, probe: without foundation3, new, which did not do every task",
        "first, probe − full: compared over the foundations that both have, without foundation3, new",
    ):
        assert note in report.notes


def test_the_legend_names_what_any_profile_shows(tmp_path: Path) -> None:
    """Three foundations cannot show the difficulty of triples, four can; the smaller study comes first."""
    lay_study(tmp_path / "runs", n=(3, 3, 60), tasks=("a",), variants=("full",))
    lay_study(tmp_path / "runs", n=(4, 3, 60), tasks=("b",), variants=("full",))
    drawn = {picture.name: picture.svg for picture in make_report(settings(tmp_path)).pictures}
    for label in ("shared foundation", "N0 independence", "N1 item difficulty", "N2 other foundations"):
        assert drawn["profile"].count(f">{label}<") == 1, label


def test_rows_that_cannot_be_are_named(tmp_path: Path) -> None:
    failed = planted.failures(np.random.default_rng(0), (5, 2, 40))
    for p, variant in enumerate(("full", "full", "probe", "scratch", "scratch")):
        lay_arm(tmp_path / "runs", f"foundation{p}", failed[p], variant=variant)
    assert {
        "toy, probe − full: not compared, since they have no foundation in common",
        "toy, full − scratch: not compared with fewer than 3 of each",
        "toy, probe − scratch: not compared with fewer than 3 of each",
    } <= set(make_report(settings(tmp_path)).notes)


def test_a_foundation_of_one_seed_is_named_where_it_cannot_count(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(3, 3, 40), variants=("full",))
    for task, n_seeds in (("first", 1), ("second", 2)):
        extra = planted.failures(np.random.default_rng(n_seeds), (2, 3, 40))
        lay_arm(tmp_path / "runs", "single", extra[0][:n_seeds], task=task)
        lay_arm(tmp_path / "runs", "two", extra[1][:2], task=task)
    report = make_report(settings(tmp_path))
    (across,) = table(report, "across_tasks")
    assert (across["foundations"], across["seeds"]) == (4, 2)
    assert "across tasks, full: without single, which has one seed where others have more" in report.notes


def lay_words(folder: Path, task: TaskConfig, groups: list[str]) -> None:
    """A fine-tune that answered three words of each of ten texts."""
    ids = [f"{group}:{n % 3}" for n, group in enumerate(groups)]
    failed = planted.failures(np.random.default_rng(0), (1, 2, 30))[0]
    arm = lay_arm(folder / "runs", "one", failed, item_ids=ids, groups=groups)
    summary = json.loads((arm / "scores.json").read_text())
    fingerprints = summary["fingerprints"] | {"data": load_task(task, folder).fingerprint()}
    write_json(arm / "scores.json", summary | {"config": {"task": to_plain(task)}, "fingerprints": fingerprints})


def test_words_are_shown_with_the_text_they_stand_in(tmp_path: Path) -> None:
    task = toy.lay_task(tmp_path / "data", n_dev=10)
    lay_words(tmp_path, task, [f"dev-{n // 3}" for n in range(30)])
    report = make_report(settings(tmp_path))
    texts = [text for text, _ in toy.sentences(10, 2)]
    assert report.items
    for item in report.items:
        text = texts[int(item["item"].split("-")[1].split(":")[0])]
        assert (item["text"], item["groups"]) == (text, {"length": length_bin(text)})
    assert not any("text" in note for note in report.notes)


def test_items_without_a_text_are_counted(tmp_path: Path) -> None:
    task = toy.lay_task(tmp_path / "data", n_dev=10)
    lay_words(tmp_path, task, [f"other-{n // 3}" for n in range(30)])
    assert (
        "toy: no text is shown for 30 of 30 items: its data have none for them" in make_report(settings(tmp_path)).notes
    )


def test_collapsed_seeds_are_counted_and_the_effect_is_given_without_them(tmp_path: Path) -> None:
    """Models that share nothing, and a foundation whose seeds both answer the same everywhere: that alone looks like sharing."""
    draws = np.random.default_rng(0)
    failed = draws.random((4, 2, 200)) < 0.2
    failed[3] = np.arange(200) % 2 == 1
    for p, failed_SN in enumerate(failed):
        lay_arm(tmp_path / "runs", f"foundation{p}", failed_SN)
        if p < 3:
            lay_arm(tmp_path / "others/runs", f"foundation{p}", failed_SN)
    report, others = make_report(settings(tmp_path)), make_report(settings(tmp_path / "others"))
    with_all, alone = (table(one, "pairs")[0] for one in (report, others))
    names = ("effect", "effect low", "effect high")
    assert with_all["effect"] > 0.1
    assert [with_all[name.replace("effect", "effect without collapsed")] for name in names] == [
        alone[name] for name in names
    ]
    assert (with_all["collapsed"], table(report, "models")[0]["collapsed"]) == ("2 of 8", "2 of 8")
    assert (alone["collapsed"], alone["effect without collapsed"]) == ("0 of 6", None)
    words = "2 of 8 models are no better than the constant answer, and without them the difference is "
    assert words + show(alone["effect"]) in report.sentences[0]
    assert "constant answer" not in others.sentences[0]


def test_copies_of_an_item_in_one_group_add_no_certainty(tmp_path: Path) -> None:
    """Five words of a sentence that are all right or all wrong say as much as one, against scratch too."""
    found = []
    for n_words in (1, 5):
        runs = tmp_path / str(n_words) / "runs"
        for variant, defect in (("full", 1.0), ("scratch", 0.0)):
            draws = np.random.default_rng(len(variant))
            for p, failed_SN in enumerate(planted.failures(draws, (3, 2, 60), defect=defect)):
                words = np.repeat(failed_SN, n_words, axis=1)
                groups = [f"dev-{n // n_words}" for n in range(words.shape[1])]
                lay_arm(runs, f"{variant}{p}", words, variant=variant, groups=groups)
        methods = next(table for table in make_report(settings(runs.parent)).tables if table.name == "methods")
        (row,) = [row for row in methods.rows if row[3] == "scratch"]
        found.append(row[5:8])
    assert found[0] == pytest.approx(found[1])


def test_an_unbalanced_grid_is_named(tmp_path: Path) -> None:
    failed = planted.failures(np.random.default_rng(0), (3, 2, 40))
    lay_arm(tmp_path / "runs", "whole", failed[0])
    lay_arm(tmp_path / "runs", "too", failed[1])
    lay_arm(tmp_path / "runs", "short", failed[2][:1])
    notes = make_report(settings(tmp_path)).notes
    assert "toy, full: the grid is unbalanced, and has no row in the table of variance: short has no seed 1" in notes


def test_groups_of_the_user_are_taken(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(3, 2, 40), variants=("full",))
    lines = [f"{task},dev-{n},{'north' if n % 4 < 2 else 'south'}" for task in ("first", "second") for n in range(40)]
    path = tmp_path / "groups.csv"
    path.write_text("task,item_id,region\n" + "\n".join(lines) + "\n")
    report = make_report(settings(tmp_path, groups=str(path)))
    groups = next(table for table in report.tables if table.name == "groups")
    assert {"north", "south", "gap"} <= {row[4] for row in groups.rows if row[3] == "region"}
    assert any(table.name == "group_outcomes" for table in report.tables)
    path.write_text("\n".join(["task,item_id,region", *lines[:-1]]) + "\n")
    with pytest.raises(UserError, match="grouping region says nothing of 1 items of task second, dev-39 among them"):
        make_report(settings(tmp_path, groups=str(path)))
    path.write_text("task,region\nfirst,north\n")
    with pytest.raises(UserError, match="groups need the columns task and item_id, and item_id is missing"):
        read_groups(str(path))


def test_specialists_are_held_against_the_rest(tmp_path: Path) -> None:
    lay_study(tmp_path / "runs", n=(4, 2, 40), tasks=("first",), variants=("full",))
    lay_arm(
        tmp_path / "runs", "mine-0", planted.failures(np.random.default_rng(7), (1, 2, 40), defect=0.1)[0], task="first"
    )
    report = make_report(settings(tmp_path, specialists={"first": "mine"}))
    (row,) = next(table for table in report.tables if table.name == "specificity").rows
    assert row[-2:] == [1, 4]


def test_representations_are_compared_with_their_anchors(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    base = {f: draws.normal(size=(3, 80, 8)) for f in ("a", "b")}
    entries = []
    for kind, foundation, task, seed, values in (
        ("foundation", "a", "", 0, base["a"]),
        ("foundation", "b", "", 0, base["b"]),
        ("finetuned", "a", "t", 0, base["a"] + 0.1 * draws.normal(size=(3, 80, 8))),
        ("finetuned", "a", "t", 1, base["a"] + 0.1 * draws.normal(size=(3, 80, 8))),
        ("finetuned", "b", "t", 2, base["b"]),
        ("random", "x", "", 0, draws.normal(size=(3, 80, 8))),
        ("random", "x", "", 1, draws.normal(size=(3, 80, 8))),
    ):
        name = f"{kind}-{foundation}-{seed}.npy"
        np.save(tmp_path / name, values.astype(np.float32))
        entries.append(
            {"file": name, "kind": kind, "foundation": foundation, "task": task, "variant": "full", "seed": seed}
        )
    write_json(tmp_path / INDEX_FILE, {"entries": entries})
    found: dict[object, list[float]] = {}
    for row in cka_table(tmp_path).rows:
        found.setdefault(row[0], []).append(row[2])
    assert min(found["foundation to its fine-tunes (drift)"]) > 0.95
    assert min(found["one foundation, two seeds"]) > 0.95
    assert max(map(abs, found["two foundations, one task"] + found["two untrained encoders (anchor)"])) < 0.15
    assert all(0.5 < value < 0.95 for value in found["itself under noise (anchor)"])
    with pytest.raises(UserError, match=r"no representations at .*: make them with  python -m foundation.represent"):
        cka_table(tmp_path / "none")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"runs": []}, r"runs is empty: name folders with predictions, as in  runs=\["),
        ({"sizes": []}, r"sizes is empty: name the k of .*, as in  sizes=\[2,3\]"),
        ({"sizes": [1, 2]}, r"sizes=\[1\] must be 2 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings(tmp_path, **changed).check()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tasks": ["frist"]}, "tasks has frist, and there is only first, second"),
        ({"tasks": ["first", "thrid"]}, "tasks has thrid, and there is only first, second"),
        ({"specialists": {"frist": "foundation0"}}, "specialists has frist, and there is only first, second"),
        (
            {"specialists": {"first": "mine"}},
            "specialists.first=mine: no foundation begins so, among those of first: foundation0, foundation1, foundation2",
        ),
    ],
)
def test_names_that_nothing_has_are_refused(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    lay_study(tmp_path / "runs", n=(3, 2, 30), variants=("full",))
    with pytest.raises(UserError, match=words):
        make_report(settings(tmp_path, **changed))


def test_the_settings_compose() -> None:
    register(HomogenizeConfig, "homogenize")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("homogenize", ["+specialists.imdb=reviews"]), HomogenizeConfig)
    cfg.check()
    assert cfg.specialists == {"imdb": "reviews"}


def test_the_command_line_ends_a_mistake_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "foundation.homogenize", f"runs=[{tmp_path}]", f"output={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no predictions below ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_numbers_are_shown_with_as_many_digits_as_can_be_read() -> None:
    assert [show(x) for x in (None, float("nan"), 0.0, 0.12345, 1e-5, 123.456, 12345.6, 7, "a")] == [
        "–", "–", "0.000", "0.123", "1.0e-05", "123.5", "12,346", "7", "a",
    ]  # fmt: skip
    assert [length_bin("w " * n) for n in (1, 5, 6, 100, 101)] == [
        "  1–5 words", "  1–5 words", "  6–10 words", " 51–100 words", "101+ words",
    ]  # fmt: skip
