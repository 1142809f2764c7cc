"""From a task's settings to its kind."""

from typing import Any

from foundation.task.config import TaskConfig, TaskKind
from foundation.task.kinds.base import Kind
from foundation.task.kinds.multilabel import Multilabel
from foundation.task.kinds.multiple_choice import MultipleChoice
from foundation.task.kinds.question_answering import QuestionAnswering
from foundation.task.kinds.retrieval import Retrieval
from foundation.task.kinds.tagging import Tagging
from foundation.task.kinds.texts import Classification, Regression


def build_kind(cfg: TaskConfig) -> Kind[Any, Any, Any]:
    """The one place that tells kinds apart."""
    match cfg.kind:
        case TaskKind.classification:
            return Classification(cfg)
        case TaskKind.regression:
            return Regression(cfg)
        case TaskKind.multilabel:
            return Multilabel(cfg)
        case TaskKind.tagging:
            return Tagging(cfg)
        case TaskKind.question_answering:
            return QuestionAnswering(cfg)
        case TaskKind.multiple_choice:
            return MultipleChoice(cfg)
        case TaskKind.retrieval:
            return Retrieval(cfg)
