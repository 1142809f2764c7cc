import os
import random
import resource
import subprocess
import sys

import pytest
import xxhash

from foundation.core.errors import UserError
from foundation.core.files import (
    checksum_file,
    fingerprint,
    folder_in_progress,
    hash_file,
    read_json,
    write_atomically,
    write_json,
)

FILL_UP = """
import sys
from pathlib import Path
from foundation.core.files import write_atomically
target = Path(sys.argv[1]) / "weights"
with write_atomically(target) as file:
    file.write(b"old")
try:
    with write_atomically(target) as file:
        file.write(b"x" * (4 << 20))
except OSError as error:
    print(error.errno, target.read_bytes().decode(), [path.name for path in target.parent.iterdir()])
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_takes_the_place_of_the_old_one(tmp_path):
    for content in (b"old", b"new"):
        with write_atomically(tmp_path / "deep" / "file") as file:
            file.write(content)
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert names(tmp_path / "deep") == ["file"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_litter(tmp_path, failure):
    (tmp_path / "file").write_bytes(b"old")

    def fail_halfway():
        with write_atomically(tmp_path / "file") as file:
            file.write(b"half of the n")
            raise failure

    with pytest.raises(failure):
        fail_halfway()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_is_not_there_before_it_is_whole(tmp_path):
    with write_atomically(tmp_path / "file") as file:
        file.write(b"all")
        file.flush()
        assert not (tmp_path / "file").exists()


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk; the test of the size limit covers the same path")
    # In a mount namespace of its own, so that the little disk goes away with the process.
    mount_and_run = 'mount -t tmpfs -o size=64k none "$0" && exec "$1" -c "$2" "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount_and_run, str(tmp_path), sys.executable, FILL_UP],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "28 old ['weights']", done.stderr


def test_a_file_beyond_the_size_limit_leaves_the_old_file_and_no_litter(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILL_UP, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.stdout.strip() == "27 old ['weights']", done.stderr


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with folder_in_progress(tmp_path / "final") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "final").exists()
    assert names(tmp_path) == ["final"]

    def fail_halfway():
        with folder_in_progress(tmp_path / "other") as folder:
            (folder / "a").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert names(tmp_path) == ["final"]


def test_a_folder_that_exists_is_not_replaced(tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "kept").write_text("1")
    with pytest.raises(OSError, match="final"), folder_in_progress(tmp_path / "final") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path) == ["final"]
    assert names(tmp_path / "final") == ["kept"]


def test_what_a_killed_process_left_goes_and_what_another_is_at_stays(tmp_path):
    others = [".final.old.0123abcd.partial", ".other.0123abcd.partial"]
    with folder_in_progress(tmp_path / "final", replace=True) as mine:
        for name in (*others, ".final.0123abcd.partial"):
            (tmp_path / name / "deep").mkdir(parents=True)  # no process holds it
        with folder_in_progress(tmp_path / "final") as theirs:
            assert names(tmp_path) == sorted([*others, mine.name, theirs.name])
    assert names(tmp_path) == [*others, "final"]


def test_a_partial_folder_is_let_go_of_by_a_kill(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from foundation.core.files import folder_in_progress
with folder_in_progress(Path(sys.argv[1]) / "final") as folder:
    (folder / "large").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)])
    assert len(names(tmp_path)) == 1
    with folder_in_progress(tmp_path / "final"):
        pass
    assert names(tmp_path) == ["final"]


def test_a_folder_is_replaced_where_that_is_asked_for_and_only_by_a_whole_one(tmp_path, monkeypatch):
    def write(content, fails=None):
        with folder_in_progress(tmp_path / "final", replace=True) as folder:
            (folder / content).touch()
            assert content == "old" or names(tmp_path / "final") == ["old"]
            if fails:
                raise fails

    write("old")
    with pytest.raises(OSError, match="full"):
        write("new", fails=OSError("full"))
    assert names(tmp_path) == ["final"] and names(tmp_path / "final") == ["old"]

    rename = os.rename

    def refuse_the_new(source, target):
        if target == tmp_path / "final" and (source / "new").exists():
            raise OSError("full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_new)
    with pytest.raises(OSError, match="full"):
        write("new")
    monkeypatch.undo()
    assert names(tmp_path) == ["final"] and names(tmp_path / "final") == ["old"]
    write("new")
    assert names(tmp_path) == ["final"] and names(tmp_path / "final") == ["new"]


def test_json_comes_back_as_it_went(tmp_path):
    write_json(tmp_path / "x.json", {"name": "Ünï", "numbers": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json") == {"name": "Ünï", "numbers": [1, 2.5, None]}


@pytest.mark.parametrize("content", [b"", b'{"half": ', b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_missing_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file at .*x\.json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("taken", [hash_file, checksum_file])
def test_a_hash_differs_on_one_flipped_bit_anywhere(tmp_path, taken):
    path = tmp_path / "file"
    content = bytearray(b"\0" * ((1 << 20) + 10))  # more than one chunk
    path.write_bytes(content)
    hashes = {taken(path)}
    for position in (0, 1 << 19, 1 << 20, len(content) - 1):
        flipped = content.copy()
        flipped[position] ^= 1
        path.write_bytes(flipped)
        hashes.add(taken(path))
    assert len(hashes) == 5
    assert {len(digest.removeprefix("xxh3_128:")) for digest in hashes} == {32}


@pytest.mark.parametrize("n_bytes", [1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_checksum_is_that_of_the_whole_file_at_once(tmp_path, n_bytes):
    content = random.Random(n_bytes).randbytes(n_bytes)
    (tmp_path / "f").write_bytes(content)
    assert checksum_file(tmp_path / "f") == f"xxh3_128:{xxhash.xxh3_128_hexdigest(content)}"


def test_the_checksum_of_nothing_is_the_one_that_its_specification_gives(tmp_path):
    (tmp_path / "f").touch()
    assert checksum_file(tmp_path / "f") == "xxh3_128:99aa06d3014798d86001c324468d497f"


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    different = [{"a": 1, "b": [1, 2]}, {"a": 1, "b": [2, 1]}, {"a": "1", "b": [1, 2]}, {"a": 1}]
    assert len({fingerprint(content) for content in different}) == 4
