import json
import subprocess

import pytest

from foundation.core import provenance
from foundation.core.run import open_run


def start(path, *, resume=False):
    return open_run(path, {"a": 1}, resume=resume, speed_only=frozenset(), command=["x"])


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    source = tmp_path / "repository" / "deep" / "run.py"
    source.parent.mkdir(parents=True)
    source.write_text("old\n")
    git(tmp_path, "init", "repository")
    git(source.parent, "add", "run.py")
    git(source.parent, "commit", "-m", "first")
    return source


def test_commit_diff_and_untracked_files_are_recorded(repository):
    state, diff = provenance.git_state(repository)
    assert len(state["commit"]) == 40
    assert (state["uncommitted"], diff, state["untracked"]) == (False, b"", [])
    repository.write_text("new\n")
    (repository.parents[1] / "added.py").write_text("1")
    state, diff = provenance.git_state(repository)
    assert state["uncommitted"]
    assert b"-old\n+new\n" in diff
    assert state["untracked"] == ["added.py"]


def test_an_installed_copy_inside_somebodys_repository_has_no_commit(repository):
    installed = repository.parent / "site-packages.py"
    installed.write_text("1")
    assert provenance.git_state(installed) == (None, b"")


def test_no_git_and_no_repository_are_no_error(tmp_path, monkeypatch, repository):
    assert provenance.git_state(tmp_path / "x.py") == (None, b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(repository) == (None, b"")


def test_a_huge_diff_is_cut_and_says_so(repository):
    repository.write_text("x" * 79 + "\n" + "y\n" * (3 << 20))
    state, diff = provenance.git_state(repository)
    assert state["diff_cut"]
    assert len(diff) == 4 << 20


def test_the_diff_of_each_session_is_laid_into_the_run_folder(tmp_path, monkeypatch, repository):
    repository.write_text("new\n")
    monkeypatch.setattr("foundation.core.run.__file__", str(repository))
    start(tmp_path / "small").close()
    assert "-old\n+new\n" in (tmp_path / "small" / "diff.patch").read_text()
    start(tmp_path / "small", resume=True).close()
    repository.write_text("newer\n")
    start(tmp_path / "small", resume=True).close()
    assert "+newer\n" in (tmp_path / "small" / "diff.3.patch").read_text()
    _, second, third = json.loads((tmp_path / "small" / "run.json").read_text())["sessions"]
    assert second["origin_changed"] == {}
    assert third["origin_changed"]["git"]["diff_file"] == "diff.3.patch"
