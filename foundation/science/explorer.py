"""The items that adapted models get wrong, with their texts: what a reader can look through."""

from typing import Any

import numpy as np
from scipy.special import softmax

from foundation.science.items import Items
from foundation.science.records import TaskAnswers

# Of each task the items that most models fail: a page of thousands can neither be opened nor read.
_MOST_ITEMS = 400
_LEAST_SHARE = 0.5


def explored(tasks: dict[str, TaskAnswers], items: dict[str, Items]) -> list[dict[str, Any]]:
    """A record an item that half of the adapted models or more fail, hardest first; plain values, for the page.

    p: of each adapted model, the probability of the right label, in per mille. everyone: no adapted model is right.
    """
    found = []
    for name, task in tasks.items():
        adapted = [n for n, model in enumerate(task.models) if not model.is_scratch] or list(range(len(task.models)))
        if not task.labels:
            continue
        gold = task.gold_N.astype(np.int64)
        failed_MN = task.predicted_MN[adapted] != task.gold_N
        share_N = failed_MN.mean(axis=0)
        order = np.lexsort((np.arange(len(share_N)), -share_N))
        for item in order[share_N[order] >= _LEAST_SHARE][:_MOST_ITEMS].tolist():
            chances = softmax(task.logits_MNK[adapted, item].astype(np.float64), axis=1)
            wrong = task.predicted_MN[adapted, item][failed_MN[:, item]].astype(np.int64)
            found.append(
                {
                    "task": name,
                    "item": task.item_ids[item],
                    "text": items[name].texts[item],
                    "label": task.labels[gold[item]],
                    "answer": task.labels[int(np.bincount(wrong).argmax())],
                    "groups": {key: group[item] for key, group in items[name].groups.items() if key != "label"},
                    "failed": int(failed_MN[:, item].sum()),
                    "models": len(adapted),
                    "everyone": bool(failed_MN[:, item].all()),
                    "p": np.round(1000 * chances[:, gold[item]]).astype(int).tolist(),
                }
            )
    return found


def adapted_models(tasks: dict[str, TaskAnswers]) -> dict[str, list[str]]:
    """Names of a task's models, in the order of `p`."""
    names = {}
    for name, task in tasks.items():
        adapted = [model for model in task.models if not model.is_scratch] or task.models
        names[name] = [str(model) for model in adapted]
    return names
