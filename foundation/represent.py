"""Store representations for CKA:  python -m foundation.represent 'runs=[runs/*/finetune]'  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.task.represent_config import RepresentConfig


def _body(cfg: RepresentConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.task.representations import represent

    represent(cfg)


def main() -> None:
    """The command line."""
    run_entry(RepresentConfig, "represent", _body)


if __name__ == "__main__":
    main()
