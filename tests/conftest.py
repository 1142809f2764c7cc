"""One thread: on busy cores, threads that wait for each other make a step of a toy model a hundred times slower."""

import signal
from collections.abc import Iterator

import pytest
import torch

# A shell starts its background jobs deaf to Ctrl-C, and whatever they start inherits that; some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
