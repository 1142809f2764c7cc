"""Out to transformers: every head and both families answer alike there, and what no class holds is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foundation.core.errors import UserError
from foundation.exchange import exporting, verify
from foundation.exchange.config import ExportConfig
from foundation.exchange.exporting import export
from foundation.model.config import FeedForward, ModelConfig, NormPlace, Positions, ShareLayers
from foundation.model.sharing.config import (
    AdapterConfig,
    LoraConfig,
    Matrix,
    PrefixConfig,
    SharingConfig,
    SharingMethod,
    TopLayersConfig,
)
from foundation.objective.config import SentenceTask
from foundation.task.batches import tokenize
from foundation.task.config import Pooling
from foundation.task.finetuned import load_finetuned
from foundation.train.config import Precision
from tests.exchange.made import BERT, FAMILIES, MODERN, lay_foundation, lay_task

transformers = pytest.importorskip("transformers")
TEXT = "Fellow-citizens, the [MASK] of the Union is strong."
PAIR = "It was not so a year ago."


def exported(run: Path, capsys: pytest.CaptureFixture[str] | None = None) -> tuple[Path, str]:
    to = run.parent / f"{run.name}-out"
    export(ExportConfig(run=str(run), to=str(to)))
    return to, capsys.readouterr().out if capsys else ""


def stock_outputs(folder: Path, auto: Any, *texts: str) -> Any:
    """As any user of transformers would ask."""
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(folder), auto.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(*texts, return_tensors="pt"))


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


CASES: dict[str, tuple[ModelConfig, SentenceTask, str]] = {
    "bert-nsp": (BERT, SentenceTask.nsp, "BertForPreTraining"),
    "bert-mlm": (BERT, SentenceTask.none, "BertForMaskedLM"),
    "bert-no-segments": (replace(BERT, segments=0), SentenceTask.sop, "BertForPreTraining"),
    "bert-no-biases": (replace(BERT, linear_bias=False, norm_bias=False), SentenceTask.nsp, "BertForPreTraining"),
    "modern-mlm": (MODERN, SentenceTask.none, "ModernBertForMaskedLM"),
    "modern-window": (replace(MODERN, local_window=8, global_every=2), SentenceTask.none, "ModernBertForMaskedLM"),
    "modern-biases": (replace(MODERN, linear_bias=True, norm_bias=True), SentenceTask.none, "ModernBertForMaskedLM"),
    "bert-shared-layers": (replace(BERT, share_layers=ShareLayers.all), SentenceTask.nsp, "BertForPreTraining"),
    "modern-shared-layers": (replace(MODERN, share_layers=ShareLayers.all), SentenceTask.none, "ModernBertForMaskedLM"),
    "modern-segments-nsp": (replace(MODERN, segments=2), SentenceTask.nsp, "ModernBertForMaskedLM"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_foundation_answers_alike_in_transformers(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, task, architecture = CASES[name]
    folder, said = exported(lay_foundation(tmp_path / "run", model, task), capsys)
    assert config_of(folder)["architectures"] == [architecture]
    assert float(said.split("within ")[1].split(" ")[0]) <= 1e-5
    auto = transformers.AutoModelForPreTraining if "PreTraining" in architecture else transformers.AutoModelForMaskedLM
    assert type(auto.from_pretrained(folder)).__name__ == architecture


def test_what_was_left_behind_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = lay_foundation(
        tmp_path / "run",
        replace(MODERN, segments=2),
        SentenceTask.nsp,
        weights={"document_words": 1.0, "detection": 1.0},
    )
    _, said = exported(run, capsys)
    assert "The head for words of the document is left behind" in said
    assert "The head for spoilt tokens is left behind" in said
    assert "The head for pairs of sentences is left behind: no ModernBert class has one" in said
    assert "The embedding of the first segment is added to every token's" in said


@pytest.mark.parametrize("pairs", [False, True], ids=["text", "pair"])
@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_answers_alike_in_transformers(tmp_path: Path, family: str, pooling: Pooling, pairs: bool) -> None:
    if family == "bert" and pooling is Pooling.mean:
        pytest.skip("refused: see below")
    run = lay_task(tmp_path / "run", FAMILIES[family], pooling=pooling, pairs=pairs)
    folder, _ = exported(run)
    tuned = load_finetuned(run / "final", torch.device("cpu"), batch_rows=4, precision=Precision.fp32)
    texts = (TEXT, PAIR) if pairs else (TEXT,)
    ours = tuned.outputs(tokenize([TEXT], [PAIR] if pairs else None, tuned.tokenizer, 40))
    theirs = stock_outputs(folder, transformers.AutoModelForSequenceClassification, *texts).logits
    assert torch.allclose(torch.from_numpy(ours), theirs, rtol=1e-5, atol=1e-5)
    assert config_of(folder)["id2label"] == {"0": "bad", "1": "good", "2": "so-so"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_regression_gives_values_in_the_labels_own_unit(tmp_path: Path, family: str) -> None:
    run = lay_task(tmp_path / "run", FAMILIES[family], labels=())
    folder, _ = exported(run)
    tuned = load_finetuned(run / "final", torch.device("cpu"), batch_rows=4, precision=Precision.fp32)
    ours = tuned.answer(tokenize([TEXT], None, tuned.tokenizer, 40)).predicted
    theirs = stock_outputs(folder, transformers.AutoModelForSequenceClassification, TEXT).logits
    assert float(theirs) == pytest.approx(float(ours[0]), rel=1e-5)
    assert config_of(folder)["problem_type"] == "regression"


SHARED = {
    "probe": SharingConfig(method=SharingMethod.probe),
    "bitfit": SharingConfig(method=SharingMethod.bitfit),
    "lora": LoraConfig(rank=2, matrices=list(Matrix)),
    "top_k": TopLayersConfig(layers=1),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", SHARED)
def test_what_a_method_of_sharing_changed_goes_along(tmp_path: Path, method: str, family: str) -> None:
    """Low-rank terms are merged; biases that a family does without are switched on. The check is the export's own."""
    folder, _ = exported(lay_task(tmp_path / "run", FAMILIES[family], sharing=SHARED[method]))
    has_biases = family == "bert" or method == "bitfit"
    layer = "bert.encoder.layer.0.output.dense" if family == "bert" else "model.layers.0.mlp.Wo"
    assert (f"{layer}.bias" in load_file(folder / "model.safetensors")) == has_biases


def test_a_pipeline_of_transformers_names_our_labels(tmp_path: Path) -> None:
    run = lay_task(tmp_path / "run", replace(MODERN, segments=2), pooling=Pooling.mean)
    folder, _ = exported(run)
    answer = transformers.pipeline("text-classification", model=str(folder))(TEXT)[0]
    tuned = load_finetuned(run / "final", torch.device("cpu"), batch_rows=4, precision=Precision.fp32)
    ours = tuned.answer(tokenize([TEXT], None, tuned.tokenizer, 40))
    assert answer["label"] == tuned.how.labels[int(ours.predicted[0])]
    assert answer["score"] == pytest.approx(ours.probabilities.max(), abs=1e-5)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mean over a BERT": (
        lambda path: lay_task(path, BERT, pooling=Pooling.mean),
        r"BertForSequenceClassification looks at the first token .*\(pooling=mean\): fine-tune with pooling=cls",
    ),
    "pairs with segments": (
        lambda path: lay_task(path, replace(MODERN, segments=2), pairs=True),
        r"no ModernBert class has segment embeddings.*\(model.segments=2\): pretrain with model.segments=0",
    ),
    "adapters": (
        lambda path: lay_task(path, BERT, sharing=AdapterConfig(width=2)),
        r"no stock class .* has room for what sharing=adapter adds: fine-tune with sharing=lora",
    ),
    "a prefix": (
        lambda path: lay_task(path, BERT, sharing=PrefixConfig(length=2)),
        r"no stock class .* has room for what sharing=prefix adds",
    ),
    "rotary BERT": (
        lambda path: lay_foundation(path, replace(BERT, positions=Positions.rotary)),
        r"no stock class .* model.positions=rotary .*must be learned",
    ),
    "local BERT": (
        lambda path: lay_foundation(path, replace(BERT, local_window=8)),
        r"no stock class .* model.local_window=8 \(must be 0\)",
    ),
    "plain modern": (
        lambda path: lay_foundation(path, replace(MODERN, feed_forward=FeedForward.gelu, positions=Positions.learned)),
        r"model.positions=learned .*must be rotary.*; model.feed_forward=gelu \(must be geglu\)",
    ),
    "gated BERT": (
        lambda path: lay_foundation(path, replace(MODERN, norm_place=NormPlace.post, positions=Positions.learned)),
        r"model.feed_forward=geglu \(must be gelu\)",
    ),
    "no run": (lambda path: path, r"there is neither a foundation nor a fine-tuned model in .*name a run's folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_stock_class_holds_is_refused_with_the_switch(tmp_path: Path, name: str) -> None:
    lay, words = REFUSED[name]
    run = lay(tmp_path / "run")
    with pytest.raises(UserError, match=words):
        exported(run)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["run"])


def test_a_folder_that_is_there_is_never_touched(tmp_path: Path) -> None:
    run = lay_foundation(tmp_path / "run", BERT)
    folder, _ = exported(run)
    before = (folder / "config.json").stat().st_mtime_ns
    with pytest.raises(UserError, match="run-out is there already: choose another to=FOLDER or remove it"):
        exported(run)
    assert (folder / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("mistake", [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}], ids=["tanh GELU", "eps"])
def test_nothing_is_written_when_transformers_answers_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: dict[str, Any]
) -> None:
    """The two mistakes that ports are known for: both must show in float32 logits."""
    write = exporting.write_json
    monkeypatch.setattr(exporting, "write_json", lambda path, content: write(path, content | mistake))
    run = lay_foundation(tmp_path / "run", BERT)
    with pytest.raises(UserError, match=r"transformers answers otherwise .* differ by .*; nothing was written"):
        exported(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_written_when_only_padded_rows_are_answered_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = verify.StockReader.outputs

    def see_padding(reader: verify.StockReader, encoded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return outputs(reader, {**encoded, "attention_mask": torch.ones_like(encoded["attention_mask"])})

    monkeypatch.setattr(verify.StockReader, "outputs", see_padding)
    with pytest.raises(UserError, match="transformers answers otherwise"):
        exported(lay_foundation(tmp_path / "run", BERT))


def test_the_difference_is_the_largest_of_all_logits() -> None:
    ours = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 4.0]])
    theirs = ours + torch.tensor([[0.3, 0.0, 0.0, 0.0], [0.8, 0.0, 0.0, 0.0]])
    mask = torch.ones(2, 1, dtype=torch.int64)
    assert verify.difference({"logits": ours[:1]}, {"logits": theirs[:1]}, mask[:1]) == pytest.approx(0.3)
    assert verify.difference({"logits": ours[1:]}, {"logits": theirs[1:]}, mask[1:]) == pytest.approx(0.2)


def test_nothing_is_written_when_a_weight_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = exporting.save_tensors

    def save_without_one(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        save(
            path, {name: t for name, t in tensors.items() if name != "bert.encoder.layer.1.output.dense.bias"}, metadata
        )

    monkeypatch.setattr(exporting, "save_tensors", save_without_one)
    run = lay_foundation(tmp_path / "run", BERT)
    with pytest.raises(UserError, match=r"weights missing: \['bert.encoder.layer.1.output.dense.bias'\]"):
        exported(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_written_when_transformers_reads_other_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting.write_tokenizer

    def write_cased(folder: Path, *args: Any, **settings: Any) -> None:
        write(folder, *args, **settings)
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"]["lowercase"] = False
        (folder / "tokenizer.json").write_text(json.dumps(content))

    monkeypatch.setattr(exporting, "write_tokenizer", write_cased)
    run = lay_foundation(tmp_path / "run", BERT)
    with pytest.raises(UserError, match=r"transformers cuts the same text into other tokens .*; nothing was written"):
        exported(run)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_export_without_transformers_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers is not installed: pip install 'foundation-encoder\[hf\]'"):
        verify.require_transformers()
