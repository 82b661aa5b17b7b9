"""The accelerator that this machine's torch can use."""

from __future__ import annotations

import torch


def accelerator() -> torch.device | None:
    """Its kind, whichever it is: ``cuda``, ``xpu``, ``mps`` ...; None where there is none, or none that works."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
