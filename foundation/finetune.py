"""Fine-tune a foundation on tasks:  python -m foundation.finetune task=sst2  (settings: --help; tasks: conf/task/)."""

import json
from typing import TYPE_CHECKING, Any

from foundation.config import recompose, run_entry
from foundation.core.errors import UserError
from foundation.model.sharing.config import SharingMethod
from foundation.task.study_config import FinetuneConfig, SuiteConfig

if TYPE_CHECKING:
    from foundation.task.suite import Member


def _body(cfg: FinetuneConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    if isinstance(cfg.task, SuiteConfig) or cfg.methods:
        from foundation.task.suite import run_suite

        parents = cfg.task.parents if isinstance(cfg.task, SuiteConfig) else {}
        run_suite(cfg.task.name, _members(cfg), parents)
    elif cfg.n_train:
        from foundation.task.few_shot import few_shot

        few_shot(cfg, settings)
    elif cfg.sharing.method is SharingMethod.multitask:
        raise UserError("sharing=multitask is for several tasks: task=suite 'task.tasks=[sst2,mrpc]'")
    else:
        from foundation.task.protocol import finetune

        finetune(cfg, settings)


def _members(cfg: FinetuneConfig) -> list["Member"]:
    """Every task under every method, each as a command of its own would have it."""
    from foundation.task.suite import Member

    if cfg.methods:
        _refuse_other_sharing(cfg)
    tasks = [{"task": name} for name in cfg.task.in_order()] if isinstance(cfg.task, SuiteConfig) else [{}]
    methods = [{"sharing": name} for name in cfg.methods] or [{}]
    of_tasks = cfg.task.settings if isinstance(cfg.task, SuiteConfig) else {}
    found = []
    for way in methods:
        for task in tasks:
            own = _words(of_tasks.get(task.get("task", ""), {}))
            found.append(Member(*recompose(FinetuneConfig, "finetune", {**task, **way}, own)))
    return found


def _refuse_other_sharing(cfg: FinetuneConfig) -> None:
    """Raise UserError where a comparison of methods would drop what is said of sharing besides."""
    usual, _ = recompose(FinetuneConfig, "finetune", {"sharing": SharingMethod.full.value})
    if cfg.sharing != usual.sharing:
        raise UserError(
            f"methods=[{','.join(cfg.methods)}] takes each method as its YAML has it, and would drop sharing= and sharing.*: "
            "leave them out, or run the one method alone, without methods="
        )


def _words(settings: dict[str, Any], room: str = "") -> list[str]:
    """As on the command line, `optim.lr=0.1`, whether written {optim.lr: 0.1} or {optim: {lr: 0.1}}."""
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += _words(value, f"{room}{key}.")
        else:
            found.append(f"{room}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return found


def main() -> None:
    """The command line."""
    run_entry(FinetuneConfig, "finetune", _body)


if __name__ == "__main__":
    main()
