"""wandb, as a copy of the run's numbers that may fail without harm: it never asks, and never stops a run."""

import atexit
import contextlib
import netrc
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from foundation.core.config import LoggerConfig, WandbMode
from foundation.core.distributed import is_main
from foundation.core.metric_names import FAMILIES, STEP, SUMMARIES

if TYPE_CHECKING:
    from wandb import Run as WandbRun

_INIT_SECONDS = 30
# How long the end of a run waits for uploads; what is left stays on disk for `wandb sync`.
_FINISH_SECONDS = 600
# wandb finds a key that was stored under a former address of the same server.
_FORMER_HOSTS = {"api.forge.coreweave.com": "api.wandb.ai"}
_DATA_DIR = "WANDB_DATA_DIR"


class WandbLog:
    """One wandb run, or nothing at all: after the first failure every method does nothing."""

    def __init__(self, run: "WandbRun | None" = None, *, online: bool = False) -> None:
        self._run = run
        self._online = online

    @property
    def active(self) -> bool:
        return self._run is not None

    def log(self, metrics: dict[str, Any]) -> None:
        """Send the metrics of one step; `step` among them is their axis."""
        # Without wandb's own step: it must never fall, and a resumed run goes over some steps again.
        self._attempt(lambda run: run.log(metrics))

    def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        def send(run: "WandbRun") -> None:
            import wandb

            with _staging_in(Path(run.dir).parent / "staging"):
                run.log({name: wandb.Table(columns=[*columns], data=rows)})

        self._attempt(send)

    def log_model(self, path: Path, name: str, type: str, metadata: dict[str, Any]) -> None:
        """Record a folder or a file that will not change any more, as an artifact; it is not copied."""

        def send(run: "WandbRun") -> None:
            import wandb

            artifact = wandb.Artifact(_allowed(name), type, metadata=metadata)
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            for file in files:
                inner = file.relative_to(path).as_posix() if path.is_dir() else file.name
                artifact.add_file(str(file.resolve()), name=inner, policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._attempt(send)

    def use_artifact(self, name: str, type: str) -> None:
        """Note that this run builds on an artifact. Offline there is nobody to ask which one that is."""
        if self._run is None or not self._online:
            return
        try:
            self._run.use_artifact(f"{_allowed(name)}:latest", type=type)
        except Exception as error:
            # Made offline, or under another project: a missing link in the lineage, no reason to lose the numbers.
            _warn(f"could not link {name} ({_first_line(error)}); the run goes on")

    def summary(self, values: dict[str, Any]) -> None:
        """Set what stands for the whole run."""
        self._attempt(lambda run: run.summary.update(values))

    def finish(self, *, ended_well: bool = True) -> None:
        """Send what is left, within limits, and mark the run as finished or failed."""
        self._attempt(lambda run: run.finish(exit_code=0 if ended_well else 1))
        self._run = None

    def _attempt(self, action: "Callable[[WandbRun], object]") -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _give_up(error)


def start_wandb(
    cfg: LoggerConfig, *, run_path: Path, name: str, group: str, job_type: str, config: dict[str, Any], run_id: str
) -> WandbLog:
    """Open the wandb copy of a run, in `<run_path>/wandb`; a copy that does nothing where wandb is off or fails.

    Args:
        run_id: the same at every resume, so that wandb goes on with the same run.
    """
    if cfg.wandb is WandbMode.disabled or not is_main():
        return WandbLog()
    try:
        mode, needs_key = _mode(cfg.wandb)
        if mode is WandbMode.disabled:
            return WandbLog()
        # Else wandb reports on itself to its server, offline too; read when its service starts.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # wandb asks for a key only where it may print; silent from the start, it cannot ask.
        wandb.setup(settings=wandb.Settings(silent=True))
        if needs_key and not _has_key(wandb.setup().settings.base_url):
            mode = WandbMode.offline
        run = wandb.init(
            project=cfg.project,
            entity=cfg.entity,
            dir=str(run_path),
            id=_allowed(run_id),
            resume="allow",
            name=name,
            group=group,
            job_type=job_type,
            tags=cfg.tags,
            config=config,
            mode="online" if mode is WandbMode.online else "offline",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS,
            ),
        )
        _define_axes(run)
    except Exception as error:
        _give_up(error)
        return WandbLog()
    if needs_key and mode is WandbMode.offline:
        _warn(f"no key, so the run is recorded offline; send it later with: wandb sync {Path(run.dir).parent}")
    return WandbLog(run, online=mode is WandbMode.online)


def _mode(wanted: WandbMode) -> tuple[WandbMode, bool]:
    """The mode, and whether it holds only where a key is found."""
    if wanted is WandbMode.auto:
        # The two old names are wandb's own.
        old_names = {"": "online", "run": "online", "dryrun": "offline"}
        asked = os.environ.get("WANDB_MODE", "")
        wanted = WandbMode(old_names.get(asked, asked))
        if wanted is WandbMode.auto:
            wanted = WandbMode.online
    return wanted, wanted is WandbMode.online


def _has_key(base_url: str) -> bool:
    """Whether wandb would find a key for its server without asking."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        keys = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    host = urlsplit(base_url).netloc
    return any(name in keys.hosts and keys.hosts[name][2] for name in (host, _FORMER_HOSTS.get(host)))


def _define_axes(run: "WandbRun") -> None:
    run.define_metric(STEP, hidden=True)
    for family in FAMILIES:
        run.define_metric(f"{family}/*", step_metric=STEP)
    for metric, summary in SUMMARIES.items():
        run.define_metric(metric, step_metric=STEP, summary=summary)


@contextlib.contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Keep what wandb copies for a later `wandb sync` beside the run, not in the home folder: no other setting does."""
    before = os.environ.get(_DATA_DIR)
    os.environ[_DATA_DIR] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DATA_DIR]


def _allowed(name: str) -> str:
    """A name as wandb takes it for runs and artifacts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _give_up(error: Exception) -> None:
    """Say once that there will be no copy, and keep wandb from failing again, with a traceback, at exit."""
    _warn(f"switched off ({_first_line(error)}); the run goes on, and metrics.jsonl has every number")
    if "wandb" in sys.modules:
        atexit.register(_tear_down)


def _tear_down() -> None:
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _warn(text: str) -> None:
    tqdm.write(f"wandb: {text}", file=sys.stderr)
