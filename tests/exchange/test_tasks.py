"""Every kind of head, both families, in the stock class of its kind; asked as a user of transformers would ask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.data.batches import assemble
from foundation.exchange.bert import Bert
from foundation.exchange.config import ExportConfig, ImportConfig
from foundation.exchange.exporting import export
from foundation.exchange.importing import import_folder
from foundation.exchange.modern import Modern
from foundation.model.config import ModelConfig
from foundation.objective.base import Example, clean_example
from foundation.task.batches import tokenize
from foundation.task.config import Pooling, TaskKind
from foundation.task.finetuned import FineTuned, load_finetuned
from foundation.task.heads import ChoiceHead, Head, LabelSetHead, SpanHead, TagHead, TaskObjective
from foundation.task.kinds.build import build_kind
from foundation.task.kinds.multiple_choice import Options
from foundation.train.config import Precision
from foundation.train.foundation import load_foundation
from tests.builders import randomise
from tests.exchange.made import BERT, FAMILIES, MODERN, lay_task, words

transformers = pytest.importorskip("transformers")
QUESTION, CHOICES = (
    "What is the state of the Union?",
    ["The state of the Union is strong.", "Its laws are good, and many."],
)
TAGS, FEELINGS = ("B-LOC", "I-LOC", "O"), ("calm", "glad", "sad")
# Kind -> the class of its head, the labels of the task.
KINDS: dict[TaskKind, tuple[str, tuple[str, ...]]] = {
    TaskKind.multilabel: ("ForSequenceClassification", FEELINGS),
    TaskKind.tagging: ("ForTokenClassification", TAGS),
    TaskKind.question_answering: ("ForQuestionAnswering", ("start", "end")),
    TaskKind.multiple_choice: ("ForMultipleChoice", ("0", "1")),
    # Two candidates are asked about where three were seen in training: their number is no part of the weights.
    TaskKind.retrieval: ("ForMultipleChoice", ("0", "1", "2")),
}
OF_CHOICES = (TaskKind.multiple_choice, TaskKind.retrieval)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
each_family = pytest.mark.parametrize("family", FAMILIES)


def lay(run: Path, model: ModelConfig, kind: TaskKind, **settings: Any) -> Path:
    # Choices are second segments whether or not a column says how they begin.
    pairs = kind in (TaskKind.question_answering, TaskKind.retrieval)
    return lay_task(run, model, kind=kind, labels=KINDS[kind][1], pairs=pairs, **settings)


def exported(run: Path, *, to_onnx: bool = False) -> Path:
    export(ExportConfig(run=str(run), to=str(run.parent / "out"), to_onnx=to_onnx))
    return run.parent / "out"


def loaded(run: Path) -> FineTuned:
    return load_finetuned(run / "final", torch.device("cpu"), batch_rows=4, precision=Precision.fp32)


def texts_of(kind: TaskKind) -> tuple[list[str], list[str] | None]:
    if kind in OF_CHOICES:
        return [QUESTION] * 2, CHOICES
    return [QUESTION], CHOICES[:1] if kind is TaskKind.question_answering else None


def ours(run: Path, kind: TaskKind) -> Tensor:
    """The head's outputs for one item."""
    tuned = loaded(run)
    rows = tokenize(*texts_of(kind), tuned.tokenizer, tuned.how.seq_len)
    with torch.no_grad():
        return tuned.objective.eval().logits(clean_example(assemble(rows.rows, rows.specials, None)))


def asked(folder: Path, kind: TaskKind) -> dict[str, Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = dict(tokenizer(*texts_of(kind), padding=True, return_tensors="pt"))
    return {name: ids[None] for name, ids in encoded.items()} if kind in OF_CHOICES else encoded


def in_our_shape(outputs: dict[str, Tensor], kind: TaskKind) -> Tensor:
    """Of one item: (K,) or (L, K) as the head gives them, one row after another."""
    if kind is TaskKind.question_answering:
        return torch.stack([outputs["start_logits"][0], outputs["end_logits"][0]], dim=1)
    if kind in OF_CHOICES:
        return outputs["logits"].T
    return outputs["logits"][0] if kind is TaskKind.tagging else outputs["logits"]


@each_kind
@each_family
def test_every_kind_answers_alike_in_transformers(tmp_path: Path, family: str, kind: TaskKind) -> None:
    run = lay(tmp_path / "run", FAMILIES[family], kind)
    folder = exported(run)
    model = getattr(transformers, f"AutoModel{KINDS[kind][0]}").from_pretrained(folder).eval()
    with torch.no_grad():
        found = in_our_shape(model(**asked(folder, kind)), kind)
    torch.testing.assert_close(found, ours(run, kind), rtol=1e-5, atol=1e-5)
    classes = {"bert": "Bert", "modern": "ModernBert"}
    assert read_json(folder / "config.json")["architectures"] == [classes[family] + KINDS[kind][0]]


ONNX = [
    ("modern", TaskKind.tagging),
    ("bert", TaskKind.question_answering),
    ("bert", TaskKind.multiple_choice),
    ("modern", TaskKind.retrieval),
]


@pytest.mark.parametrize(("family", "kind"), ONNX)
def test_onnxruntime_answers_every_kind_alike(tmp_path: Path, family: str, kind: TaskKind) -> None:
    """Export checks two shapes of real text itself; here a third, of three items. (Labels: test_to_onnx.py.)"""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    layers = 1 if family == "bert" else 2
    run = lay(tmp_path / "run", replace(FAMILIES[family], layers=layers), kind)
    folder = exported(run, to_onnx=True)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    names = [output.name for output in session.get_outputs()]
    thrice = {name: torch.cat([ids] * 3).numpy() for name, ids in asked(folder, kind).items()}
    outputs = {name: torch.from_numpy(array[2:]) for name, array in zip(names, session.run(names, thrice), strict=True)}
    torch.testing.assert_close(in_our_shape(outputs, kind), ours(run, kind), rtol=1e-5, atol=1e-5)


@each_family
def test_candidates_rank_there_as_here(tmp_path: Path, family: str) -> None:
    """Scores of candidates as foundation.predict writes them, against rows laid out by the tokenizer of the export."""
    run = lay(tmp_path / "run", FAMILIES[family], TaskKind.retrieval)
    folder, tuned = exported(run), loaded(run)
    candidates = [*CHOICES, "The Congress has met.", "Peace."]
    kind = build_kind(tuned.how.task)
    asked_of = Options(["q"], [QUESTION], None, np.zeros(1, np.int64), [candidates])
    tokens = kind.encode(asked_of, tuned.tokenizer, tuned.how.seq_len)
    (told,) = kind.describe(asked_of, kind.answer(tuned.outputs(tokens), tokens, tuned.how), tuned.how)

    rows = transformers.AutoTokenizer.from_pretrained(folder)(
        [QUESTION] * len(candidates), candidates, padding=True, return_tensors="pt"
    )
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**{name: ids[None] for name, ids in rows.items()}).logits[0]
    assert [found["candidate"] for found in told["ranked"]] == logits.argsort(descending=True).tolist()
    assert [found["score"] for found in told["ranked"]] == pytest.approx(
        sorted(logits.tolist(), reverse=True), abs=1e-5
    )


@pytest.mark.parametrize("pooling", list(Pooling))
def test_choices_are_pooled_there_as_here(tmp_path: Path, pooling: Pooling) -> None:
    run = lay(tmp_path / "run", MODERN, TaskKind.multiple_choice, pooling=pooling)
    folder = exported(run)
    assert read_json(folder / "config.json")["classifier_pooling"] == pooling.value


@pytest.mark.parametrize("kind", [TaskKind.tagging, TaskKind.question_answering], ids=lambda kind: kind.value)
def test_tokens_are_not_pooled_so_pooling_is_no_obstacle(tmp_path: Path, kind: TaskKind) -> None:
    folder = exported(lay(tmp_path / "run", BERT, kind, pooling=Pooling.mean))
    assert "classifier_pooling" not in read_json(folder / "config.json")


def test_a_pipeline_of_transformers_tags_words_with_our_names(tmp_path: Path) -> None:
    run = lay(tmp_path / "run", MODERN, TaskKind.tagging)
    found = transformers.pipeline("token-classification", model=str(exported(run)), ignore_labels=[])(QUESTION)
    # Theirs passes over [CLS] and [SEP].
    best = ours(run, TaskKind.tagging)[1:-1].argmax(1).tolist()
    assert [entity["entity"] for entity in found] == [TAGS[number] for number in best]


def test_a_pipeline_of_transformers_gives_every_label_its_own_probability(tmp_path: Path) -> None:
    run = lay(tmp_path / "run", BERT, TaskKind.multilabel)
    found = transformers.pipeline("text-classification", model=str(exported(run)), top_k=None)([QUESTION])[0]
    shares = {answer["label"]: answer["score"] for answer in found}
    expected = ours(run, TaskKind.multilabel)[0].sigmoid().tolist()
    assert shares == pytest.approx(dict(zip(FEELINGS, expected, strict=True)), abs=1e-5)


HEADS: dict[TaskKind, type[Head]] = {
    TaskKind.multilabel: LabelSetHead,
    TaskKind.tagging: TagHead,
    TaskKind.question_answering: SpanHead,
    TaskKind.multiple_choice: ChoiceHead,
}


@pytest.mark.parametrize("kind", HEADS, ids=lambda kind: kind.value)
@each_family
def test_heads_equal_those_of_transformers_in_float64(
    family: str, kind: TaskKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their weights, by the names that an export goes by, in our head: every one is taken, and outputs agree to 1e-10."""
    from transformers.models.llama import modeling_llama
    from transformers.models.modernbert import modeling_modernbert

    # ModernBERT's own rotation rounds to float32 on the way; the one of Llama in the same library is the same without it.
    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", modeling_llama.apply_rotary_pos_emb)
    (name, labels), cfg, table = KINDS[kind], FAMILIES[family], {"bert": Bert(), "modern": Modern()}[family]
    settings = table.config(cfg, words().specials, {"heads.dense.bias": torch.zeros(0)})
    stock = transformers.AutoConfig.for_model(**settings, num_labels=len(labels))
    theirs = getattr(transformers, f"{table.classes}{name}")(stock).double().eval()
    randomise(theirs, seed=7)
    head = {"ForTokenClassification": table.token, "ForQuestionAnswering": table.span}.get(name, table.sequence)
    weights, left = (table.encoder | head).from_stock(
        {key: weight.detach() for key, weight in theirs.named_parameters()}
    )
    objective = TaskObjective(cfg, n_out=len(labels), pooling=Pooling.cls, dropout=0.0, head=HEADS[kind]).double()
    objective.load_state_dict(weights)
    assert not left, "every weight of theirs is taken"

    rows = tokenize(*texts_of(kind), words(), 40)
    example: Example = clean_example(assemble(rows.rows, rows.specials, None))
    ids, segments, mask = (
        torch.nn.utils.rnn.pad_sequence(part.split(list(example.lengths)), batch_first=True)
        for part in (example.ids, example.segments, torch.ones_like(example.ids))
    )
    inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": segments} if family == "bert" else {})
    if kind in OF_CHOICES:
        inputs = {key: value[None] for key, value in inputs.items()}
    with torch.no_grad():
        expected, found = in_our_shape(theirs(**inputs), kind), objective.eval().logits(example)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [TaskKind.multiple_choice, TaskKind.question_answering], ids=lambda kind: kind.value)
def test_segments_of_the_modern_family_are_refused_where_rows_are_pairs(tmp_path: Path, kind: TaskKind) -> None:
    run = lay(tmp_path / "run", replace(MODERN, segments=2), kind)
    with pytest.raises(UserError, match=r"\(model.segments=2\): pretrain with model.segments=0 to export it"):
        exported(run)


@pytest.mark.parametrize("kind", [TaskKind.multiple_choice, TaskKind.multilabel], ids=lambda kind: kind.value)
def test_a_mean_is_refused_where_the_class_looks_at_the_first_token(tmp_path: Path, kind: TaskKind) -> None:
    run = lay(tmp_path / "run", BERT, kind, pooling=Pooling.mean)
    message = rf"Bert{KINDS[kind][0]} looks at the first token .* fine-tune with pooling=cls"
    with pytest.raises(UserError, match=message):
        exported(run)


@each_kind
@each_family
def test_the_encoder_comes_back_bit_for_bit_as_a_foundation(tmp_path: Path, family: str, kind: TaskKind) -> None:
    run = lay(tmp_path / "run", FAMILIES[family], kind)
    cfg = ImportConfig(folder=str(exported(run)), name="taken", runs_dir=str(tmp_path / "runs"))
    taken = load_foundation(import_folder(cfg, to_plain(cfg)))
    encoder = loaded(run).objective.encoder.state_dict()
    assert all(torch.equal(taken.tensors[f"encoder.{name}"], tensor) for name, tensor in encoder.items())
    # A classifier's own layers are none of a foundation's heads; BERT's pooler is that of its head for pairs.
    heads = {name.removeprefix("heads.") for name in taken.tensors if name.startswith("heads.")}
    assert heads <= {"pair.pool.weight", "pair.pool.bias"}


# Kind -> pipeline, what the card tells of the head, what its example asks about.
CARDS = {
    TaskKind.multilabel: ("text-classification", "multilabel, with the labels `calm`, `glad`, `sad`.", '"A text."'),
    TaskKind.tagging: ("token-classification", "tagging, with the labels `B-LOC`, `I-LOC`, `O`.", '"A text."'),
    TaskKind.question_answering: ("question-answering", "question answering.", '"A text that may answer it."'),
    TaskKind.multiple_choice: ("multiple-choice", "multiple choice.", '["One choice.", "Another."]'),
    TaskKind.retrieval: ("multiple-choice", "retrieval.", '["One candidate.", "Another."]'),
}


def test_the_example_of_a_task_of_pairs_gives_two_texts(tmp_path: Path) -> None:
    run = lay_task(tmp_path / "run", BERT, kind=TaskKind.classification, labels=("no", "yes"), pairs=True)
    assert 'tokenizer("One text.", "The other.", return_tensors="pt")' in (exported(run) / "README.md").read_text()


@each_kind
def test_the_card_names_the_head_and_its_example_runs(tmp_path: Path, kind: TaskKind) -> None:
    folder = exported(lay(tmp_path / "run", BERT, kind))
    card = (folder / "README.md").read_text()
    pipeline, told, asked = CARDS[kind]
    assert f"pipeline_tag: {pipeline}" in card and f"A `Bert{KINDS[kind][0]}` of transformers" in card
    assert f"Its head is that of the task `toy`: {told}" in card and asked in card
    names: dict[str, Any] = {"FOLDER": str(folder)}
    exec(card.split("```python")[1].split("```")[0], names)
    outputs = names["outputs"]
    n_out = len(CHOICES if kind in OF_CHOICES else KINDS[kind][1])
    last = outputs.start_logits.shape if kind is TaskKind.question_answering else outputs.logits.shape
    assert last[0] == 1 and (kind is TaskKind.question_answering or last[-1] == n_out)
