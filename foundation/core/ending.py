"""How a command ends when it cannot go on: one sentence, and a status for the shell."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Never

from foundation.core.errors import UserError
from foundation.core.files import is_full_disk


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt: what is half done is cleared away."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """Inside, a user's mistake and a full disk end the program with a sentence and status 1; Ctrl-C and SIGTERM with 130 and 143.

    Training has a better answer to the two: see StopRequest.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        # Whoever reads what is written has read enough, as `| head` does; at exit Python would try to write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if not is_full_disk(error):
            raise
        at = f" at {error.filename}" if error.filename else ""
        sys.exit(f"error: {error.strerror}{at}: make room on the disk and give the same command again")
    except KeyboardInterrupt as error:
        name, number = ("SIGTERM", signal.SIGTERM) if isinstance(error, Terminated) else ("Ctrl-C", signal.SIGINT)
        print(f"stopped by {name}: what is half done is lost, and what was done before is kept", file=sys.stderr)
        sys.exit(128 + number)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise Terminated
