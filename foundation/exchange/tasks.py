"""Fine-tuned models in stock form, one class a kind of head, and what they answer, under that class's names.

Letters: L tokens of a row · K outputs
"""

import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.data.batches import assemble
from foundation.exchange.answers import Answerer, Outputs
from foundation.exchange.bert import Bert
from foundation.exchange.family import Family, Stock
from foundation.exchange.modern import Modern
from foundation.exchange.names import NameTable
from foundation.exchange.to_stock import FOLDED, SEGMENTS, family_of, folded_segments, plain_encoder, to_stock
from foundation.objective.base import clean_example
from foundation.task.batches import TokenRows
from foundation.task.config import Pooling, TaskConfig, TaskKind
from foundation.task.finetuned import FineTuned

_SEQUENCE, _TOKEN, _SPAN, _CHOICE = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
_PROBLEMS = {
    TaskKind.classification: "single_label_classification",
    TaskKind.regression: "regression",
    TaskKind.multilabel: "multi_label_classification",
}
# What the class cannot say of how its outputs are to be read.
_READING = {
    TaskKind.regression: "The last layer gives values in the labels' own unit: their scale is folded into it.",
    TaskKind.multilabel: "A label holds where its logit is above 0, whatever the others are.",
    TaskKind.tagging: "A word's tag is that of its first token (aggregation_strategy='first'); the others were never trained.",
    TaskKind.question_answering: "Rows are [CLS] question [SEP] text [SEP]; an answer starts and ends inside the text.",
    TaskKind.multiple_choice: "Each choice is a row of its own, with what it is an answer to before it; a question's "
    "choices go in together.",
    TaskKind.retrieval: "Each candidate is a row of its own, with the text it is ranked for before it; the highest logit ranks "
    "first. A text's candidates, however many, go in together.",
}
_UNANSWERABLE = "Where both ends are best at [CLS], the text has no answer."


def class_of(task: TaskConfig) -> str:
    """The class of the task's head, without the family before it."""
    match task.kind:
        case TaskKind.classification | TaskKind.regression | TaskKind.multilabel:
            return _SEQUENCE
        case TaskKind.tagging:
            return _TOKEN
        case TaskKind.question_answering:
            return _SPAN
        case TaskKind.multiple_choice | TaskKind.retrieval:
            return _CHOICE


def has_pairs(task: TaskConfig) -> bool:
    """Whether rows have two segments."""
    return task.text_pair is not None or class_of(task) == _CHOICE


def stock_task(tuned: FineTuned) -> Stock:
    """A fine-tuned model. Raises UserError, naming the switch, where no stock class holds it."""
    model, how = tuned.objective.encoder.cfg, tuned.how
    family, kind = family_of(model), class_of(how.task)
    architecture, is_pooled = f"{family.classes}{kind}", kind in (_SEQUENCE, _CHOICE)
    if isinstance(family, Bert) and is_pooled and how.pooling is not Pooling.cls:
        raise UserError(
            f"{architecture} looks at the first token and this model at the {how.pooling.value} of all (pooling=mean): "
            "fine-tune with pooling=cls to export it"
        )
    encoder = plain_encoder(tuned.objective.encoder)
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    tensors |= {f"heads.{name}": tensor for name, tensor in tuned.objective.heads.state_dict().items()}
    notes = _reading(how.task)
    if SEGMENTS in tensors and "token_type_ids" not in family.inputs:
        if has_pairs(how.task):
            raise UserError(
                f"no {family.classes} class has segment embeddings, and a task of pairs needs both of them "
                f"(model.segments={model.segments}): pretrain with model.segments=0 to export it"
            )
        tensors = folded_segments(tensors)
        notes.append(FOLDED)
    if how.task.is_regression:
        tensors |= _in_units(tensors, how.mean, how.std)
    stock = to_stock(family, family.encoder | _head(family, kind), tensors, model, tuned.tokenizer, architecture)
    stock.config |= _labels(tuned, kind)
    if isinstance(family, Modern) and is_pooled:
        stock.config["classifier_pooling"] = how.pooling.value
    stock.notes = notes
    return stock


def _head(family: Family, kind: str) -> NameTable:
    return {_TOKEN: family.token, _SPAN: family.span}.get(kind, family.sequence)


def _reading(task: TaskConfig) -> list[str]:
    notes = [_READING[task.kind]] if task.kind in _READING else []
    return [*notes, _UNANSWERABLE] if task.unanswerable else notes


def _labels(tuned: FineTuned, kind: str) -> dict[str, object]:
    """What config.json says of the outputs. Spans and choices have no names there."""
    if kind not in (_SEQUENCE, _TOKEN):
        return {}
    names = tuned.how.labels or ["value"]
    told: dict[str, object] = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return told | ({"problem_type": _PROBLEMS[tuned.how.task.kind]} if kind == _SEQUENCE else {})


def _in_units(tensors: dict[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """The last linear layer, whose outputs are in `std`s around `mean`, in the labels' unit."""
    weight, bias = tensors["heads.out.weight"].double(), tensors["heads.out.bias"].double()
    return {"heads.out.weight": (weight * std).float(), "heads.out.bias": (bias * std + mean).float()}


def task_answers(tuned: FineTuned) -> Answerer:
    """(K,) logits a row, or the value in the labels' unit; (L, K) of tokens; (L,) of starts and of ends."""
    how, kind = tuned.how, class_of(tuned.how.task)
    tuned.objective.eval()

    @torch.no_grad()
    def answer(rows: TokenRows) -> Outputs:
        examples = [clean_example(assemble([row], rows.specials, None)) for row in rows.rows]
        outputs = [tuned.objective.logits(example) for example in examples]
        if kind == _SPAN:
            ends = [output_L2.unbind(1) for output_L2 in outputs]
            return {"start_logits": [start_L for start_L, _ in ends], "end_logits": [end_L for _, end_L in ends]}
        if kind == _TOKEN:
            return {"logits": outputs}
        scaled = [output * how.std + how.mean if how.task.is_regression else output for output in outputs]
        return {"logits": [output_1K[0] for output_1K in scaled]}

    return answer
