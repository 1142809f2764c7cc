"""Files that are whole or absent: atomic writes, verified reads, content hashes."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from foundation.core.errors import UserError

_CHUNK_BYTES = 1 << 20
# Hexadecimal ones, which tell apart what several processes write for the same place.
_MARK_DIGITS = 8


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only when the folder that holds the name is flushed too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def folder_in_progress(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling folder, renamed to `final` when the block ends well; it must not exist, or is replaced.

    What killed processes left of earlier attempts at `final` is removed.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_litter(final)
    partial, lock = _held_folder(final)
    try:
        yield partial
        if replace and final.exists():
            _exchange(final, partial)
        else:
            os.rename(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    _sync_folder(final.parent)


def _held_folder(final: Path) -> tuple[Path, int]:
    """A new partial folder of `final`, and the descriptor that holds it for as long as it is open or the process lives."""
    while True:
        partial = _partial(final)
        partial.mkdir()
        # Before it is held another process may take it for litter: then once more.
        with suppress(FileNotFoundError):
            lock = os.open(partial, os.O_RDONLY)
            # Not every file system can lock a folder; on one that cannot, nobody takes a folder for litter.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if partial.is_dir():
                return partial, lock
            os.close(lock)


def _remove_litter(final: Path) -> None:
    """Remove the partial folders of `final` that no process holds."""
    for partial in final.parent.glob(f".{glob.escape(final.name)}.{'?' * _MARK_DIGITS}.partial"):
        with suppress(OSError):  # held, or of a file that is being written
            lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(partial, ignore_errors=True)
            finally:
                os.close(lock)


def _partial(final: Path) -> Path:
    """A hidden name beside `final`, of its own at each call."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:_MARK_DIGITS]}.partial")


def _exchange(old: Path, new: Path) -> None:
    """Put a folder in the place of another, which is deleted last."""
    aside = _partial(old)
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def is_full_disk(error: OSError) -> bool:
    """Whether it says that no more may be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    with write_atomically(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; a file that is missing or damaged raises UserError with its name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file at {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or make it again") from None


def hash_file(path: Path) -> str:
    """Content hash of a file: 32 hex digits of BLAKE2b."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def checksum_file(path: Path) -> str:
    """Checksum of a file, `xxh3_128:` and 32 hex digits, as `xxhsum -H2` gives them; at the rate of memory.

    It tells damage, in a sixteenth of hash_file's time (an EPYC); it does not tell apart what someone made to look alike, so
    that it is no identity.
    """
    digest = xxhash.xxh3_128()
    chunk = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(chunk):
            digest.update(chunk[:n_bytes])
    return f"xxh3_128:{digest.hexdigest()}"


def fingerprint(content: Any) -> str:
    """16 hex digits that stand for a JSON-like value, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
