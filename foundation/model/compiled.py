"""kernels.c as a loaded library: compiled on first use, found again while source, flags, compiler and processor are the same."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from foundation.core.distributed import is_main
from foundation.core.provenance import cpu_lines

_SOURCE = Path(__file__).with_name("kernels.c")
# No -ffast-math: a NaN must stay one, since the loop watches for it.
_FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
_FLAGS += ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
_FLAGS += ["-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
# Lines of /proc/cpuinfo by which -march=native chooses instructions, on x86 and on ARM.
_INSTRUCTION_SET = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")


@dataclass(frozen=True, slots=True)
class Compiled:
    """library: None where it cannot be had; problem: then why, and what to do."""

    library: ctypes.CDLL | None
    problem: str = ""


@functools.cache
def compiled() -> Compiled:
    """The library of this process. Where there is none that is said once, in a line: the slower path should surprise nobody."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    try:
        return Compiled(ctypes.CDLL(str(_shared_object(compiler))))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        problem = (
            f"{compiler[0]} cannot compile {_SOURCE.name} ({said}): install a current gcc or clang, or name one by CC="
        )
    except FileNotFoundError as error:
        problem = f"{error.filename} is not there: install a C compiler (gcc or clang), or name one by CC="
    except OSError as error:
        problem = f"{error.strerror or error}: let {_folder()} be written, or name another by XDG_CACHE_HOME="
    except RuntimeError:
        problem = (
            "whoever runs this has no home folder to keep them in: name one that can be written by XDG_CACHE_HOME="
        )
    if is_main():
        print(f"note: the plain passes run, the fused ones would be faster: {problem}", file=sys.stderr, flush=True)
    return Compiled(None, problem)


def _shared_object(compiler: list[str]) -> Path:
    """Where the compiled passes are, made if need be (a second)."""
    path = _folder() / f"kernels-{_key(compiler)}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            partial = Path(scratch) / path.name
            command = [*compiler, *_FLAGS, "-o", str(partial), str(_SOURCE), "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            os.replace(partial, path)
    return path


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "foundation"


def _key(compiler: list[str]) -> str:
    """Of all that decides about the instructions: a home folder that several machines share hands no code to the wrong one."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True).stdout
    processor = cpu_lines(*_INSTRUCTION_SET) or [platform.machine(), platform.processor()]
    parts = [_SOURCE.read_bytes(), version, *(word.encode() for word in (*compiler, *_FLAGS, *processor))]
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()
