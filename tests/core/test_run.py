import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml

from foundation.core import run as core_run
from foundation.core.errors import UserError
from foundation.core.memory import peak_memory_bytes
from foundation.core.run import open_run, run_exists

SPEED_ONLY = frozenset({"trainer", "runs_dir"})
CONFIG = {
    "model": {"width": 256, "dropout": 0.1, "names": ["a", "b"]},
    "optim": {"lr": 1e-5, "limit": float("inf")},
    "trainer": {"micro_batch_rows": 32},
    "note": None,
}

HOLD = """
import sys, time
from pathlib import Path
from foundation.core.errors import UserError
from foundation.core.run import open_run
try:
    run = open_run(Path(sys.argv[1]), {"a": 1}, resume=sys.argv[2] == "resume", speed_only=frozenset(), command=["x"])
except UserError as error:
    print("refused", error, flush=True)
else:
    print("holds", flush=True)
    time.sleep(60)
"""


def start(path, config=CONFIG, *, resume=False, command=("python", "-m", "x")):
    return open_run(path, config, resume=resume, speed_only=SPEED_ONLY, command=list(command))


def changed(section, key, value):
    return {**CONFIG, section: {**CONFIG[section], key: value}}


def record_at(path):
    return json.loads((path / "run.json").read_text())


def hold(path, how="new"):
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True)


def test_a_new_run_tells_what_was_asked_with_what_and_on_what(tmp_path):
    with start(tmp_path / "small") as run:
        run.update(fingerprints={"corpus": "c0ffee"})
    record = record_at(run.path)
    assert record["command"] == ["python", "-m", "x"]
    assert record["fingerprints"] == {"corpus": "c0ffee"}
    assert set(record["versions"]) == {"python", "torch", "numpy", "tokenizers", "foundation"}
    assert record["versions"]["torch"].startswith("2.")
    assert record["machine"]["cpu_count"] == os.cpu_count()
    assert record["machine"]["cpu"]
    assert record["sessions"][0]["ended"] == "finished"
    assert os.uname().nodename not in json.dumps(record["machine"])
    assert run_exists(run.path)


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("1")
    with pytest.raises(UserError, match=r"already holds something: choose another name= .*resume=true"):
        start(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_finished_run_is_not_overwritten(tmp_path):
    start(tmp_path / "small").close()
    before = record_at(tmp_path / "small")
    with pytest.raises(UserError, match="already holds something"):
        start(tmp_path / "small")
    assert record_at(tmp_path / "small") == before


def stopped_by_a_mistake(path, config=CONFIG):
    with pytest.raises(UserError, match="vocabulary"), start(path, config):
        raise UserError("the vocabulary is too large")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_a_mistake_ended_before_it_left_anything_is_begun_anew(tmp_path, resume):
    path, mended = tmp_path / "small", changed("model", "width", 512)
    stopped_by_a_mistake(path)
    (path / "diff.patch").write_text("of the first start")
    with start(path, mended, resume=resume):
        record = record_at(path)
    assert [session["ended"] for session in record["sessions"]] == [None]
    assert yaml.safe_load((path / "config.yaml").read_text()) == mended
    assert (path / "diff.patch").is_file() == bool(record["git"] and "diff_file" in record["git"])
    if (path / "diff.patch").is_file():
        assert (path / "diff.patch").read_text() != "of the first start"


@pytest.mark.parametrize(
    "left", [[], ["config.yaml"], [".config.yaml.0a1b2c3d.partial"], ["config.yaml", ".run.json.0a1b2c3d.partial"]]
)
def test_a_run_that_was_killed_while_it_wrote_its_record_is_begun_anew(tmp_path, left):
    path = tmp_path / "small"
    path.mkdir()
    for name in (".lock", *left):
        (path / name).write_text("half")
    with start(path):
        assert record_at(path)["sessions"][0]["ended"] is None
    assert yaml.safe_load((path / "config.yaml").read_text()) == CONFIG
    assert not [*path.glob(".*.partial")]


def test_settings_in_a_folder_that_no_run_has_locked_are_somebodys(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("mine: 1")
    with pytest.raises(UserError, match="already holds something"):
        start(tmp_path / "mine")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_left_something_is_not_begun_anew(tmp_path, resume):
    stopped_by_a_mistake(tmp_path / "small")
    (tmp_path / "small" / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"cannot resume|already holds something"):
        start(tmp_path / "small", changed("model", "width", 512), resume=resume)


def test_an_empty_folder_may_be_filled(tmp_path):
    start(tmp_path).close()
    assert run_exists(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("1")
    with pytest.raises(UserError, match=r"cannot write the run folder .*choose another runs_dir="):
        start(tmp_path / "file" / "small")


def test_nothing_to_resume_is_said_and_nothing_made(tmp_path):
    with pytest.raises(UserError, match=r"no run to resume at .*small"):
        start(tmp_path / "small", resume=True)
    assert not (tmp_path / "small").exists()


def test_a_resume_with_the_same_settings_keeps_the_id_and_adds_a_session(tmp_path):
    first = start(tmp_path / "small")
    first.close("stopped")
    second = start(tmp_path / "small", resume=True, command=("again",))
    second.close()
    record = record_at(tmp_path / "small")
    assert first.id == second.id == record["id"]
    assert [(s["command"], s["ended"]) for s in record["sessions"]] == [
        (["python", "-m", "x"], "stopped"),
        (["again"], "finished"),
    ]
    assert record["command"] == ["python", "-m", "x"]
    assert record["sessions"][1]["changed"] == record["sessions"][1]["origin_changed"] == {}


def test_an_id_is_not_given_twice_to_one_name(tmp_path):
    assert start(tmp_path / "a" / "small").id != start(tmp_path / "b" / "small").id


def test_a_setting_that_changes_the_result_is_refused_with_the_difference(tmp_path):
    start(tmp_path / "small").close()
    with pytest.raises(UserError) as refusal:
        start(tmp_path / "small", {**changed("model", "width", 512), "new": {"x": 1}, "note": "a"}, resume=True)
    lines = str(refusal.value).splitlines()
    assert lines[1:4] == ["  model.width: 256 → 512", "  new.x: absent → 1", "  note: None → a"]
    assert "absent there is newer than the run" in lines[-1]
    with pytest.raises(UserError, match=r"Give them their old values, or start a new run"):
        start(tmp_path / "small", changed("model", "width", 512), resume=True)
    assert len(record_at(tmp_path / "small")["sessions"]) == 1
    start(tmp_path / "small", resume=True).close()  # the refusal let go of the folder


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_value_of_another_kind_is_a_difference(tmp_path, value):
    start(tmp_path / "small", {"model": {"x": 1}}).close()
    with pytest.raises(UserError, match=r"model\.x: 1 → "):
        start(tmp_path / "small", {"model": {"x": value}}, resume=True)


def test_a_setting_that_changes_only_the_speed_is_allowed_and_recorded(tmp_path):
    start(tmp_path / "small").close()
    start(tmp_path / "small", changed("trainer", "micro_batch_rows", 64), resume=True).close()
    assert record_at(tmp_path / "small")["sessions"][1]["changed"] == {"trainer.micro_batch_rows": ["32", "64"]}


def test_a_name_that_only_begins_like_a_speed_setting_is_not_one(tmp_path):
    start(tmp_path / "small", {"trainer_like": {"x": 1}}).close()
    with pytest.raises(UserError, match="trainer_like"):
        start(tmp_path / "small", {"trainer_like": {"x": 2}}, resume=True)


def test_the_ledger_adds_up_over_sessions_and_keeps_the_peak(tmp_path):
    with start(tmp_path / "small") as run:
        run.update(ledger={"seconds": 5, "tokens": 50})
        run.update(ledger={"seconds": 10, "tokens": 100, "peak_memory_bytes": 7})
    with start(tmp_path / "small", resume=True) as run:
        run.update(ledger={"seconds": 1, "tokens": 20, "peak_memory_bytes": 5})
    assert record_at(run.path)["ledger"] == {"seconds": 11, "tokens": 120, "peak_memory_bytes": 7}


def test_plan_and_result_are_kept(tmp_path):
    with start(tmp_path / "small") as run:
        run.set_plan({"total_steps": 120})
    with start(tmp_path / "small", resume=True) as run:
        assert run.record["plan"] == {"total_steps": 120}
        run.set_result({"held_out": {"eval/mlm_loss": 4.5}})
    assert record_at(run.path)["result"] == {"held_out": {"eval/mlm_loss": 4.5}}


def test_a_session_notes_facts_of_its_own(tmp_path):
    with start(tmp_path / "small") as run:
        run.note(passes="plain")
    with start(tmp_path / "small", resume=True) as run:
        run.note(passes="fused")
    assert [session["passes"] for session in record_at(run.path)["sessions"]] == ["plain", "fused"]


def test_an_error_is_noted_as_the_end_of_the_session(tmp_path):
    with pytest.raises(KeyboardInterrupt), start(tmp_path / "small"):
        raise KeyboardInterrupt
    assert record_at(tmp_path / "small")["sessions"][0]["ended"] == "stopped by KeyboardInterrupt"


def test_a_full_disk_does_not_replace_what_ended_the_session(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run, other = start(tmp_path / "small"), start(tmp_path / "other")
    monkeypatch.setattr(core_run, "write_json", refuse)
    with pytest.raises(KeyError, match="this is what the user should hear of"), run:
        raise KeyError("this is what the user should hear of")
    with pytest.raises(OSError, match="No space left"), other:
        pass
    monkeypatch.undo()
    start(tmp_path / "small", resume=True).close()  # and the folder was let go of


def test_damaged_settings_are_named(tmp_path):
    start(tmp_path / "small").close()
    (tmp_path / "small" / "config.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match=r"config\.yaml is not valid YAML"):
        start(tmp_path / "small", resume=True)


def test_a_run_at_work_is_refused_by_pid_and_freed_by_a_kill(tmp_path):
    first = hold(tmp_path / "small")
    try:
        assert first.stdout.readline() == "holds\n"
        with pytest.raises(UserError, match=f"in use by process {first.pid}"):
            open_run(tmp_path / "small", {"a": 1}, resume=True, speed_only=SPEED_ONLY, command=["x"])
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    open_run(tmp_path / "small", {"a": 1}, resume=True, speed_only=SPEED_ONLY, command=["x"]).close()
    assert [s["ended"] for s in record_at(tmp_path / "small")["sessions"]] == ["killed", "finished"]


def test_of_two_starts_at_once_one_wins(tmp_path):
    both = [hold(tmp_path / "small") for _ in range(2)]
    try:
        words = sorted(process.stdout.readline().split()[0] for process in both)
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert words == ["holds", "refused"]


def test_peak_memory_counts_what_was_held():
    block = bytearray(b"1") * (300 << 20)
    assert len(block) < peak_memory_bytes("cpu") < 64 << 30
