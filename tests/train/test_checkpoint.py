"""A checkpoint is whole or absent, and a damaged one is refused by name."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_json
from foundation.train import checkpoint
from foundation.train.checkpoint import Checkpoints, load_into, weights_fingerprint
from foundation.train.foundation import load_foundation, save_foundation
from tests.builders import bert_config
from tests.task import toy

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def saved(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, TENSORS, {"0/a/momentum": TENSORS["a"] * step}, {"tokens": step * 10})
    checkpoints.wait()
    return checkpoints


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    loaded = saved(tmp_path, 5).load_last()
    assert torch.equal(loaded.model["a"], TENSORS["a"])
    assert torch.equal(loaded.optim["0/a/momentum"], TENSORS["a"] * 5)
    assert (loaded.state["step"], loaded.state["tokens"]) == (5, 50)


def test_weights_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoint.save_tensors(tmp_path / "weights", TENSORS)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_only_the_last_ones_stay(tmp_path: Path) -> None:
    assert saved(tmp_path / "two", 1, 2, 3, 4, keep=2).steps() == [3, 4]
    assert saved(tmp_path / "all", 1, 2, 3, 4, keep=0).steps() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_is_refused_and_the_way_out_is_told(tmp_path: Path, name: str, harm: str) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = checkpoints.path(2) / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-4])
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"{name} is damaged.*remove that folder to go on from step 1"):
        checkpoints.load_last()


def test_what_cannot_be_verified_is_not_read(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    state = read_json(checkpoints.path(2) / "state.json")
    del state["checksums"]
    write_json(checkpoints.path(2) / "state.json", state)
    with pytest.raises(UserError, match=r"saved by another version.*remove that folder to go on from step 1"):
        checkpoints.load_last()


def test_what_is_written_is_what_was_there_when_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training changes its weights while the disk is slow; a second checkpoint waits for the first."""
    may_write, writes = Event(), checkpoint.save_tensors

    def slowly(*args: Any) -> None:
        assert may_write.wait(10)
        writes(*args)

    monkeypatch.setattr(checkpoint, "save_tensors", slowly)
    weights = {"a": torch.zeros(3), "b": torch.zeros(2, 2).T}
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(1, weights, {"0/a/m": weights["a"]}, {})
        weights["a"] += 1
        assert checkpoints.steps() == [], "the folder is not there before it is whole"
        may_write.set()
        checkpoints.save(2, weights, {"0/a/m": weights["a"]}, {})
        weights["a"] += 1
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.load_last().model["a"].tolist() == checkpoints.load_last().optim["0/a/m"].tolist() == [1, 1, 1]
    shutil.rmtree(checkpoints.path(2))
    assert checkpoints.load_last().model["a"].tolist() == [0, 0, 0]


def test_leaving_waits_for_the_disk_and_tells_what_went_wrong_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(UserError, match="could not save the checkpoint of step 1"),
        Checkpoints(tmp_path / "file", 2) as it,
    ):
        it.save(1, TENSORS, {}, {})
    it = Checkpoints(tmp_path / "file", 2)
    it.save(1, TENSORS, {}, {})
    with pytest.raises(KeyError), it:
        raise KeyError("this is what the user should hear of")


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        Checkpoints(tmp_path / "none", 2).load_last()


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(UserError, match=r"of another model: weight has shape \(3, 3\) there and \(2, 2\) here"):
        load_into(nn.Linear(2, 2, bias=False), {"weight": torch.zeros(3, 3)}, "it")
    with pytest.raises(UserError, match="lacks 1 of 2 weights, among them bias"):
        load_into(nn.Linear(2, 2), {"weight": torch.zeros(2, 2)}, "it")


def test_key_report_counts() -> None:
    report = load_into(nn.Linear(2, 2), {"weight": torch.ones(2, 2), "bias": torch.ones(2), "x": torch.ones(1)}, "it")
    assert (report.loaded, report.missing, report.unexpected) == (2, (), ("x",))


def test_a_foundation_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "card.md").write_text("the old one")
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(UserError, match=r"could not write .*final \(No space left on device\): make room there"):
        save_foundation(tmp_path / "final", {"encoder.a": TENSORS["a"]}, bert_config(), None, {}, "{fingerprint}")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert (tmp_path / "final" / "card.md").read_text() == "the old one"


@pytest.mark.parametrize("harm", ["flip", "other", "remove", "unsaid"])
def test_a_foundation_whose_weights_are_not_those_it_was_written_with_is_refused(tmp_path: Path, harm: str) -> None:
    toy.lay_foundation(tmp_path)
    path = tmp_path / "small/final/model.safetensors"
    assert load_foundation(path.parent).path == path.parent
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "other":
        toy.lay_foundation(tmp_path, "other", seed=1)
        shutil.copy(tmp_path / "other/final/model.safetensors", path)
    elif harm == "remove":
        path.unlink()
    else:
        info = read_json(path.parent / "config.json")
        del info["weights_hash"]
        write_json(path.parent / "config.json", info)
    with pytest.raises(UserError, match=r"final.model.safetensors is damaged: .* make it again or restore a copy"):
        load_foundation(path.parent)


def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes every write beyond a size fail, as a full disk does."""
    script = textwrap.dedent(
        """
        import resource, signal, sys, torch
        from pathlib import Path
        from foundation.core.errors import UserError
        from foundation.train.checkpoint import Checkpoints
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        checkpoints = Checkpoints(Path(sys.argv[1]), 2)
        checkpoints.save(1, {"a": torch.ones(10)}, {}, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            checkpoints.save(2, {"a": torch.ones(100_000)}, {}, {})
            print("went on")
            checkpoints.save(3, {"a": torch.ones(10)}, {}, {})
        except UserError as error:
            print(error)
            assert torch.equal(checkpoints.load_last().model["a"], torch.ones(10))
            print([path.name for path in Path(sys.argv[1]).iterdir()])
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "c")], capture_output=True, text=True, check=True
    )
    assert "went on" in done.stdout and "could not save the checkpoint of step 2" in done.stdout
    assert "the checkpoint of step 1 is untouched: resume=true goes on from it" in done.stdout
    assert "['step-00000001']" in done.stdout


def test_fingerprint_sees_one_bit_a_name_and_a_shape() -> None:
    other = TENSORS["a"].clone()
    other.view(torch.int32)[0, 0] ^= 1
    prints = {
        weights_fingerprint(tensors)
        for tensors in (
            TENSORS,
            {**TENSORS, "a": other},
            {"c": TENSORS["a"], "b": TENSORS["b"]},
            {**TENSORS, "a": TENSORS["a"].reshape(3, 2)},
        )
    }
    assert len(prints) == 4
    assert weights_fingerprint(dict(reversed(TENSORS.items()))) == weights_fingerprint(TENSORS)
