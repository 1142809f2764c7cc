"""Which side of a split something is on: decided by a hash of what it is, so that adding rows moves no other row."""

import hashlib


def is_held_out(key: str, share: float) -> bool:
    """Whether `key` is among the `share` of all keys that is held out; the same on every machine, for ever."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
