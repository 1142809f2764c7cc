"""How a command ends when it cannot go on: one sentence, and a status for the shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from foundation.core.errors import UserError
from foundation.core.files import is_full_disk


@contextmanager
def one_sentence() -> Iterator[None]:
    """Inside, a user's mistake and a full disk end the program with a sentence and status 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if not is_full_disk(error):
            raise
        at = f" at {error.filename}" if error.filename else ""
        sys.exit(f"error: {error.strerror}{at}: make room on the disk and give the same command again")
