"""What part of the foundation a task may change. One way so far; the next ones are members of SharingMethod."""

from dataclasses import dataclass
from enum import Enum


class SharingMethod(str, Enum):
    """full: every weight (nothing stays shared but the start)."""

    full = "full"


@dataclass(kw_only=True, slots=True)
class SharingConfig:
    """How the foundation's weights are shared between tasks."""

    method: SharingMethod
