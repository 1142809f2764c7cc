"""Fine-tune a foundation on a task:  python -m foundation.finetune task=sst2  (settings: --help; tasks: conf/task/)."""

from typing import Any

from foundation.config import run_entry
from foundation.task.study_config import FinetuneConfig


def _body(cfg: FinetuneConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.task.protocol import finetune

    finetune(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(FinetuneConfig, "finetune", _body)


if __name__ == "__main__":
    main()
