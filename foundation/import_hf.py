"""In from transformers:  python -m foundation.import_hf folder=FOLDER name=NAME  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.exchange.config import ImportConfig


def _body(cfg: ImportConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.exchange.importing import import_folder

    import_folder(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(ImportConfig, "import_hf", _body)


if __name__ == "__main__":
    main()
