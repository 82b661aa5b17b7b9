"""A debugger on a model in one's own process: capture, timeline, interventions, recordings.

Importing this package imports neither torch nor transformers; a debugger does when it is made.
"""

from __future__ import annotations

from moetui.debugger.analyzer import MoEAnalyzer
from moetui.debugger.breakpoints import BreakpointSet
from moetui.debugger.core import MoEDebugger
from moetui.debugger.interventions import InterventionSet
from moetui.debugger.plugins import Plugins
from moetui.debugger.recording import Recording
from moetui.debugger.run_control import OwnRunControl
from moetui.engine.control import RunStoppedError

__all__ = [
    "BreakpointSet",
    "InterventionSet",
    "MoEAnalyzer",
    "MoEDebugger",
    "OwnRunControl",
    "Plugins",
    "Recording",
    "RunStoppedError",
]
