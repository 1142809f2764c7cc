"""Vectors of texts, on disk and near a query."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from pyarrow import parquet

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.model.attention import Layout
from foundation.serving.config import EmbedConfig
from foundation.serving.embed import embed
from foundation.serving.neighbours import Nearest
from foundation.serving.vector_files import open_vectors
from foundation.serving.vectors import TextEncoder, load_text_encoder
from foundation.task.config import Pooling
from foundation.train.config import TrainerConfig
from tests.serving.toy_tasks import FILMS, model, save
from tests.task import toy

CPU = TrainerConfig(device="cpu", threads=1)
TEXTS = [text for text, _ in toy.sentences(20, purpose=3)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(folder)
    return folder


def settings(runs: Path, folder: Path, texts: list[str], **changed: object) -> EmbedConfig:
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    cfg = EmbedConfig(foundation="small", input=str(folder / "texts.txt"), runs_dir=str(runs), trainer=CPU)
    return replace(cfg, **changed)


def by_hand(encoder: TextEncoder, text: str) -> np.ndarray:
    """One text alone."""
    specials = encoder.tokenizer.specials
    ids = [specials.cls, *encoder.tokenizer.encode_batch([text])[0].tolist()[: encoder.seq_len - 2], specials.sep]
    with torch.no_grad():
        hidden = encoder.encoder(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.int64), Layout.of([len(ids)]))
    return (hidden[0] if encoder.pooling is Pooling.cls else hidden.mean(0)).numpy()


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_vectors_are_pooled_hidden_states_in_the_order_of_the_texts(
    runs: Path, tmp_path: Path, name: str, pooling: Pooling
) -> None:
    cfg = settings(runs, tmp_path, TEXTS, output=str(tmp_path / name), pooling=pooling, chunk_rows=7, batch_tokens=40)
    embed(cfg)
    encoder = load_text_encoder(cfg)
    expected = np.stack([by_hand(encoder, text) for text in TEXTS])
    if name == "v.npy":
        found = np.load(tmp_path / name)
    else:
        table = parquet.read_table(tmp_path / name)
        assert table["text"].to_pylist() == TEXTS
        found = np.array(table["vector"].to_pylist(), np.float32)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5


def test_vectors_of_a_fine_tuned_task_are_those_of_its_own_encoder(runs: Path, tmp_path: Path) -> None:
    tuned = model(FILMS)
    folder = save(tuned, tmp_path / "films" / "seed-0")
    cfg = settings(runs, tmp_path, TEXTS[:3], foundation=f"{folder}/final", output=str(tmp_path / "v.npy"))
    embed(cfg)
    weights = load_text_encoder(cfg).encoder.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in tuned.objective.encoder.state_dict().items())
    with pytest.raises(UserError, match="there is no fine-tuned model in"):
        embed(replace(cfg, foundation=str(tmp_path / "films")))


def test_a_foundation_reads_no_further_than_it_was_pretrained_and_without_dropout(runs: Path, tmp_path: Path) -> None:
    encoder = load_text_encoder(settings(runs, tmp_path, TEXTS))
    assert (encoder.seq_len, encoder.encoder.cfg.max_seq_len) == (12, 16)
    assert not any(module.training for module in encoder.encoder.modules())


def test_an_empty_file_gives_an_empty_array(runs: Path, tmp_path: Path) -> None:
    embed(settings(runs, tmp_path, [], output=str(tmp_path / "v.npy")))
    assert np.load(tmp_path / "v.npy").shape == (0, 32)


def test_a_stopped_run_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reshape"), open_vectors(str(tmp_path / "v.npy"), 4) as file:
        file.add(["a"], np.ones((1, 4), np.float32).reshape(3))
    assert not list(tmp_path.iterdir())


def test_an_array_of_many_rows_has_a_whole_header(tmp_path: Path) -> None:
    """The number of rows has more digits at the end than at the start."""
    with open_vectors(str(tmp_path / "v.npy"), 2) as file:
        for _ in range(120):
            file.add([""] * 100, np.full((100, 2), 0.5, np.float32))
    assert np.load(tmp_path / "v.npy", mmap_mode="r").shape == (12_000, 2)
    assert (np.load(tmp_path / "v.npy") == 0.5).all()


@pytest.mark.parametrize("part", [1, 9, 200])
def test_the_nearest_are_those_of_all_cosines(part: int) -> None:
    draws = np.random.default_rng(0)
    queries, vectors = (draws.normal(size=(n, 8)).astype(np.float32) for n in (4, 200))
    texts = [f"text {number}" for number in range(200)]
    nearest = Nearest(["a", "b", "c", "d"], queries, k=6)
    for first in range(0, 200, part):
        nearest.add(texts[first : first + part], vectors[first : first + part])
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    cosines = queries @ vectors.T / lengths
    for number, (query, found) in enumerate(nearest.found()):
        assert query == "abcd"[number]
        expected = np.argsort(-cosines[number])[:6]
        assert [one.row for one in found] == expected.tolist()
        assert [one.text for one in found] == [texts[row] for row in expected]
        assert [one.cosine for one in found] == pytest.approx(cosines[number][expected].tolist(), abs=1e-5)


def test_fewer_texts_than_asked_for_are_all_found_and_of_equal_ones_the_first_comes_first() -> None:
    nearest = Nearest(["q"], np.array([[1.0, 0.0]], np.float32), k=5)
    nearest.add(["x", "y"], np.array([[0.0, 1.0], [2.0, 0.0]], np.float32))
    nearest.add(["z", "nothing"], np.array([[3.0, 0.0], [0.0, 0.0]], np.float32))
    (_, found), *_ = nearest.found()
    assert [one.text for one in found] == ["y", "z", "x", "nothing"]
    assert [one.cosine for one in found] == [1.0, 1.0, 0.0, 0.0]


def test_a_text_is_nearest_to_itself(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settings(runs, tmp_path, TEXTS, query=TEXTS[5], k=2, neighbours=str(tmp_path / "n.jsonl"), chunk_rows=8)
    embed(cfg)
    found = json.loads((tmp_path / "n.jsonl").read_text())
    assert found["query"] == TEXTS[5]
    assert found["neighbours"][0]["text"] == TEXTS[5]
    assert found["neighbours"][0]["cosine"] == pytest.approx(1.0, abs=1e-5)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == TEXTS[5]
    assert TEXTS[5] in printed[1]
    assert len(printed) == 3


def test_a_file_of_queries_is_asked_line_by_line(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("a good film\n\nthe plot\n")
    embed(settings(runs, tmp_path, TEXTS, query=str(tmp_path / "q.txt"), neighbours=str(tmp_path / "n.jsonl")))
    queries = [json.loads(line)["query"] for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert queries == ["a good film", "the plot"]
    (tmp_path / "q.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"query=.*q.txt has no text in it"):
        embed(settings(runs, tmp_path, TEXTS, query=str(tmp_path / "q.txt")))


def test_texts_that_are_cut_are_counted(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed(settings(runs, tmp_path, ["a film", "a " * 20, "b"], output=str(tmp_path / "v.npy"), max_tokens=4))
    assert "1 of 3 texts were cut to 4 tokens" in capsys.readouterr().err


def test_the_shipped_settings_compose() -> None:
    register(EmbedConfig, "embed")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("embed", ["input=-", "query=a fine film"]), EmbedConfig)
    cfg.check()
    assert (cfg.foundation, cfg.query, cfg.pooling) == ("small", "a fine film", Pooling.mean)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, r"there is nothing to do: set output=vectors.npy \(or .parquet\), or query=TEXT"),
        ({"output": "v.csv"}, r"output=v.csv must end in .npy"),
        ({"output": "v.npy", "neighbours": "n"}, r"neighbours=n needs a query"),
        ({"query": "a", "k": 0, "max_tokens": 2}, r"k=0 must be at least 1; max_tokens=2 must be at least 3"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(EmbedConfig(foundation="small", input="-", trainer=CPU), **changed).check()


def test_what_cannot_be_read_or_written_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no foundation nowhere"):
        embed(settings(runs, tmp_path, TEXTS, foundation="nowhere", query="a"))
    with pytest.raises(UserError, match=r"cannot write /proc/none/v.npy .*: choose another output=FILE"):
        embed(settings(runs, tmp_path, TEXTS, output="/proc/none/v.npy"))
    with pytest.raises(UserError, match=r"cannot write /proc/none/n .*: choose another neighbours=FILE"):
        embed(settings(runs, tmp_path, TEXTS, query="a", neighbours="/proc/none/n"))
