import errno
import os
import signal
import subprocess
import sys

import pytest

from foundation.core.ending import one_sentence
from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress


def end_with(error):
    with one_sentence():
        raise error


def test_a_mistake_ends_in_its_sentence():
    with pytest.raises(SystemExit, match=r"^error: it is too large$"):
        end_with(UserError("it is too large"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_in_a_sentence(number):
    with pytest.raises(SystemExit, match=f"^error: {os.strerror(number)} at runs/x: make room on the disk"):
        end_with(OSError(number, os.strerror(number), "runs/x"))
    with pytest.raises(SystemExit, match=f"^error: {os.strerror(number)}: make room on the disk"):
        end_with(OSError(number, os.strerror(number)))


def test_whoever_has_read_enough_is_no_mistake():
    program = "from foundation.core.ending import one_sentence\nwith one_sentence():\n    while True: print('x' * 80)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=30) == 128 + signal.SIGPIPE


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_in_a_sentence_after_what_is_half_done_is_cleared_away(tmp_path, capsys, number, name):
    def work():
        with one_sentence(), folder_in_progress(tmp_path / "final"):
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 128 + number
    assert (
        capsys.readouterr().err == f"stopped by {name}: what is half done is lost, and what was done before is kept\n"
    )
    assert not any(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_user_cannot_mend_stays_an_error():
    with pytest.raises(FileNotFoundError):
        end_with(FileNotFoundError(errno.ENOENT, "nothing there", "x"))
