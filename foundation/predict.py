"""Ask fine-tuned models:  python -m foundation.predict run=FOLDER input=FILE  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.serving.config import PredictConfig


def _body(cfg: PredictConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.serving.predict import predict

    predict(cfg)


def main() -> None:
    """The command line."""
    run_entry(PredictConfig, "predict", _body)


if __name__ == "__main__":
    main()
