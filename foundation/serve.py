"""Answer over HTTP:  python -m foundation.serve runs=[FOLDER,FOLDER]  (settings: --help)."""

from typing import Any

from foundation.config import run_entry
from foundation.core.errors import UserError
from foundation.serving.config import ServeConfig


def _body(cfg: ServeConfig, settings: dict[str, Any]) -> None:
    cfg.check()
    # Here, not at the top: --help and a mistyped setting should not wait for torch.
    try:
        from foundation.serving.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "fastapi_offline", "uvicorn", "starlette"):
            raise
        raise UserError(f"serving needs {error.name}: pip install 'foundation-encoder[serve]'") from None

    serve(cfg)


def main() -> None:
    """The command line."""
    run_entry(ServeConfig, "serve", _body)


if __name__ == "__main__":
    main()
