"""Each kind of task from a user's file to answers: fine-tune, predict, and the same answers as were stored."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.serving.config import PredictConfig
from foundation.serving.predict import predict
from foundation.task.config import TagScheme, TaskConfig, TaskKind
from foundation.task.predictions import read_predictions
from foundation.task.protocol import finetune
from foundation.task.results import ArmResult, StudyResult
from foundation.train.config import TrainerConfig
from tests.task import toy

CPU = TrainerConfig(device="cpu", threads=1)


def learn(folder: Path, task: TaskConfig, **changed: object) -> StudyResult:
    toy.lay_foundation(folder)
    cfg = toy.settings(folder, replace(task, local=[str(folder)]), **{"seeds": 1, **changed})
    cfg.check()
    return finetune(cfg, to_plain(cfg))


def ask(arm: ArmResult, path: Path, **settings: object) -> list[dict]:
    out = path.with_suffix(".answers")
    predict(PredictConfig(run=str(arm.folder), input=str(path), output=str(out), trainer=CPU, **settings))
    return [json.loads(line) for line in out.read_text().splitlines()]


def jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_several_labels_a_row(tmp_path: Path) -> None:
    for name, n, purpose in (("train", 200, 1), ("dev", 40, 2)):
        rows = []
        for text, label in toy.sentences(n, purpose):
            has_film = "film" in text.split()
            rows.append({"text": text, "label": [label] + ["film"] * has_film})
        jsonl(tmp_path / f"{name}.jsonl", rows)
    task = TaskConfig(name="sets", kind=TaskKind.multilabel, train="train.jsonl", dev="dev.jsonl")
    arm = learn(tmp_path, task).arms[0]
    assert arm.summary["metric"] == "f1_micro"
    assert arm.summary["mean"] > 0.9
    answers = ask(arm, tmp_path / "dev.jsonl")
    stored = arm.predictions[0]
    assert len(stored) == 40 * 3
    said = stored.predicted.reshape(40, 3)
    assert [sorted(a["labels"]) for a in answers] == [
        [label for label, yes in zip(("bad", "film", "good"), row, strict=True) if yes] for row in said
    ]


TAGS = dict.fromkeys(toy.GOOD, "B-GOOD") | dict.fromkeys(toy.BAD, "B-BAD")


def lay_tags(path: Path, n: int, purpose: int) -> None:
    """A word of each sentence is an entity, and the word after it belongs to it where it is `plot`."""
    sentences = []
    for text, _ in toy.sentences(n, purpose):
        tags, before = [], "O"
        for word in text.split():
            inside = word == "plot" and before != "O"
            before = TAGS.get(word, f"I-{before[2:]}" if inside else "O")
            tags.append(before)
        sentences.append("\n".join(f"{w} {t}" for w, t in zip(text.split(), tags, strict=True)))
    path.write_text("\n\n".join(sentences) + "\n")


def test_tags_of_words(tmp_path: Path) -> None:
    lay_tags(tmp_path / "train.conll", 240, 1)
    lay_tags(tmp_path / "dev.conll", 60, 2)
    task = TaskConfig(
        name="tags", kind=TaskKind.tagging, scheme=TagScheme.bio, text="word", label="tag", train="train.conll",
        dev="dev.conll",
    )  # fmt: skip
    study = learn(tmp_path, task, compare="scratch", epochs=8)
    arm = study.arms[0]
    assert (arm.summary["metric"], arm.summary["baseline"]) == ("entity_f1", 0)
    assert arm.summary["mean"] > 0.8
    assert study.difference is not None
    stored = arm.predictions[0]
    assert stored.item_ids[0] == "dev-0:0"
    assert stored.n_groups == 60 < len(stored)
    answers = ask(arm, tmp_path / "dev.conll")
    assert [tag for a in answers for tag in a["tags"]] == [stored.labels[int(k)] for k in stored.predicted]
    (tmp_path / "lines.txt").write_text("a good plot\nthe film\n")
    told = ask(arm, tmp_path / "lines.txt")
    assert [a["words"] for a in told] == [["a", "good", "plot"], ["the", "film"]]
    assert told[0]["entities"][0]["label"] == "GOOD"


def lay_questions(path: Path, n: int, purpose: int) -> list[dict]:
    """Which word of the text is the good one, or the bad one?"""
    rows = []
    for number, (text, label) in enumerate(toy.sentences(n, purpose)):
        word = next(word for word in text.split() if word in toy.GOOD + toy.BAD)
        answers = [{"text": word, "answer_start": f" {text} ".index(f" {word} ")}]
        rows.append({"context": text, "qas": [{"id": f"q{purpose}-{number}", "question": label, "answers": answers}]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": rows}]}, indent=1))
    return rows


def test_answers_in_texts(tmp_path: Path) -> None:
    lay_questions(tmp_path / "train.json", 240, 1)
    rows = lay_questions(tmp_path / "dev.json", 40, 2)
    task = TaskConfig(
        name="answers", kind=TaskKind.question_answering, text="question", text_pair="context", label="answers",
        train="train.json", dev="dev.json",
    )  # fmt: skip
    arm = learn(tmp_path, task, epochs=6).arms[0]
    assert arm.summary["mean"] > 0.8 > arm.summary["baseline"]
    stored = read_predictions(arm.folder / "predictions.parquet")[0]
    answers = ask(arm, tmp_path / "dev.json")
    assert [a["id"] for a in answers] == stored.item_ids == [row["qas"][0]["id"] for row in rows]
    assert [a["answer"] for a in answers] == stored.predicted_text
    assert all(a["context"][a["start"] : a["end"]] == a["answer"] for a in answers)


def test_choices(tmp_path: Path) -> None:
    for name, n, purpose in (("train", 120, 1), ("dev", 30, 2)):
        draws = np.random.default_rng(purpose)
        rows = []
        for number in range(n):
            words = [str(draws.choice(toy.BAD)), str(draws.choice(toy.BAD))]
            words.insert(number % 3, str(draws.choice(toy.GOOD)))
            rows.append({"question": "the film was", "choices": words, "label": number % 3})
        jsonl(tmp_path / f"{name}.jsonl", rows)
    task = TaskConfig(
        name="choices",
        kind=TaskKind.multiple_choice,
        text="question",
        choices=["choices"],
        train="train.jsonl",
        dev="dev.jsonl",
    )
    arm = learn(tmp_path, task, epochs=4, trainer=TrainerConfig(device="cpu", threads=1, micro_batch_rows=7)).arms[0]
    assert arm.summary["mean"] > 0.9
    answers = ask(arm, tmp_path / "dev.jsonl")
    assert [a["choice"] for a in answers] == arm.predictions[0].predicted.tolist()


def test_an_order_of_texts(tmp_path: Path) -> None:
    for name, n, purpose in (("train", 40, 1), ("dev", 20, 2)):
        texts = [text for text, _ in toy.sentences(2 * n, purpose)]
        jsonl(
            tmp_path / f"{name}.jsonl", [{"query": a, "response": b} for a, b in zip(texts[:n], texts[n:], strict=True)]
        )
    task = TaskConfig(
        name="order", kind=TaskKind.retrieval, text="query", text_pair="response", n_candidates=5, train="train.jsonl",
        dev="dev.jsonl",
    )  # fmt: skip
    arm = learn(tmp_path, task, epochs=1).arms[0]
    values, stored = arm.summary["seeds"][0]["values"], arm.predictions[0]
    assert values["mrr"] == pytest.approx(stored.credit.mean())
    assert values["recall_at_1"] == pytest.approx((stored.gold == stored.predicted).mean())
    assert values["recall_at_5"] == 1
    jsonl(tmp_path / "ask.jsonl", [{"query": "good film", "response": ["bad plot", "great plot", "a"]}])
    ranked = ask(arm, tmp_path / "ask.jsonl")[0]["ranked"]
    assert {c["text"] for c in ranked} == {"bad plot", "great plot", "a"}
    assert [c["score"] for c in ranked] == sorted((c["score"] for c in ranked), reverse=True)


def test_a_malformed_row_to_be_answered_is_named(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", [{"question": "a", "choices": ["good", "bad"], "label": n % 2} for n in range(20)])
    task = TaskConfig(
        name="choices",
        kind=TaskKind.multiple_choice,
        text="question",
        choices=["choices"],
        train="train.jsonl",
        dev="train.jsonl",
    )
    arm = learn(tmp_path, task, epochs=1).arms[0]
    jsonl(
        tmp_path / "ask.jsonl", [{"question": "a", "choices": ["good", "bad"]}, {"question": "a", "choices": ["good"]}]
    )
    with pytest.raises(UserError, match=r"ask.jsonl:2: 1 choice in choices where there should be some"):
        ask(arm, tmp_path / "ask.jsonl")
    (tmp_path / "ask.txt").write_text("a\n")
    with pytest.raises(UserError, match="task choices asks about more than a line of text"):
        ask(arm, tmp_path / "ask.txt")
