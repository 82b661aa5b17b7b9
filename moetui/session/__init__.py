"""One protocol, two sessions: a live model and a recording. The screen and the console know nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from moetui.routing.breakpoints import Breakpoint
from moetui.session.coming import ComingSession
from moetui.session.offers import (
    Accountable,
    Analysing,
    Branched,
    Branching,
    Breakable,
    Configurable,
    Filing,
    Halting,
    Layered,
    Losable,
    Mark,
    MarkKind,
    Paced,
    Playable,
    Pluggable,
    Recording,
    Rewindable,
    Sendable,
    Underway,
    Waitable,
    Writing,
)
from moetui.session.protocol import Capability, Playback, Session

if TYPE_CHECKING:
    from moetui.session.live import LiveSession
    from moetui.session.options import LiveOptions
    from moetui.session.replay import ReplaySession

__all__ = [
    "Accountable",
    "Analysing",
    "Branched",
    "Branching",
    "Breakable",
    "Breakpoint",
    "Capability",
    "ComingSession",
    "Configurable",
    "Filing",
    "Halting",
    "Layered",
    "LiveOptions",
    "LiveSession",
    "Losable",
    "Mark",
    "MarkKind",
    "Paced",
    "Playable",
    "Playback",
    "Pluggable",
    "Recording",
    "ReplaySession",
    "Rewindable",
    "Sendable",
    "Session",
    "Underway",
    "Waitable",
    "Writing",
]

_HOMES = {
    "LiveOptions": "moetui.session.options",
    "LiveSession": "moetui.session.live",
    "ReplaySession": "moetui.session.replay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
