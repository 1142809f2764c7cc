"""The kinds of task, and the metrics that judge them."""

from enum import Enum


class TaskKind(str, Enum):
    """What is asked, and what an answer is. Each is one file of kinds/.

    classification: one of a few labels. regression: a number. multilabel: any of a few labels, or none. tagging: a label for
    each word. question_answering: a part of the text, or that there is none. multiple_choice: one of a few texts.
    retrieval: an order of texts, by how well they go with the first.
    """

    classification = "classification"
    regression = "regression"
    multilabel = "multilabel"
    tagging = "tagging"
    question_answering = "question_answering"
    multiple_choice = "multiple_choice"
    retrieval = "retrieval"


class Metric(str, Enum):
    """The number a task is judged by. usual: the first of its kind's in METRICS. f1: of the second of two labels.

    exact_match: the share of rows with every label right, or of answers right to the letter. answer_f1: overlap in words.
    entity_f1: of whole entities. mrr: mean of 1 / rank of the right one. recall_at_k: it is among the first k.
    """

    usual = "usual"
    accuracy = "accuracy"
    f1 = "f1"
    f1_micro = "f1_micro"
    f1_macro = "f1_macro"
    matthews = "matthews"
    pearson = "pearson"
    spearman = "spearman"
    exact_match = "exact_match"
    entity_f1 = "entity_f1"
    answer_f1 = "answer_f1"
    mrr = "mrr"
    recall_at_1 = "recall_at_1"
    recall_at_2 = "recall_at_2"
    recall_at_5 = "recall_at_5"


# The metrics that judge a kind; the first is its usual one.
METRICS = {
    TaskKind.classification: (Metric.accuracy, Metric.f1, Metric.f1_micro, Metric.f1_macro, Metric.matthews),
    TaskKind.regression: (Metric.pearson, Metric.spearman),
    TaskKind.multilabel: (Metric.f1_micro, Metric.f1_macro, Metric.exact_match),
    TaskKind.tagging: (Metric.accuracy, Metric.f1_macro, Metric.entity_f1),
    TaskKind.question_answering: (Metric.answer_f1, Metric.exact_match),
    TaskKind.multiple_choice: (Metric.accuracy,),
    TaskKind.retrieval: (Metric.mrr, Metric.recall_at_1, Metric.recall_at_2, Metric.recall_at_5),
}
REGRESSION_METRICS = METRICS[TaskKind.regression]


class TagScheme(str, Enum):
    """plain: a tag is a class of words. bio: B-X and I-X say that a word begins or goes on with an entity X; O: neither."""

    plain = "plain"
    bio = "bio"
