"""Settings of the ground floor."""

from dataclasses import dataclass, field
from enum import Enum


class WandbMode(str, Enum):
    """auto: online when a key is configured, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(kw_only=True, slots=True)
class LoggerConfig:
    """Where the numbers go besides metrics.jsonl, which is always written.

    bar: on a terminal, a progress bar; false: a line every half minute, as where there is no terminal.
    """

    wandb: WandbMode = WandbMode.auto
    project: str = "foundation"
    entity: str | None = None
    every_steps: int = 10
    tags: list[str] = field(default_factory=list)
    bar: bool = True

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        return [] if self.every_steps >= 1 else [f"logger.every_steps={self.every_steps} must be at least 1"]
