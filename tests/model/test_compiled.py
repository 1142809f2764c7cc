"""The compiled passes are found, kept apart by what decides about their instructions, and missed aloud."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from foundation.model import compiled as room
from foundation.model import native
from foundation.model.compiled import compiled

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and nothing found yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.cache_clear()
    yield tmp_path / "foundation"
    compiled.cache_clear()


def test_without_a_compiler_the_plain_path_is_said_once_and_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    passes = [native.passes(CPU, bf16=True) for _ in range(2)]
    why = "no-such-compiler is not there: install a C compiler (gcc or clang), or name one by CC="
    assert passes == [native.Passes(False, why)] * 2
    said = capsys.readouterr().err.splitlines()
    assert said == [f"note: the plain passes run, the fused ones would be faster: {why}"]


def test_a_compiler_that_fails_is_quoted(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "old cc"
    compiler.write_text("#!/bin/sh\n[ $1 = --version ] && exit 0\necho unknown flag -march=native >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"'{compiler}' -pthread")
    assert compiled().library is None
    assert "cannot compile kernels.c (unknown flag -march=native)" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "true")
    cache.write_text("a file where the folder should be")
    assert compiled().library is None
    assert f"let {cache} be written, or name another by XDG_CACHE_HOME=" in capsys.readouterr().err


def test_nobodys_home_is_said_and_asked_for_only_where_it_is_needed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user number without a name, as containers have."""

    def homeless(self: Path) -> Path:
        if str(self).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return self

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert room._folder() == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiled().library is None
    assert "no home folder to keep them in: name one that can be written by XDG_CACHE_HOME=" in capsys.readouterr().err


def test_what_the_fused_passes_are_not_for_asks_no_compiler(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    expected = native.Passes(False, "the fused ones are for bf16 on a CPU")
    assert native.passes(CPU, bf16=False) == native.passes(torch.device("cuda"), bf16=True) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_another_processor_or_compiler_has_a_library_of_its_own_and_the_same_finds_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = {room._key(["cc"])}
    monkeypatch.setattr(room, "cpu_lines", lambda *_: ["flags: fpu sse2"])
    keys.add(room._key(["cc"]))
    assert room._key(["cc"]) in keys
    monkeypatch.setattr(room, "cpu_lines", lambda *_: ["flags: fpu sse2 avx512f"])
    keys.add(room._key(["cc"]))
    other = tmp_path / "cc"
    other.write_text("#!/bin/sh\necho version 99\n")
    other.chmod(0o755)
    keys.add(room._key([str(other)]))
    assert len(keys) == 4


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_what_was_compiled_is_found_again(cache: Path) -> None:
    assert native.passes(CPU, bf16=True) == native.Passes(True)
    (path,) = cache.iterdir()
    made = path.stat().st_mtime_ns
    compiled.cache_clear()
    assert compiled().library is not None
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [made]
