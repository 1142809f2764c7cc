"""Files that are whole or absent: atomic writes, verified reads, content hashes."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from foundation.core.errors import UserError

_CHUNK_BYTES = 1 << 20
_PART_BYTES = 8 << 20


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
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
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
def folder_in_progress(final: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder, renamed to `final` (which must not exist) when the block ends well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        os.rename(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(final.parent)


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


def hash_large_file(path: Path) -> str:
    """Content hash of a file on all cores: 64 hex digits of SHA-256 over the SHA-256 of its parts of 8 MiB.

    Twice hash_file's rate on each core, where the processor has instructions for SHA-256. Not its equal: what one of the two
    has taken, the other cannot verify.
    """
    n_parts = -(-path.stat().st_size // _PART_BYTES)

    def of_part(number: int) -> bytes:
        with path.open("rb", buffering=0) as file:
            file.seek(number * _PART_BYTES)
            return hashlib.sha256(file.read(_PART_BYTES)).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return hashlib.sha256(b"".join(pool.map(of_part, range(n_parts)))).hexdigest()


def fingerprint(content: Any) -> str:
    """16 hex digits that stand for a JSON-like value, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
