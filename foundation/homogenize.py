"""Measure homogenization:  python -m foundation.homogenize 'runs=[runs/*/finetune]'  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.science.config import HomogenizeConfig


def _body(cfg: HomogenizeConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for numpy and matplotlib.
    from foundation.science.report import homogenize

    homogenize(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(HomogenizeConfig, "homogenize", _body)


if __name__ == "__main__":
    main()
