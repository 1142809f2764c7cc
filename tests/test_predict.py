"""Asking a fine-tuned model: every format, the order, and agreement with what fine-tuning stored."""

import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.serving.config import PredictConfig
from foundation.serving.predict import ahead, predict
from foundation.task.answer import find_model
from foundation.task.config import TaskKind
from foundation.task.predictions import read_predictions
from foundation.task.protocol import finetune
from foundation.train.config import TrainerConfig
from tests.task import toy

CPU = TrainerConfig(device="cpu", threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts, one of pairs, and one of numbers, none of them well trained."""
    folder = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(folder)
    task = toy.lay_task(folder / "data")
    (folder / "pairs").mkdir()
    (folder / "numbers").mkdir()
    for name in ("train.csv", "dev.csv"):
        lines = (folder / "data" / name).read_text().splitlines()[1:]
        pairs = [line.replace(" ", ",", 1) for line in lines]
        (folder / "pairs" / name).write_text("a,b,label\n" + "\n".join(pairs))
        numbers = [line.replace(",good", ",7").replace(",bad", ",5") for line in lines]
        (folder / "numbers" / name).write_text("text,label\n" + "\n".join(numbers))
    pairs = replace(task, name="pairs", text="a", text_pair="b", local=[str(folder / "pairs")])
    numbers = replace(task, name="numbers", kind=TaskKind.regression, local=[str(folder / "numbers")])
    for one, seeds in ((task, 2), (pairs, 1), (numbers, 1)):
        cfg = toy.settings(folder, one, seeds=seeds, epochs=1)
        finetune(cfg, to_plain(cfg))
    return folder / "small" / "finetune"


def ask(run: Path | list[Path], folder: Path, name: str, content: str, **settings: object) -> list[dict]:
    (folder / name).write_text(content)
    which = [str(one) for one in run] if isinstance(run, list) else str(run)
    cfg = PredictConfig(run=which, input=str(folder / name), output=str(folder / "out.jsonl"), trainer=CPU)
    predict(replace(cfg, **settings))
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("chunk_rows", [1024, 7])
def test_answers_agree_with_what_fine_tuning_stored(runs: Path, tmp_path: Path, chunk_rows: int) -> None:
    folder = runs / "toy" / "full"
    stored = read_predictions(folder / "predictions.parquet")[0]
    dev = (runs.parent.parent / "data" / "dev.csv").read_text()
    answers = ask(folder, tmp_path, "dev.csv", dev, chunk_rows=chunk_rows)
    assert [answer["text"] for answer in answers] == [line.split(",")[0] for line in dev.splitlines()[1:]]
    assert [answer["label"] for answer in answers] == [stored.labels[int(k)] for k in stored.predicted]
    shares = np.array([[answer["probabilities"][label] for label in stored.labels] for answer in answers])
    assert np.abs(shares - stored.probabilities).max() < 1e-5


def test_every_format_gives_the_same_answers(runs: Path, tmp_path: Path) -> None:
    texts = ["a good film", "the plot was bad , awful", "a", "good " * 30]
    folder = runs / "toy" / "full"
    plain = ask(folder, tmp_path, "a.txt", "\n".join(texts) + "\n")
    assert [answer["text"] for answer in plain] == texts
    quoted = "text\n" + "\n".join(f'"{text}"' for text in texts)
    assert ask(folder, tmp_path, "a.csv", quoted) == plain
    assert ask(folder, tmp_path, "a.jsonl", "\n".join(json.dumps({"text": text}) for text in texts)) == plain
    other = "\n".join(json.dumps({"review": text, "n": 1}) for text in texts)
    assert ask(folder, tmp_path, "b.dat", other, format="jsonl", text="review") == plain


def test_empty_lines_are_answered_too(runs: Path, tmp_path: Path) -> None:
    answers = ask(runs / "toy" / "full", tmp_path, "a.txt", "good\n\nbad\n")
    assert [answer["text"] for answer in answers] == ["good", "", "bad"]
    assert ask(runs / "toy" / "full", tmp_path, "a.txt", "") == []


def test_standard_input_and_output(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a good film\ncafé\n".encode())))
    predict(PredictConfig(run=str(runs / "toy" / "full"), input="-", trainer=CPU))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["a good film", "café"]
    assert lines[0].keys() == {"text", "label", "probabilities"}


def test_answers_can_be_read_before_the_next_question_is_asked(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    read, write = os.pipe()
    with open(read) as source, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(sys, "stdin", source)
        cfg = PredictConfig(run=str(runs / "toy" / "full"), input="-", output=str(out), chunk_rows=1, trainer=CPU)
        with open(write, "w") as questions:
            done = pool.submit(predict, cfg)
            print("a good film", file=questions, flush=True)
            last = time.monotonic() + 20
            while not (part.exists() and part.read_text()) and time.monotonic() < last:
                time.sleep(0.01)
            answered = part.read_text()
        done.result()
    assert json.loads(answered)["text"] == "a good film"
    assert out.read_text() == answered


def test_rows_that_are_longer_than_the_model_reads_are_counted(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(runs / "toy" / "full", tmp_path, "a.txt", "good\n" + "bad film " * 100 + "\nbad\n", chunk_rows=2)
    assert "toy: 1 of 3 rows are longer than 12 tokens" in capsys.readouterr().err


def test_answers_never_cost_a_file_that_was_there(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = runs / "toy" / "full", tmp_path / "out.jsonl"
    questions = json.dumps({"text": "a good film"}) + "\n"
    with pytest.raises(UserError, match=r"is the input itself, and would take its place"):
        ask(folder, tmp_path, "out.jsonl", questions)
    assert out.read_text() == questions
    with pytest.raises(UserError, match="no file at"):
        predict(PredictConfig(run=str(folder), input=str(tmp_path / "typo.txt"), output=str(out), trainer=CPU))
    assert out.read_text() == questions and not out.with_name("out.jsonl.part").exists()
    with pytest.raises(UserError, match=r"a\.jsonl:2: not valid JSON"):
        ask(folder, tmp_path, "a.jsonl", questions + "{\n", chunk_rows=1)
    part = out.with_name("out.jsonl.part")
    assert out.read_text() == questions and json.loads(part.read_text())["text"] == "a good film"
    assert f"the answers before this are in {part}" in capsys.readouterr().err


def test_pairs_and_numbers(runs: Path, tmp_path: Path) -> None:
    answers = ask(runs / "pairs" / "full", tmp_path, "a.csv", "a,b\ngood,film\n")
    assert (answers[0]["text"], answers[0]["text_pair"]) == ("good", "film")
    answers = ask(runs / "pairs" / "full", tmp_path, "a.tsv", "x\ty\ngood\tfilm\n", text="x", text_pair="y")
    assert answers[0]["probabilities"].keys() == {"good", "bad"}
    answers = ask(runs / "numbers" / "full", tmp_path, "a.txt", "a good film\n")
    assert 3 < answers[0]["value"] < 9


def test_a_folder_a_seed_or_a_final_can_be_named(runs: Path, tmp_path: Path) -> None:
    folder = runs / "toy" / "full"
    assert find_model(folder) == folder / "seed-0" / "final"
    assert find_model(folder / "seed-1") == folder / "seed-1" / "final"
    assert find_model(folder / "seed-1" / "final") == folder / "seed-1" / "final"
    with pytest.raises(UserError, match=r"there is no fine-tuned model in .*: make one with"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("task", "name", "content", "settings", "words"),
    [
        ("toy", "a.csv", "review\nx\n", {}, r"a.csv:2: there is no column 'text': the columns are review"),
        ("toy", "a.csv", "text\nx\n", {"text_pair": "b"}, r"task toy is about single texts: leave out text_pair=b"),
        ("toy", "a.doc", "x\n", {}, r"a.doc cannot be read: give a file in one of csv, tsv, jsonl, txt"),
        ("pairs", "a.txt", "x\n", {}, r"task pairs is about pairs of texts: give csv, tsv or jsonl with two columns"),
        ("pairs", "a.csv", "a\nx\n", {}, r"a.csv:2: there is no column 'b'"),
        (
            "toy",
            "a.txt",
            "x\n",
            {"output": "/proc/none/out"},
            r"cannot write /proc/none/out .*: choose another output=",
        ),
    ],
)
def test_what_cannot_be_answered_is_said(
    runs: Path, tmp_path: Path, task: str, name: str, content: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        ask(runs / task / "full", tmp_path, name, content, **settings)


def test_a_foundation_without_a_task_cannot_answer(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a foundation without a task: fine-tune it first with"):
        ask(runs.parent / "final", tmp_path, "a.txt", "x\n")


def test_the_shipped_settings_compose() -> None:
    register(PredictConfig, "predict")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("predict", ["run=a", "input=-"]), PredictConfig)
    cfg.check()
    assert (cfg.run, cfg.output, cfg.format) == ("a", "-", None)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match="batch_tokens=0 must be at least 1; chunk_rows=0 must be at least 1"):
        PredictConfig(run="r", input="-", batch_tokens=0, chunk_rows=0, trainer=CPU).check()


def test_several_tasks_answer_each_under_its_name(runs: Path, tmp_path: Path) -> None:
    both = [runs / "toy" / "full", runs / "numbers" / "full"]
    content = "a good film\nthe plot was bad\n"
    together = ask(both, tmp_path, "a.txt", content)
    for name, run in zip(("toy", "numbers"), both, strict=True):
        alone = ask(run, tmp_path, "a.txt", content)
        assert [{"text": line["text"], **line[name]} for line in together] == alone
    assert together[0].keys() == {"text", "toy", "numbers"}


def test_a_task_about_other_texts_shows_them_in_its_answer(runs: Path, tmp_path: Path) -> None:
    both = [runs / "toy" / "full", runs / "pairs" / "full"]
    line = ask(both, tmp_path, "a.csv", "text,a,b\ngood,bad,film\n")[0]
    assert line["text"] == "good"
    assert (line["pairs"]["text"], line["pairs"]["text_pair"]) == ("bad", "film")
    assert line["toy"].keys() == {"label", "probabilities"}


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ([], r"run=\[\] must be a folder, or several of them in brackets"),
        ({"a": "b"}, r"must be a folder, or several"),
        (["a", "a"], r"run=\[a, a\] names a folder twice"),
    ],
)
def test_runs_that_make_no_list_are_refused(run: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        PredictConfig(run=run, input="-", trainer=CPU).check()


def test_what_is_prepared_ahead_keeps_its_order_and_its_errors() -> None:
    assert list(ahead(lambda n: n * n, range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda n: 1 // n, [2, 1, 0]))
