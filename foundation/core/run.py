"""The run folder: what was asked, with which code, on what, and what it cost.

runs/<name>/
    config.yaml     resolved settings of the first start
    run.json        id, command, git, versions, machine, plan, fingerprints, sessions, ledger, result
    diff.patch      what was not committed (diff.2.patch: at the second start, …)
    .lock           held by the process at work; freed by the system however that process ends
"""

import fcntl
import os
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import yaml

from foundation.core import provenance
from foundation.core.distributed import is_main, main_first
from foundation.core.errors import UserError
from foundation.core.files import read_json, write_atomically, write_json
from foundation.core.run_settings import ABSENT, differences, is_within, read_config, shown, to_yaml

CONFIG_FILE, RUN_FILE, DIFF_FILE, LOCK_FILE = "config.yaml", "run.json", "diff.patch", ".lock"
# What a run has written of itself, or had begun to when it was killed, before any of its work.
_OWN = re.compile(rf"{LOCK_FILE}|\.?({CONFIG_FILE}|{RUN_FILE}|diff(\.\d+)?\.patch)(\..*\.partial)?")
_FINISHED = "finished"
_MOST_LISTED = 12  # settings that differ, in a message
Plain: TypeAlias = dict[str, Any]


def run_exists(path: Path) -> bool:
    """Whether a run was started at `path`, so that it can be resumed."""
    return (path / CONFIG_FILE).is_file() and (path / RUN_FILE).is_file()


def open_run(
    path: Path, config: Plain, *, resume: bool, speed_only: frozenset[str], command: list[str], name: str = "name"
) -> "Run":
    """Start the run at `path`, or go on with it, and hold it against every other process.

    Args:
        config: plain and resolved. name: the setting that gives the folder another name.
        resume: go on with a run that exists; else the folder must be absent, empty, or of a run that never got to anything.
        speed_only: settings (`trainer`, `data.workers`), with all below them, that a resumed run may change.

    Raises:
        UserError: the folder is taken, in use, or absent; or a setting that changes the result differs on resume, when there
            is something to go on with.
    """
    with main_first():
        if not is_main():
            return Run(path, read_json(path / RUN_FILE), lock=None)
        if resume and not run_exists(path):
            raise UserError(f"there is no run to resume at {path}: leave out resume=true to start it, or check name=")
        if not resume:
            _refuse_taken(path)  # before the lock as well: a refusal leaves no file behind
        lock = _hold(path)
        try:
            record = _continued(path, config, speed_only, command, name) if resume else _started(path, config, command)
        except BaseException:
            lock.close()
            raise
        return Run(path, record, lock)


class Run:
    """A run folder that this process holds. On other ranks than 0 it can be read and writes nothing.

    As a context manager it notes how the session ended.
    """

    def __init__(self, path: Path, record: dict[str, Any], lock: BinaryIO | None) -> None:
        self.path = path
        self.record = record
        self._lock = lock

    @property
    def id(self) -> str:
        """Stays the same over resumes, and differs from that of an earlier run under the same name."""
        return str(self.record["id"])

    def update(self, *, fingerprints: dict[str, str] | None = None, ledger: dict[str, float] | None = None) -> None:
        """Add to run.json, atomically.

        Args:
            fingerprints: of the corpus, the tokenizer, …: added to those already there.
            ledger: this session's totals so far, not increments. Keys that begin with `peak_` are maxima over
                sessions in the run's ledger; all others are sums.
        """
        if self._lock is None:
            return
        self.record["fingerprints"].update(fingerprints or {})
        self.record["sessions"][-1]["ledger"].update(ledger or {})
        self.record["ledger"] = _total([session["ledger"] for session in self.record["sessions"]])
        write_json(self.path / RUN_FILE, self.record)

    def note(self, **facts: Any) -> None:
        """Add to what run.json says of this session: a resumed run may compute in another way than it began."""
        if self._lock is not None:
            self.record["sessions"][-1].update(facts)
            self.update()

    def set_plan(self, plan: dict[str, Any]) -> None:
        """Keep what was worked out at the first start and must hold at every resume: the number of steps."""
        self._set("plan", plan)

    def set_result(self, result: dict[str, Any]) -> None:
        """Keep what the whole run came to."""
        self._set("result", result)

    def _set(self, key: str, content: dict[str, Any]) -> None:
        self.record[key] = content
        self.update()

    def close(self, ended: str = _FINISHED) -> None:
        """Note how this session ended and let go of the folder. A second call does nothing."""
        if self._lock is None:
            return
        self.record["sessions"][-1]["ended"] = ended
        try:
            self.update()
        finally:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(_FINISHED if kind is None else f"stopped by {kind.__name__}")
        except OSError:
            if kind is None:  # else what ended the session, a full disk perhaps, is what the user should hear of
                raise


def _hold(path: Path) -> BinaryIO:
    """Lock the run folder, made if need be, for as long as the returned file is open or the process lives."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK_FILE).open("a+b")
    except OSError as error:
        raise UserError(f"cannot write the run folder {path} ({error.strerror}): choose another runs_dir=") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip() or "unknown"
        lock.close()
        raise UserError(
            f"the run at {path} is in use by process {holder}: wait for it, stop it, or choose another name="
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


def remove_run(path: Path) -> None:
    """Clear a run away, if there is one. Raises UserError where a process is at it."""
    if run_exists(path):
        with _hold(path):
            shutil.rmtree(path)


def _refuse_taken(path: Path) -> None:
    if path.is_dir() and any(entry.name != LOCK_FILE for entry in path.iterdir()) and not _left_nothing(path):
        raise UserError(
            f"{path} already holds something: choose another name= for a new run, or go on with it by resume=true"
        )


def _left_nothing(path: Path) -> bool:
    """Whether a run was stopped, by a mistake in its settings perhaps, before it wrote more than its own record, or doing so."""
    names = [entry.name for entry in path.iterdir()]
    if LOCK_FILE not in names or not all(_OWN.fullmatch(name) for name in names):
        return False
    sessions = read_json(path / RUN_FILE)["sessions"] if run_exists(path) else []
    return all(session["ended"] != _FINISHED for session in sessions)


def _started(path: Path, config: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """Fill a vacant run folder. The lock is held, so nobody else fills it meanwhile."""
    _refuse_taken(path)
    for left in (*path.glob("diff*.patch"), *path.glob(".*.partial")):
        left.unlink()
    origin = _origin(path, session=1)
    record = {
        "id": f"{path.name}-{uuid.uuid4().hex[:8]}",
        "created": _now(),
        "command": command,
        **origin,
        "fingerprints": {},
        "ledger": {},
        "sessions": [_session(command)],
    }
    with write_atomically(path / CONFIG_FILE) as file:
        file.write(to_yaml(config).encode())
    write_json(path / RUN_FILE, record)
    return record


def _continued(path: Path, config: Plain, speed_only: frozenset[str], command: list[str], name: str) -> Plain:
    """Add a session to a run, if its settings still are those that its result depends on."""
    changed = _changes(path, config)
    forbidden = {key: values for key, values in changed.items() if not is_within(key, speed_only)}
    if forbidden and _left_nothing(path):
        return _started(path, config, command)
    if forbidden:
        has_newer = any(old is ABSENT for old, _ in forbidden.values())
        newer = " (what is absent there is newer than the run: the version in its run.json goes on with it)" * has_newer
        raise UserError(
            f"cannot resume {path}: these settings change the result and differ from its {CONFIG_FILE}:\n{_listed(forbidden)}\n"
            f"Give them their old values{newer}, or start a new run under another {name}=."
        )
    record: Plain = read_json(path / RUN_FILE)
    for session in record["sessions"]:
        session["ended"] = session["ended"] or "killed"
    session = _session(command)
    session["changed"] = {key: [shown(old), shown(new)] for key, (old, new) in sorted(changed.items())}
    origin = _origin(path, session=len(record["sessions"]) + 1)
    session["origin_changed"] = {key: now for key, now in origin.items() if now != record[key]}
    record["sessions"].append(session)
    write_json(path / RUN_FILE, record)
    return record


def refuse_other_settings(path: Path, config: Plain, speed_only: frozenset[str]) -> None:
    """Raise UserError where a finished run was made under other settings than these; what is newer than it is passed over."""
    changed = _changes(path, config).items()
    told = {key: pair for key, pair in changed if not is_within(key, speed_only) and pair[0] is not ABSENT}
    if told:
        raise UserError(
            f"{path} is finished, under other settings than these:\n{_listed(told)}\n"
            "Give them their old values to keep it, or start a new run under another name=."
        )


def _changes(path: Path, config: Plain) -> dict[str, tuple[Any, Any]]:
    """What a run's settings were and what they would be, where these differ: as YAML has them, which knows no tuples."""
    return differences(read_config(path / CONFIG_FILE), yaml.safe_load(to_yaml(config)))


def _listed(changed: dict[str, tuple[Any, Any]]) -> str:
    """A line each, up to _MOST_LISTED of them."""
    lines = [f"  {key}: {shown(old)} → {shown(new)}" for key, (old, new) in sorted(changed.items())]
    more = [f"  and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
    return "\n".join([*lines[:_MOST_LISTED], *more])


def _origin(path: Path, session: int) -> dict[str, Any]:
    """Code and machine of this session; the diff goes into a file of its own, unless the first session had the same."""
    state, diff = provenance.git_state(Path(__file__))
    if state is not None and diff:
        first = path / DIFF_FILE
        same = first.is_file() and first.read_bytes() == diff
        state["diff_file"] = DIFF_FILE if session == 1 or same else f"diff.{session}.patch"
        with write_atomically(path / state["diff_file"]) as file:
            file.write(diff)
    return {"git": state, "versions": provenance.versions(), "machine": provenance.machine()}


def _session(command: list[str]) -> dict[str, Any]:
    return {"started": _now(), "command": command, "ended": None, "ledger": {}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _total(ledgers: list[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for ledger in ledgers:
        for key, value in ledger.items():
            before = total.get(key, 0)
            total[key] = max(before, value) if key.startswith("peak_") else before + value
    return total
