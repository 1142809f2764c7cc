"""Ask a foundation as it is:  python -m foundation.evaluate foundation=small  (settings: --help; kinds: conf/evaluation/)."""

from typing import Any

from foundation.config import run_entry
from foundation.evaluation.config import EvaluateConfig


def _body(cfg: EvaluateConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.evaluation.session import evaluate

    evaluate(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(EvaluateConfig, "evaluate", _body)


if __name__ == "__main__":
    main()
