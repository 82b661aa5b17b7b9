"""The two kinds of steps: of its own, so that what only names them loads no arrays."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """Which kind of step a token went through the model in."""

    PREFILL = 0
    DECODE = 1

    @property
    def label(self) -> str:
        """The word shown and typed: ``prefill`` or ``decode``."""
        return self.name.lower()
