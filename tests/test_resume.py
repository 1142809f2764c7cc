"""What a run may go on with, what it says when it has to stop, and that it says no more than that."""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.core import run
from foundation.core.errors import UserError
from foundation.core.logger import Logger
from tests.data.test_tokenizer import prose
from tests.test_pretrain import here, start


def text_file(folder: Path) -> Path:
    path = folder / "texts.txt"
    path.write_text("\n\n".join("\n".join(prose(6, seed)) for seed in range(60)))
    return path


def words_for(path: Path, *words: str) -> list[str]:
    """A run on a text file of the user's."""
    return [
        "data=text",
        f"data.files=[{path}]",
        "data.max_words=null",
        "objective=mlm",
        "tokenizer.vocab_size=300",
        *words,
    ]


def record_of(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "run.json").read_text())


def stopped(run_folder: Path) -> None:
    """As if it had been stopped at its last checkpoint but one."""
    shutil.rmtree(run_folder / "final")
    shutil.rmtree(sorted((run_folder / "checkpoints").iterdir())[-1])


def test_a_run_does_not_go_on_with_another_corpus(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    words = words_for(path, "steps=8", "name=mine")
    here(tmp_path, *words)
    stopped(tmp_path / "mine")
    before, text = record_of(tmp_path / "mine")["fingerprints"], path.read_text()
    path.write_text(f"{text}\n\nOne line more.")
    with pytest.raises(UserError, match=r"cannot resume .*mine: the corpus \(\w+ → \w+\).* changed .*another name="):
        here(tmp_path, *words, "resume=true")
    assert record_of(tmp_path / "mine")["fingerprints"] == before, "the evidence is left as it was"

    path.write_text(text)  # the same content, written later
    os.utime(path, (1, 1))
    here(tmp_path, *words, "resume=true")
    after = record_of(tmp_path / "mine")["fingerprints"]
    assert {name: after[name] for name in ("corpus", "tokenizer")} == {
        name: before[name] for name in ("corpus", "tokenizer")
    }


def test_before_the_first_checkpoint_a_changed_corpus_is_taken_and_planned_for_anew(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    words = words_for(path, "steps=null", "tokens=3000", "name=mine")
    here(tmp_path, *words)
    for leftover in ("final", "checkpoints"):
        shutil.rmtree(tmp_path / "mine" / leftover)
    first = record_of(tmp_path / "mine")
    path.write_text("\n\n".join(" ".join(prose(1, seed))[:40] for seed in range(900)))
    here(tmp_path, *words, "resume=true")
    second = record_of(tmp_path / "mine")
    assert second["fingerprints"]["corpus"] != first["fingerprints"]["corpus"]
    assert second["plan"] != first["plan"]


def test_a_full_disk_is_one_sentence_with_the_last_checkpoint_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full from the checkpoint of step 4 on: the metrics are told so first, then run.json as the run is closed."""
    folder = tmp_path / "full"

    def refusing(write: Callable[..., None]) -> Callable[..., None]:
        def refuse(*given: Any) -> None:
            if (folder / "checkpoints" / "step-00000004").is_dir():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(*given)

        return refuse

    monkeypatch.setattr(Logger, "log", refusing(Logger.log))
    monkeypatch.setattr(run, "write_json", refusing(run.write_json))
    monkeypatch.setattr("sys.argv", ["pretrain", "name=full", "resume=auto", "steps=24"])
    with pytest.raises(UserError) as told:
        here(tmp_path, "name=full", "trainer.eval_every_steps=0")
    assert str(told.value) == (
        f"No space left on device for {folder}: the checkpoint of step 4 is untouched; make room and go on with  "
        "python -m foundation.pretrain name=full steps=24 resume=true"
    )
    monkeypatch.undo()
    here(tmp_path, "name=full", "trainer.eval_every_steps=0", "resume=true")
    assert (folder / "final" / "card.md").is_file()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resume_says_what_dropouts_masks_depend_on_and_run_json_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dropout: float
) -> None:
    words = ["name=resumed", "steps=8", f"model.dropout={dropout}", "model.attention_dropout=0"]
    here(tmp_path, *words)
    stopped(tmp_path / "resumed")
    here(tmp_path, *words, "resume=true", "trainer.micro_batch_rows=3")
    said = capsys.readouterr().out
    for sentence in (
        "dropout is drawn per rank and micro-batch: the number of ranks (1) and micro_batch_rows (3) are part of the result",
        "from step 4 on, dropout's masks are not those of the run so far: micro_batch_rows was 0, now 3",
    ):
        assert said.count(sentence) == (1 if dropout else 0)
    sessions = record_of(tmp_path / "resumed")["sessions"]
    assert [session["micro_batch_rows"] for session in sessions] == [0, 3]
    assert {(session["ranks"], session["device"], session["threads"]) for session in sessions} == {(1, "cpu", 1)}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_corpus_is_made_is_one_sentence_and_leaves_no_litter(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(prose(90_000, 0)))
    process = start(tmp_path, *words_for(tmp_path / "texts.txt"))
    corpora, deadline = tmp_path / "corpora", time.monotonic() + 60
    while not any(corpora.glob(".*.partial/spool")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.startswith("stopped by ") and len(err.splitlines()) == 1
    assert not any(corpora.iterdir())
