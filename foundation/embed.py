"""Vectors of texts:  python -m foundation.embed foundation=NAME input=FILE output=vectors.npy  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.serving.config import EmbedConfig


def _body(cfg: EmbedConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.serving.embed import embed

    embed(cfg)


def main() -> None:
    """The command line."""
    run_entry(EmbedConfig, "embed", _body)


if __name__ == "__main__":
    main()
