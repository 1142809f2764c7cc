"""In from transformers: every weight, bit for bit, and back again; what has no place here is refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json
from foundation.core.plain import to_plain
from foundation.data.config import TokenizerKind
from foundation.exchange.config import ExportConfig, ImportConfig
from foundation.exchange.exporting import export
from foundation.exchange.importing import import_folder
from foundation.exchange.tokenizer import write_tokenizer
from foundation.model.encoder import Encoder
from foundation.objective.base import clean_example
from foundation.task.batches import tokenize
from foundation.task.config import Pooling
from foundation.task.protocol import finetune
from foundation.train.foundation import load_foundation
from tests.builders import randomise
from tests.exchange.made import VOCAB, words
from tests.task import toy

transformers = pytest.importorskip("transformers")
SIZE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0}
BERT = {**SIZE, "intermediate_size": 64, "max_position_embeddings": 48}
MODERN = {
    **BERT, "intermediate_size": 48, "local_attention": 8, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
    "sep_token_id": 3,
}  # fmt: skip
CLASSES = {
    "BertForPreTraining": BERT,
    "BertForMaskedLM": BERT,
    "BertForNextSentencePrediction": BERT,
    "BertModel": BERT,
    "ModernBertForMaskedLM": MODERN,
    "ModernBertModel": MODERN,
}


def made(folder: Path, name: str, kind: TokenizerKind = TokenizerKind.wordpiece, **changes: Any) -> Path:
    """A folder as transformers itself saves it, every weight random."""
    settings = {**CLASSES.get(name, MODERN if name.startswith("Modern") else BERT), **changes}
    config = transformers.ModernBertConfig if name.startswith("Modern") else transformers.BertConfig
    model = getattr(transformers, name)(config(**settings))
    randomise(model, seed=3)
    model.save_pretrained(folder)
    write_tokenizer(folder, words(kind), max_tokens=48, inputs=("input_ids", "attention_mask"))
    return folder


def taken_in(folder: Path, **settings: Any) -> Path:
    cfg = ImportConfig(folder=str(folder), name="taken", runs_dir=str(folder.parent / "runs"), **settings)
    return import_folder(cfg, to_plain(cfg))


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_goes_round_bit_for_bit(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path / "theirs", name)
    final = taken_in(folder)
    export(ExportConfig(run=str(final), to=str(tmp_path / "back")))
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert read_json(tmp_path / "back" / "config.json")["architectures"] == [name]


@pytest.mark.parametrize("name", ["BertModel", "ModernBertModel"])
def test_hidden_states_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """In float64 but for the angles of rotary positions, which transformers rounds to float32."""
    folder = made(tmp_path / "theirs", name)
    theirs = getattr(transformers, name).from_pretrained(folder).double().eval()
    foundation = load_foundation(taken_in(folder))
    ours = Encoder(foundation.model).double().eval()
    foundation.load_encoder(ours)
    rows = tokenize(["The State of the Union is strong."], None, foundation.tokenizer, 48)
    example = clean_example(rows.batch(np.array([0]), None))
    with torch.no_grad():
        expected = theirs(example.ids[None]).last_hidden_state[0]
        found = ours(example.ids, example.segments, example.layout())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 if name == "BertModel" else 1e-5)


def test_what_is_taken_in_can_be_fine_tuned_and_leave_again(tmp_path: Path) -> None:
    made(tmp_path / "theirs", "BertForPreTraining")
    taken_in(tmp_path / "theirs")
    task = toy.lay_task(tmp_path / "data", n_train=16, n_dev=8)
    cfg = toy.settings(tmp_path / "runs", task, foundation="taken", seeds=1, epochs=1, pooling=Pooling.cls)
    finetune(cfg, to_plain(cfg))
    export(ExportConfig(run=str(tmp_path / "runs/taken/finetune/toy/full"), to=str(tmp_path / "out")))
    assert read_json(tmp_path / "out" / "config.json")["architectures"] == ["BertForSequenceClassification"]


def test_the_run_says_where_it_came_from(tmp_path: Path) -> None:
    final = taken_in(made(tmp_path / "theirs", "BertForMaskedLM"))
    info, run = read_json(final / "config.json"), read_json(final.parent / "run.json")
    assert info["imported"]["architecture"] == "BertForMaskedLM"
    assert info["objective"]["sentence_task"] == "none"
    assert run["fingerprints"] == {"tokenizer": info["tokenizer"], "foundation": info["fingerprint"]}
    assert info["fingerprint"] in (final / "card.md").read_text()


def test_a_classifier_gives_its_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("ModernBertForSequenceClassification", "BertForTokenClassification")):
        folder = made(tmp_path / str(number) / "theirs", name)
        tensors = load_foundation(taken_in(folder)).tensors
        assert not any(key.startswith("heads.mlm.") for key in tensors)
        assert "Left behind: classifier.bias, classifier.weight" in capsys.readouterr().out


def test_the_encoder_can_be_taken_alone(tmp_path: Path) -> None:
    final = taken_in(made(tmp_path / "theirs", "BertForPreTraining"), encoder_only=True)
    assert all(name.startswith("encoder.") for name in load_foundation(final).tensors)


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The folder with its weights changed."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path, {"format": "pt"})
    return folder


def test_names_of_old_checkpoints_are_understood(tmp_path: Path) -> None:
    """gamma and beta for norms, copies of tied weights, a buffer of positions, half precision."""

    def aged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t.half()
            for name, t in tensors.items()
        }
        tied = old["bert.embeddings.word_embeddings.weight"].clone()
        bias = old["cls.predictions.bias"].clone()
        copies = {"cls.predictions.decoder.weight": tied, "cls.predictions.decoder.bias": bias}
        return old | copies | {"bert.embeddings.position_ids": torch.arange(48)[None]}

    folder = made(tmp_path / "theirs", "BertForPreTraining")
    young = load_file(folder / "model.safetensors")["bert.encoder.layer.1.output.LayerNorm.weight"]
    tensors = load_foundation(taken_in(rewritten(folder, aged))).tensors
    assert torch.equal(tensors["encoder.layers.1.feed_forward_norm.weight"], young.half().float())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_biases_that_only_some_parts_have_are_zero_in_the_others(tmp_path: Path) -> None:
    folder = made(tmp_path / "theirs", "ModernBertForMaskedLM", mlp_bias=True, decoder_bias=False)
    final = taken_in(folder)
    tensors = load_foundation(final).tensors
    assert not tensors["encoder.layers.0.attention.qkv.bias"].any() and not tensors["heads.mlm.bias"].any()
    assert tensors["encoder.layers.0.feed_forward.into.bias"].all()
    export(ExportConfig(run=str(final), to=str(tmp_path / "back")))  # and answers alike


def test_weights_in_several_files_are_put_together(tmp_path: Path) -> None:
    folder = made(tmp_path / "theirs", "BertForMaskedLM")
    tensors = load_file(folder / "model.safetensors")
    parts = {f"part-{n}.safetensors": dict(list(tensors.items())[n::2]) for n in range(2)}
    for file, part in parts.items():
        save_file(part, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    (folder / "model.safetensors").unlink()
    assert len(load_foundation(taken_in(folder)).tensors) == len(tensors) - 2 * 2 * 3  # q, k and v are one here


def with_config(folder: Path, **changes: Any) -> Path:
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    return folder


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no folder": ("BertModel", lambda f: f.rename(f.with_name("gone")), r"no folder at .*theirs: download one"),
    "another kind": (
        "BertModel",
        lambda f: with_config(f, model_type="roberta"),
        r"has model_type='roberta': what can be taken in is bert and modernbert",
    ),
    "activation": (
        "BertModel",
        lambda f: with_config(f, hidden_act="gelu_new"),
        r"cannot do: hidden_act='gelu_new' \(can be held: 'gelu'\)",
    ),
    "positions": (
        "BertModel",
        lambda f: with_config(f, position_embedding_type="relative_key", is_decoder=True),
        r"position_embedding_type='relative_key' .*; is_decoder=True \(can be held: False\)",
    ),
    "head's activation": (
        "ModernBertForMaskedLM",
        lambda f: with_config(f, classifier_activation="relu"),
        r"classifier_activation='relu'",
    ),
    "stretched positions": (
        "ModernBertModel",
        lambda f: with_config(f, rope_parameters={"full_attention": {"rope_type": "yarn", "factor": 4.0}}),
        r"stretches the rotary positions .*: only plain ones can be held",
    ),
    "layers in another order": (
        "ModernBertModel",
        lambda f: with_config(f, layer_types=["sliding_attention", "full_attention", "full_attention"]),
        r"layer_types=.*: here the first of every so many layers sees everything",
    ),
    "untied": (
        "ModernBertForMaskedLM",
        lambda f: rewritten(f, lambda t: t | {"decoder.weight": t["model.embeddings.tok_embeddings.weight"] + 1}),
        r"decoder.weight differs from .*; take the encoder alone with encoder_only=true",
    ),
    "a weight too few": (
        "BertModel",
        lambda f: rewritten(f, lambda t: {n: w for n, w in t.items() if "layer.1.output.dense.bias" not in n}),
        r"lacks 1 weights, among them what is encoder.layers.1.feed_forward.out.bias here",
    ),
    "a part of attention": (
        "BertModel",
        lambda f: rewritten(f, lambda t: {n: w for n, w in t.items() if "layer.1.attention.self.key" not in n}),
        r"lacks 2 weights, among them what is encoder.layers.1.attention.qkv.bias here",
    ),
    "another shape": (
        "BertModel",
        lambda f: with_config(f, intermediate_size=128),
        r"not of its config.json: what is encoder.layers.0.feed_forward.into.* has shape \(64.* should have \(128",
    ),
    "another tokenizer": (
        "BertModel",
        lambda f: rewritten(
            with_config(f, vocab_size=300),
            lambda t: t | {"embeddings.word_embeddings.weight": t["embeddings.word_embeddings.weight"][:300]},
        ),
        r"has 320 entries and its model 300: they do not belong together",
    ),
    "no tokenizer": ("BertModel", lambda f: without(f, "tokenizer.json"), r"has neither tokenizer.json nor vocab.txt"),
    "a pickle": (
        "BertModel",
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"pytorch_model.bin, a pickle, which may run any code and is not opened",
    ),
    "no weights": ("BertModel", lambda f: without(f, "model.safetensors"), r"no weights at .*model.safetensors"),
    "damaged weights": (
        "BertModel",
        lambda f: (f / "model.safetensors").write_bytes(b"\0" * 40),
        r"model.safetensors is damaged",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_place_here_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    name, change, message = REFUSED[case]
    folder = made(tmp_path / "theirs", name)
    change(folder)
    with pytest.raises(UserError, match=message):
        taken_in(folder)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_could_not_be_found_again_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"name={name} is not a name for a run folder"):
        ImportConfig(folder="f", name=name).check()


def test_a_run_that_is_there_is_never_touched(tmp_path: Path) -> None:
    folder = made(tmp_path / "theirs", "BertModel")
    taken_in(folder)
    with pytest.raises(UserError, match="already holds something: choose another name="):
        taken_in(folder)


def test_a_folder_written_by_an_older_library_is_understood(tmp_path: Path) -> None:
    """ModernBERT's published config.json has other keys than today's library writes."""
    folder = made(tmp_path / "theirs", "ModernBertModel", layer_types=None)
    config = read_json(folder / "config.json")
    old = {key: value for key, value in config.items() if key not in ("layer_types", "rope_parameters")}
    (folder / "config.json").write_text(
        json.dumps(old | {"global_attn_every_n_layers": 2, "global_rope_theta": 5000.0, "local_rope_theta": 50.0})
    )
    model = load_foundation(taken_in(folder)).model
    assert (model.local_window, model.global_every) == (8, 2)
    assert (model.rope_theta_global, model.rope_theta_local) == (5000.0, 50.0)
