"""Pretrain one encoder:  python -m foundation.pretrain +exp=small  (settings: --help; recipes: conf/exp/)."""

from typing import Any

from foundation.config import run_entry
from foundation.train.pretrain_config import PretrainConfig


def _body(cfg: PretrainConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.pretraining import pretrain

    pretrain(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(PretrainConfig, "pretrain", _body)


if __name__ == "__main__":
    main()
