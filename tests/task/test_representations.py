"""What is stored is what the encoder computes, once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.data.batches import assemble
from foundation.model.encoder import Encoder
from foundation.objective.base import clean_example
from foundation.science.layers import cka_table
from foundation.task.represent_config import RepresentConfig
from foundation.task.representations import hidden_means, represent
from foundation.train.config import TrainerConfig
from foundation.train.foundation import load_foundation
from tests.task import toy
from tests.test_finetune import run


def settings(runs_dir: Path, **changed: object) -> RepresentConfig:
    defaults = {"runs": [str(runs_dir / "*" / "finetune")], "output": str(runs_dir / "representations"), "n_texts": 20}
    trainer = TrainerConfig(device="cpu", threads=1)
    return RepresentConfig(**defaults | {"trainer": trainer, "runs_dir": str(runs_dir)} | changed)


def test_means_are_over_the_texts_own_tokens_whatever_stands_beside_it(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    saved = load_foundation(tmp_path / "small/final")
    encoder = Encoder(saved.model)
    saved.load_encoder(encoder)
    texts = [text for text, _ in toy.sentences(7, 3)]
    found = hidden_means(encoder, saved.tokenizer, texts, seq_len=12, batch_rows=3)
    assert found.shape == (saved.model.layers + 1, 7, saved.model.width)
    row = saved.tokenizer.encode_batch([texts[4]])[0][:10]
    example = clean_example(assemble([(row,)], saved.tokenizer.specials, None, 0))
    with torch.no_grad():
        last = encoder(example.ids, example.segments, example.layout())
        embedded = encoder.embed(example.ids, example.segments, example.layout())
    np.testing.assert_allclose(found[0, 4], embedded.mean(axis=0), atol=1e-5)
    # The last layer's own output, which the encoder still norms.
    assert not np.allclose(found[-1, 4], last.mean(axis=0), atol=1e-3)


def test_all_models_represent_the_same_texts_and_only_once(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        toy.lay_foundation(tmp_path, name=name, seed=seed)
        cfg = toy.settings(
            tmp_path, toy.lay_task(tmp_path / "data"), foundation=name, seeds=1, seed=seed, epochs=1, like="one"
        )
        run(cfg)
    folder = represent(settings(tmp_path))
    kinds = [entry["kind"] for entry in read_json(folder / "index.json")["entries"]]
    assert kinds == ["foundation", "foundation", "random", "random", "finetuned", "finetuned"]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    represent(settings(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")} == before
    names = {row[0] for row in cka_table(folder).rows}
    assert {
        "foundation to its fine-tunes (drift)",
        "two foundations, one task",
        "two untrained encoders (anchor)",
    } <= names
    assert to_plain(settings(tmp_path))["n_texts"] == 20


def test_texts_of_a_file_are_its_lines_and_utf8(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    run(toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), seeds=1, epochs=1))
    lines = tmp_path / "lines.txt"
    lines.write_text("a good\u2028film\n\nthe plot\na scene\nit was fine\n", encoding="utf-8")
    assert read_json(represent(settings(tmp_path, input=str(lines))) / "index.json")["texts"] == 4
    lines.write_bytes("café\n".encode("latin-1") * 5)
    with pytest.raises(UserError, match=r"lines.txt is not UTF-8 text .*: convert it to UTF-8"):
        represent(settings(tmp_path, input=str(lines)))


def test_what_cannot_be_represented_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no fine-tuned model of a foundation below .*: make one with"):
        represent(settings(tmp_path))
    with pytest.raises(UserError, match="n_texts=3 must be at least 4"):
        settings(tmp_path, n_texts=3).check()
