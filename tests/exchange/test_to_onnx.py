"""ONNX: the same logits in onnxruntime at any shape, and nothing left behind where they are not."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.core.errors import UserError
from foundation.exchange import to_onnx
from foundation.exchange.answers import real_texts
from foundation.exchange.config import ExportConfig
from foundation.exchange.exporting import export
from foundation.exchange.verify import StockReader
from foundation.task.batches import tokenize
from foundation.task.config import Pooling
from foundation.task.finetuned import load_finetuned
from foundation.train.config import Precision
from tests.exchange.made import BERT, MODERN, lay_task

pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
MODELS = {
    "bert": replace(BERT, layers=1),
    "modern": replace(MODERN, segments=2, local_window=8, layers=2, global_every=2),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT's folder, with the run beside it."""
    return written(tmp_path_factory.mktemp("onnx"), "bert")


def written(folder: Path, family: str) -> Path:
    run = lay_task(folder / "run", MODELS[family], pooling=Pooling.cls)
    export(ExportConfig(run=str(run), to=str(folder / "out"), to_onnx=True))
    return folder / "out"


@pytest.mark.parametrize("family", MODELS)
def test_onnxruntime_answers_as_we_do_at_other_shapes_too(exported: Path, tmp_path: Path, family: str) -> None:
    """Export checks two shapes itself; here a third, of more and longer rows, from ids alone."""
    folder = exported if family == "bert" else written(tmp_path, family)
    session, run = onnxruntime.InferenceSession(str(folder / "model.onnx")), folder.parent / "run"
    names = [given.name for given in session.get_inputs()]
    expected = (
        ["input_ids", "token_type_ids", "attention_mask"] if family == "bert" else ["input_ids", "attention_mask"]
    )
    assert sorted(names) == sorted(expected) and [o.name for o in session.get_outputs()] == ["logits"]

    tuned = load_finetuned(run / "final", torch.device("cpu"), batch_rows=4, precision=Precision.fp32)
    texts = ["The Congress and the people", "of the", "Union and its laws, " * 3, "a nation", "the States of America"]
    rows = tokenize(texts, None, tuned.tokenizer, 40)
    batch = rows.batch(np.arange(5), None)
    ids = np.zeros((5, batch.lengths.max()), np.int64)
    real = np.arange(ids.shape[1]) < batch.lengths[:, None]
    ids[real] = batch.ids
    given = {"input_ids": ids, "attention_mask": real.astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    (found,) = session.run(["logits"], {name: given[name] for name in names})
    assert np.allclose(found, tuned.outputs(rows), rtol=1e-5, atol=1e-5)


def test_answers_that_differ_are_refused(exported: Path) -> None:
    """The file is held against logits that are off by a thousandth."""
    reader, texts = StockReader(exported, "BertForSequenceClassification"), real_texts(pairs=False)
    right = {"logits": list(reader.answer(reader.encode(texts, 40))["logits"])}
    assert to_onnx.check_onnx(reader, exported, right, texts, 40) < to_onnx.TOLERANCE
    wrong = {"logits": [row + 1e-3 for row in right["logits"]]}
    with pytest.raises(UserError, match=r"onnxruntime answers otherwise .*; nothing was written"):
        to_onnx.check_onnx(reader, exported, wrong, texts, 40)


def test_without_the_libraries_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, which is not installed: pip install .*\[onnx\]"):
        to_onnx.require_onnx()
