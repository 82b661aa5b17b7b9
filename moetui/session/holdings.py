"""What a live session holds, as a recording: for files that its user asks for."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from moetui.debugger.recording import check_target
from moetui.routing import ModelInfo, TimelineView
from moetui.routing.events import (
    BranchAdded,
    BreakpointHit,
    Event,
    Finding,
    GenerationSettings,
    InterventionsChanged,
)
from moetui.session.filing import export_trace, load_recording
from moetui.session.offers import Recording
from moetui.trace import RecordedEvent, save_recorded
from moetui.trace.recorded import Held
from moetui.trace.values import is_lasting

_MOST_EVENTS = 100_000


class EventLog:
    """The lasting events of a session, each with the number of tokens that there were; the oldest leave first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[RecordedEvent] = deque(maxlen=_MOST_EVENTS)

    def take(self, event: Event, end: Callable[[], int]) -> None:
        """Note an event, if it is one that lasts; from any thread. ``end`` gives the number of tokens so far."""
        if not is_lasting(event):
            return
        if isinstance(event, BranchAdded):
            token = event.branch.first_token
        elif isinstance(event, InterventionsChanged):
            token = event.token
        elif isinstance(event, BreakpointHit):
            token = event.token + 1
        else:
            token = end()
        with self._lock:
            self._events.append(RecordedEvent(token, event))  # type: ignore[arg-type]

    def held(self, info: ModelInfo, view: TimelineView, findings: Sequence[Finding]) -> Held:
        """These events with a timeline's tokens, as a recording; settings and prompt are those of the first run."""
        with self._lock:
            events = tuple(self._events)
        first = next((item.event for item in events if isinstance(item.event, BranchAdded)), None)
        return Held(
            info=info,
            timeline=view,
            events=events,
            settings=GenerationSettings() if first is None else first.settings,
            prompt="" if first is None else first.branch.prompt,
            findings=tuple(findings),
        )


class HoldingFiles(ABC):
    """Implements ``Filing`` for a session that holds its tokens in memory."""

    _saved = 0  # the first token that no file has which the user asked for

    @abstractmethod
    def held(self) -> Held:
        """What it holds, as a recording."""

    def save(self, path: str, *, overwrite: bool = False) -> int:
        """Write all tokens held, with what happened meanwhile, to a trace; the bytes.

        Raises:
            UsageError: the file exists (without ``overwrite``), its folder does not, or no model is loaded.
            TraceError: it cannot be written.
        """
        target = Path(path).expanduser()
        check_target(target, overwrite=overwrite)
        held = self.held()
        nbytes = save_recorded(held, target, overwrite=overwrite)
        self._saved = held.timeline.end
        return nbytes

    def export(self, path: str, format: str, *, overwrite: bool = False) -> int:  # noqa: A002
        """Write all tokens held in one of the formats of ``moetui export``; the bytes.

        Raises:
            UsageError: an unknown format, or as for ``save``.
            TraceError: it cannot be written.
        """
        return export_trace(self.held(), path, format, overwrite=overwrite)

    def load(self, path: str) -> Recording:
        """Open a recording beside this session.

        Raises:
            TraceError: no trace, or damaged beyond use.
        """
        return load_recording(path)
