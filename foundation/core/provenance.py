"""Where a run comes from: commit and uncommitted diff, versions, machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = {"foundation": "foundation-encoder", "torch": "torch", "numpy": "numpy", "tokenizers": "tokenizers"}
_GIT_SECONDS = 20
_DIFF_BYTES = 4 << 20
_UNTRACKED_NAMES = 100


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints, or None where there is no git, no repository, or no such object."""
    # Reading the state of the tree must not write the index: another git may be at work on it.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, env=environment, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def git_state(source: Path) -> tuple[dict[str, Any] | None, bytes]:
    """The commit that `source` (a tracked file) stands at, and the uncommitted diff; None and no diff outside of git.

    A file that git does not track is an installed copy that happens to lie in somebody's repository: not its commit.
    """
    folder = source.parent
    if _git(folder, "ls-files", "--error-unmatch", source.name) is None:
        return None, b""
    commit, top = _git(folder, "rev-parse", "HEAD"), _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None, b""
    top_folder = Path(os.fsdecode(top).rstrip("\n"))
    diff = _git(top_folder, "diff", "HEAD", "--no-color", "--no-ext-diff") or b""
    untracked = (_git(top_folder, "ls-files", "--others", "--exclude-standard") or b"").decode(errors="replace")
    state = {
        "commit": commit.decode().strip(),
        "uncommitted": bool(diff),
        "diff_cut": len(diff) > _DIFF_BYTES,
        "untracked": untracked.splitlines()[:_UNTRACKED_NAMES],
    }
    return state, diff[:_DIFF_BYTES]


def versions() -> dict[str, str | None]:
    """Versions of what computes; None for what is not installed (a checkout on PYTHONPATH has no version)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name, distribution in _PACKAGES.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """What the run could have used: processor, GPU, platform. No host name: run folders are shared."""
    import torch

    return {
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    """The processor's trade name where Linux tells it; platform.processor() is empty or only the architecture there."""
    names = (line.partition(":")[2].strip() for line in cpu_lines("model name"))
    return next(names, platform.processor() or platform.machine())


def cpu_lines(*names: str) -> list[str]:
    """What /proc/cpuinfo says under these names, each line once, sorted; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.partition(":")[0].strip() in names})
