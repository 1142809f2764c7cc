"""wandb for real, in processes of its own: it reads the environment once a process."""

import json
import os
import pty
import struct
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from foundation.core.config import LoggerConfig, WandbMode
from foundation.core.wandb_log import WandbLog, start_wandb

BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from foundation.core.config import LoggerConfig, WandbMode
from foundation.core.wandb_log import start_wandb
folder = Path(sys.argv[1])

def begin(mode):
    return start_wandb(
        LoggerConfig(wandb=WandbMode(mode), tags=["test"]), run_path=folder, name="small", group="pretrain",
        job_type="pretrain", config={"model": {"width": 256}}, run_id="small/1f00",
    )
"""
RECORD = """
(folder / "final" / "deep").mkdir(parents=True)
(folder / "final" / "weights").write_bytes(b"w" * 100)
(folder / "final" / "deep" / "tokenizer.json").write_text("{}")
for first in (1, 3):
    time.sleep(1 if first > 1 else 0)  # wandb names folders by the second
    log = begin("auto")
    for step in range(first, first + 3):
        log.log({"step": step, "train/loss": 1 / step, "eval/mlm_loss": float("nan") if step == 2 else 2 / step})
    log.log_model(folder / "final", "foundation small", "model", {"fingerprint": "f00d"})
    log.use_artifact("corpus", "dataset")
    log.log_table("scores", ["seed", "accuracy"], [[1, 0.5], [2, 0.75]])
    log.summary({"verdict": "good"})
    print(log.active)
    log.finish()
"""
FAIL = """
def tell(case):
    print(case, log.active)
    print(case, file=sys.stderr, flush=True)

os.environ["WANDB_MODE"] = "disabled"
log = begin("auto")
assert "wandb" not in sys.modules and not folder.exists()
tell("disabled")
os.environ["WANDB_MODE"] = "nonsense"
log = begin("auto")
tell("nonsense")
del os.environ["WANDB_MODE"]
os.environ["WANDB_API_KEY"] = "short"
log = begin("auto")
log.log({"step": 1})
log.finish()
tell("bad key")
del os.environ["WANDB_API_KEY"]
folder.mkdir()
log = begin("offline")
for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
    if b"wandb-core" in Path(f"/proc/{child}/cmdline").read_bytes():
        os.kill(int(child), signal.SIGKILL)
        print("killed")
time.sleep(0.3)
for step in range(1, 4):
    log.log({"step": step, "train/loss": 1.0})
log.log_model(folder, "model", "model", {})
log.summary({"a": 1})
log.finish()
tell("killed")
"""


def clean_environment(home):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB") and name != "NETRC"}
    return {**kept, "HOME": str(home)}


def run_wandb(code, folder, **environment):
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code, str(folder)],
        env=clean_environment(home) | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )


def records_in(path):
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, records in parts) after a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    block, header = 32768, 7
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    at, parts = header, b""
    while at + header <= len(content):
        if block - at % block < header:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + header])
        parts += content[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """An offline run of two sessions, as wandb stored it."""
    folder = tmp_path_factory.mktemp("wandb") / "small"
    folder.mkdir()
    done = run_wandb(RECORD, folder)
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return folder, done, [list(records_in(file)) for file in files]


def test_without_a_key_the_run_is_recorded_offline_and_one_line_says_how_to_send_it(recorded):
    folder, done, _ = recorded
    said = "wandb: no key, so the run is recorded offline; send it later with: wandb sync"
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n")
    assert done.stderr.splitlines() == [f"{said} {place}" for place in sorted(folder.glob("wandb/offline-run-*"))]


def test_history_is_stored_over_the_step(recorded):
    _, _, sessions = recorded
    for first, records in zip((1, 3), sessions, strict=True):
        rows = [values(record.history.item) for record in records if record.HasField("history")]
        rows = [row for row in rows if "train/loss" in row]
        assert [(row["step"], row["train/loss"]) for row in rows] == [(s, 1 / s) for s in range(first, first + 3)]
        axes = {record.metric.glob_name: record.metric.step_metric for record in records if record.HasField("metric")}
        assert {f"{family}/*": "step" for family in ("train", "eval", "optim", "speed")}.items() <= axes.items()


def test_the_summary_keeps_the_best_of_the_evaluations(recorded):
    _, _, (records, _) = recorded
    metrics = {record.metric.name: record.metric.summary for record in records if record.HasField("metric")}
    assert metrics["eval/mlm_loss"].min
    assert metrics["eval/mlm_accuracy"].max
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary.update(values(record.summary.update))
    assert summary["verdict"] == "good"


def test_a_resumed_run_has_the_same_id_and_asks_to_be_continued(recorded):
    _, _, sessions = recorded
    runs = [next(record.run for record in records if record.HasField("run")) for records in sessions]
    assert [run.run_id for run in runs] == ["small-1f00"] * 2
    assert all(run.resume for run in runs)
    assert values(runs[0].config.update)["model"] == {"width": 256}
    assert (runs[0].run_group, runs[0].job_type, list(runs[0].tags)) == ("pretrain", "pretrain", ["test"])


def test_the_model_is_an_artifact_that_points_at_the_files_themselves(recorded):
    folder, _, (records, _) = recorded
    artifacts = [record.artifact for record in records if record.HasField("artifact")]
    model = next(artifact for artifact in artifacts if artifact.type == "model")
    assert model.name == "foundation-small"
    assert json.loads(model.metadata) == {"fingerprint": "f00d"}
    entries = {entry.path: (entry.size, Path(entry.local_path)) for entry in model.manifest.contents}
    assert entries == {
        "weights": (100, folder / "final" / "weights"),
        "deep/tokenizer.json": (2, folder / "final" / "deep" / "tokenizer.json"),
    }


def test_everything_that_a_later_sync_needs_lies_in_the_run_folder(recorded):
    folder, _, sessions = recorded
    for records in sessions:
        artifacts = [record.artifact for record in records if record.HasField("artifact")]
        assert len(artifacts) == 2  # the model and the table
        for artifact in artifacts:
            for entry in artifact.manifest.contents:
                assert Path(entry.local_path).is_relative_to(folder)
                assert Path(entry.local_path).stat().st_size == entry.size
    table = json.loads(next(folder.glob("wandb/*/files/media/table/*.json")).read_text())
    assert table == {"columns": ["seed", "accuracy"], "data": [[1, 0.5], [2, 0.75]]}


def test_a_wandb_that_fails_is_switched_off_with_one_line_and_the_run_goes_on(tmp_path):
    done = run_wandb(FAIL, tmp_path / "small")
    cases = ["disabled False", "nonsense False", "bad key False", "killed", "killed False"]
    assert (done.returncode, done.stdout.splitlines()) == (0, cases), done.stderr
    off = "wandb: switched off ("
    shapes = [line[: len(off)] if line.startswith(off) else line for line in done.stderr.splitlines()]
    assert shapes == ["disabled", off, "nonsense", off, "bad key", off, "killed"], done.stderr


@pytest.fixture
def server():
    """A wandb server on this machine that refuses everything, and the paths it was asked for."""
    asked = []

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_error(401)

        do_GET = do_POST

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_offline_sends_nothing_and_a_key_for_this_very_server_is_found_and_used(tmp_path, server):
    host, asked = server
    netrc = tmp_path / "home" / ".netrc"
    netrc.parent.mkdir()
    # A key for another server is none for this one.
    netrc.write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    netrc.chmod(0o600)
    code = "log = begin('auto'); log.log({'step': 1, 'train/loss': 1.0}); log.finish(); print(log.active)"
    done = run_wandb(code, tmp_path / "offline", WANDB_BASE_URL=f"http://{host}")
    assert "no key, so the run is recorded offline" in done.stderr
    assert asked == []
    netrc.write_text(f"machine {host} login user password {'a' * 40}\n")
    done = run_wandb(code, tmp_path / "online", WANDB_BASE_URL=f"http://{host}")
    assert set(asked) == {"/graphql"}
    (line,) = done.stderr.splitlines()
    assert line.startswith("wandb: switched off (CommError")


def test_a_person_at_a_terminal_is_not_asked(tmp_path):
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + "begin('online').finish()", str(tmp_path)],
        env=clean_environment(tmp_path),
        stdin=side,
        stdout=side,
        stderr=side,
    )
    try:
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(side)
    shown = os.read(main, 100_000).decode()
    os.close(main)
    assert "no key, so the run is recorded offline" in shown
    assert "choice" not in shown


def test_disabled_means_that_wandb_is_not_even_loaded(tmp_path):
    cfg = LoggerConfig(wandb=WandbMode.disabled)
    log = start_wandb(cfg, run_path=tmp_path, name="a", group="b", job_type="c", config={}, run_id="d")
    log.log({"step": 1})
    log.finish()
    assert not log.active
    assert list(tmp_path.iterdir()) == []


def test_a_failing_log_is_said_once_and_then_left_alone(capsys):
    log = WandbLog(run=object())
    for step in range(3):
        log.log({"step": step})
    log.finish()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wandb: switched off (AttributeError")
