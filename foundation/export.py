"""Out to transformers:  python -m foundation.export run=FOLDER to=FOLDER  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.exchange.config import ExportConfig


def _body(cfg: ExportConfig, settings: dict[str, Any]) -> None:
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.exchange.exporting import export

    export(cfg)


def main() -> None:
    """The command line."""
    run_entry(ExportConfig, "export", _body)


if __name__ == "__main__":
    main()
