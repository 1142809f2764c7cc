"""The learning rate as a pure function of the step."""

import math

from foundation.train.config import ScheduleConfig, Shape


def multiplier(step: int, total_steps: int, cfg: ScheduleConfig) -> float:
    """What the base rate is multiplied by at step 0 … total_steps - 1; warm-up is linear and its first step is not 0."""
    warmup_steps = cfg.warmup_share * total_steps
    if step < warmup_steps:
        return min(1.0, (step + 1) / (warmup_steps + 1))
    done = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    match cfg.shape:
        case Shape.linear:
            left = 1 - done
        case Shape.cosine:
            left = 0.5 * (1 + math.cos(math.pi * done))
        case Shape.stable_decay:
            decay_steps = max(1.0, (0.5 if cfg.decay_share is None else cfg.decay_share) * total_steps)
            left = min(1.0, (total_steps - step) / decay_steps)
    return cfg.final + (1 - cfg.final) * left
