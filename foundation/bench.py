"""Measure speed, side by side with Hugging Face:  python -m foundation.bench  (settings: --help; case sets: conf/bench/)."""

from typing import Any

from foundation.benchmark.config import BenchConfig
from foundation.config import run_entry


def _body(cfg: BenchConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    from foundation.benchmark.session import bench

    bench(cfg, settings)


def main() -> None:
    """The command line."""
    run_entry(BenchConfig, "bench", _body)


if __name__ == "__main__":
    main()
