"""Progress of a run without a screen, on standard error."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from moetui.routing.events import (
    BreakpointHit,
    Event,
    FindingRaised,
    LoadProgress,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.text import drawable


class Progress:
    """One line that is written again; nothing at all when it is not wanted.

    Args:
        wanted: whether to show progress.
        total: tokens to generate.
        quiet: do not even write warnings, the lines that log points were set for, and that it was interrupted.
    """

    def __init__(self, wanted: bool, total: int, *, quiet: bool = False) -> None:
        self._wanted, self._total, self._quiet = wanted, total, quiet
        self._shown = self._tokens = 0
        self._told = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw("")

    def take(self, event: Event) -> None:
        """Show what an event says; called from any thread."""
        if isinstance(event, LoadProgress):
            share = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._draw(f"{event.message}{share}")
        elif isinstance(event, StepCaptured):
            self._tokens = event.end
            self._draw(f"{event.end} tokens")
        elif isinstance(event, RunStateChanged) and event.state is RunState.RUNNING:
            self._draw("running")
        elif isinstance(event, BreakpointHit) and event.log_only and not self._quiet:
            self._draw("")
            sys.stderr.write(f"{drawable(event.expression)}: {drawable(event.values)} at token {event.token}\n")
        elif isinstance(event, Notice) and event.severity != "info" and not self._quiet:
            self._draw("")
            sys.stderr.write(f"{event.severity}: {drawable(event.message)}\n")
        elif isinstance(event, Notice | FindingRaised) and self._wanted:
            text = event.message if isinstance(event, Notice) else event.finding.message
            self._draw("")
            sys.stderr.write(f"{drawable(text)}\n")

    def wrote(self, path: Path) -> None:
        """Say which recording the tokens are in."""
        if self._wanted and self._tokens and not self._told and path.exists():
            self._draw("")
            sys.stderr.write(f"{drawable(str(path))}: {self._told_of(path)}\n")

    def interrupted(self, path: Path, name: str) -> None:
        """Say that the recording ``name`` was cut short, wherever that is read; it is at ``path``."""
        if self._quiet:
            return
        self._told = True
        self._draw("")
        kept = f"{drawable(name)}: {self._told_of(path)}" if self._tokens and path.exists() else "nothing was recorded"
        sys.stderr.write(f"interrupted: {kept}\n")

    def _told_of(self, path: Path) -> str:
        return f"{self._tokens:,} tokens, {path.stat().st_size:,} bytes"

    def _draw(self, text: str) -> None:
        if not self._wanted:
            return
        line = drawable(text)[:79]
        sys.stderr.write("\r" + line + " " * max(0, self._shown - len(line)) + ("\r" if not line else ""))
        sys.stderr.flush()
        self._shown = len(line)
