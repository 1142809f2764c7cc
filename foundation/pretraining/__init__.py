"""A pretraining run, from settings to a foundation."""

from foundation.pretraining.session import pretrain

__all__ = ["pretrain"]
