"""The server: loads the tasks, takes the port, and answers until it is told to stop."""

import signal
import socket

import uvicorn

from foundation.core.errors import UserError
from foundation.core.memory import keep_freed_memory
from foundation.serving.app import make_app
from foundation.serving.config import ServeConfig, as_list
from foundation.serving.panel import Panel, load_panel

# Connections beyond are answered 503 at once: each may hold a body in memory.
_CONNECTIONS = 256


def serve(cfg: ServeConfig) -> None:
    """Answer until Ctrl-C or SIGTERM; open requests are finished first. Raises UserError where the port is not free."""
    keep_freed_memory()
    listening = _listen(cfg)
    try:
        panel = load_panel(as_list(cfg.runs), cfg.trainer, cfg.batch_tokens)
        host, port = listening.getsockname()[:2]
        print(_greeting(panel, f"http://{f'[{host}]' if ':' in host else host}:{port}"), flush=True)
        config = uvicorn.Config(
            make_app(panel, cfg),
            log_level="warning",
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=cfg.stop_seconds,
            server_header=False,
        )
        # uvicorn finishes what is open and then raises the signal once more; by then it has been heeded.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        listening.close()


def _listen(cfg: ServeConfig) -> socket.socket:
    """Before anything is loaded: a port that is taken should be said at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(cfg.host, cfg.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        raise UserError(
            f"cannot listen on host={cfg.host} port={cfg.port} ({error.strerror}): choose another port, or port=0 for a free one"
        ) from None
    return listening


def _greeting(panel: Panel, url: str) -> str:
    tasks, encoders = _counted(len(panel.models), "task"), _counted(len(panel.encoders), "encoder")
    lines = [f"{tasks} on {encoders}, {panel.held:,} parameters in memory"]
    if panel.held < panel.held_alone:
        lines[0] += f" (each task on its own: {panel.held_alone:,})"
    lines += [f"  {', '.join(names)}" for names in panel.encoders]
    lines += [f"{url}  the page    {url}/docs  the API    Ctrl-C stops"]
    return "\n".join(lines)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
