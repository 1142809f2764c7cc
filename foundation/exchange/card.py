"""The README.md of an exported folder: what it is, how to use it, where it comes from, what it scored, where it ends."""

from pathlib import Path
from typing import Any

from foundation.core.files import read_json
from foundation.core.run import RUN_FILE
from foundation.data.sources import source_title
from foundation.exchange.family import Stock
from foundation.exchange.lineage import arms_of, spread, trace
from foundation.task.results import SCORES_FILE

_PIPELINES = {
    "ForPreTraining": "fill-mask",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
}
# By kind of task: what the tokenizer is given, and how what it gives goes into the model.
_OF_CHOICES = "**{name: ids[None] for name, ids in rows.items()}"
_ASKED = {
    "question_answering": ('"A question?", "A text that may answer it."', "**rows"),
    "multiple_choice": ('["A question?"] * 2, ["One choice.", "Another."], padding=True', _OF_CHOICES),
    "retrieval": ('["A text."] * 2, ["One candidate.", "Another."], padding=True', _OF_CHOICES),
}
# Kinds of task whose outputs have names.
_NAMED = ("classification", "multilabel", "tagging")
# More labels than this are left to config.json.
_LABELS_SHOWN = 20


def model_card(final: Path, stock: Stock, max_tokens: int, difference: float) -> str:
    """Markdown, from what lies beside the model in its run folder; what is not there is not told."""
    info, lineage = read_json(final / "config.json"), trace(final)
    kind = stock.architecture.removeprefix("ModernBert").removeprefix("Bert")
    parts = [
        _header(kind, stock.config["model_type"]),
        f"# {info.get('name', final.parent.name)}",
        f"A `{stock.architecture}` of transformers, exported by Foundation from the model `{lineage.subject}`.",
        *_head(info),
        _use(kind, info.get("task", {})),
        "## Where it comes from",
        lineage.mermaid(),
    ]
    root = lineage.foundation
    if root is not None:
        parts += [*_corpus(root, read_json(root / "config.json")), *_recipe(root, "Recipe of the foundation")]
    if root != final:
        parts += _recipe(final, "Recipe of the fine-tune")
    parts += [*_scores(final, info), _limits(stock, info, max_tokens, difference)]
    return "\n\n".join(parts) + "\n"


def _header(kind: str, model_type: str) -> str:
    pipeline = _PIPELINES.get(kind, "feature-extraction")
    return f"---\nlibrary_name: transformers\npipeline_tag: {pipeline}\ntags: [{model_type}, foundation-encoder]\n---"


def _head(info: dict[str, Any]) -> list[str]:
    """What a fine-tuned model's head was trained for."""
    if "task" not in info:
        return []
    task, labels = info["task"], info["labels"]
    told = f"Its head is that of the task `{task['name']}`: {task['kind'].replace('_', ' ')}"
    if task["kind"] in _NAMED:
        shown = ", ".join(f"`{label}`" for label in labels[:_LABELS_SHOWN])
        more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
        told += f", with the labels {shown}{more}"
    return [f"{told}."]


def _use(kind: str, task: dict[str, Any]) -> str:
    """How transformers is asked; task: that of the head, if there is one."""
    auto = f"AutoModel{'' if kind == 'Model' else kind}"
    text = '"One text.", "The other."' if task.get("text_pair") else '"A text."'
    texts, inputs = _ASKED.get(task.get("kind", ""), (text, "**rows"))
    return f"""```python
from transformers import AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = {auto}.from_pretrained(FOLDER)
rows = tokenizer({texts}, return_tensors="pt")
outputs = model({inputs})
```"""


def _corpus(final: Path, info: dict[str, Any]) -> list[str]:
    """Counts and sources of the corpus, if its manifest is still among the runs."""
    if "corpus" not in info:
        return []
    told = f"Corpus `{info['corpus']}`, tokenizer `{info['tokenizer']}`."
    for path in sorted(final.parent.parent.glob("corpora/*/manifest.json")):
        manifest = read_json(path)
        if manifest.get("fingerprint") == info["corpus"]:
            train = manifest["train"]
            names = [source_title(source) for source in manifest["sources"][:10]]
            more = "" if len(manifest["sources"]) <= 10 else f" and {len(manifest['sources']) - 10} more"
            told += (
                f" {train['documents']:,} documents, {train['words']:,} words, {train['tokens']:,} tokens, "
                f"from {', '.join(names)}{more}."
            )
    return ["## Corpus", told]


def _recipe(final: Path, title: str) -> list[str]:
    """Command, versions and costs of the run."""
    info = read_json(final / "config.json")
    record_file = next((p / RUN_FILE for p in (final.parent, final.parent.parent) if (p / RUN_FILE).is_file()), None)
    if record_file is None:
        return []
    record = read_json(record_file)
    rows = {
        "command": f"`{' '.join(record['command'])}`",
        "commit": (record.get("git") or {}).get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version),
        "seed": info.get("seed"),
        "steps": info.get("steps"),
        "tokens seen": info.get("tokens"),
        "sharing": (info.get("sharing") or {}).get("method"),
        "seconds": round(record["ledger"]["seconds"]) if "seconds" in record["ledger"] else None,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    return [f"## {title}", "\n".join(["| | |", "|---|---|", *lines])]


def _scores(final: Path, info: dict[str, Any]) -> list[str]:
    """Held-out scores of a foundation and those of its fine-tunes; or an arm's mean, spread and every seed."""
    own = info.get("scores") or info.get("held_out") or {}
    table = "\n".join(["| score | this model |", "|---|---|", *(f"| {n} | {v:.4f} |" for n, v in own.items())])
    parts = ["## Scores", table] if own else []
    arms = [final.parent.parent] if "task" in info else arms_of(final, info["fingerprint"])
    rows = [_arm_row(read_json(arm / SCORES_FILE)) for arm in arms if (arm / SCORES_FILE).is_file()]
    if rows:
        head = [
            "| task | arm | metric | mean ± sd over seeds | every seed (!: collapsed) | a constant answer |",
            "|---|---|---|---|---|---|",
        ]
        parts += ["\n".join([*head, *rows])]
    return parts


def _arm_row(scores: dict[str, Any]) -> str:
    values = " ".join(f"{seed['value']:.3f}{'!' if seed['collapsed'] else ''}" for seed in scores["seeds"])
    cells = [scores["task"], scores["arm"], scores["metric"], spread(scores), values, f"{scores['baseline']:.3f}"]
    return f"| {' | '.join(cells)} |"


def _limits(stock: Stock, info: dict[str, Any], max_tokens: int, difference: float) -> str:
    """What was proved, what was left out, and what nobody has looked at."""
    points = [
        f"On real text, transformers gives this model's own logits within {difference:.1g} (float32, relative to the "
        "largest logit where that is above 1).",
        f"It was trained on rows of at most {max_tokens} tokens; what it does beyond is unknown.",
        *stock.notes,
    ]
    if "corpus" in info or "parent" in info:
        points.append(
            "It knows the language and the views of its corpus, and every task made from one foundation inherits that "
            "foundation's blind spots; it was not examined for harmful bias."
        )
    if "imported" in info:
        points.append("It was imported: what it was trained on is told where it came from.")
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points)
