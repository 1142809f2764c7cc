import errno
import os

import pytest

from foundation.core.ending import one_sentence
from foundation.core.errors import UserError


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


def test_what_a_user_cannot_mend_stays_an_error():
    with pytest.raises(FileNotFoundError):
        end_with(FileNotFoundError(errno.ENOENT, "nothing there", "x"))
