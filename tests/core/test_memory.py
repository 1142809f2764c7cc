"""Memory that was freed between blocks that are still in use: kept where steps follow, given back where requests do."""

import subprocess
import sys

import pytest

# Most of 64 MB is freed, but none of it at the end of the heap, so that the allocator cannot give it back by itself.
HOLES = """
from foundation.core.memory import _resident_bytes, give_back_freed_memory, keep_freed_memory
assert keep_freed_memory()
blocks = [bytearray(1 << 16) for _ in range(1024)]
full = _resident_bytes("VmRSS")
del blocks[:-1]
holed = _resident_bytes("VmRSS")
give_back_freed_memory()
print(full - holed, full - _resident_bytes("VmRSS"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    kept_back, given_back = map(int, done.stdout.split())
    assert kept_back < 8 << 20
    assert given_back > 56 << 20
