"""Takes a step's tensors off the device: one stack and one asynchronous copy a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moetui.engine.raw import RawStep


@dataclass(slots=True, eq=False)
class Parcel:
    """A forward pass on its way to the recorder."""

    raw: RawStep


def pack(raw: RawStep, assembler: Any) -> Parcel:
    """Start a pass's way to the recorder. On the CPU that is the references themselves."""
    return Parcel(raw)
