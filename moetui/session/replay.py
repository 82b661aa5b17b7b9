"""A recording as a session: the same picture as a live model, with a clock and a file in the engine's place."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

from moetui.routing import ModelInfo, TimelineView
from moetui.routing.branches import BranchTree
from moetui.routing.diagnostics import DIAGNOSTICS
from moetui.routing.events import (
    Branch,
    Event,
    Finding,
    FindingRaised,
    GenerationSettings,
    ModelChanged,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import Intervention
from moetui.routing.kept import KeptTimeline
from moetui.session.diagnosis import Diagnosis
from moetui.session.filing import TraceFiles
from moetui.session.history import History, Standing
from moetui.session.mailbox import Mailbox
from moetui.session.no_model import NoModel
from moetui.session.offers import Mark
from moetui.session.playhead import Playhead
from moetui.session.protocol import REPLAYED, Capability, Playback
from moetui.session.transport import Transport, check_speed
from moetui.trace import Trace, open_trace

_FOLLOW_SECONDS = 0.25
_FINDINGS_SECONDS = 1.0
QUIET_SECONDS = 10.0
"""A run that is recorded is in its file within a second; of a slow one, or of a writer that is gone, nothing comes."""


class ReplaySession(Transport, NoModel, TraceFiles):
    """Plays a recording: implements ``Session``, ``Playable``, ``Waitable`` and ``Filing``.

    Pauses of the recorded run are cut to two seconds; a recording without times plays twenty steps a second.

    Args:
        path: the trace.
        speed: times real time, 0.25 to 64.
        start: tokens shown when it opens; ``"end"`` for all. None plays from the start, or follows from the end.
        paused: open paused.
        follow: go on reading while another program writes the file.

    Raises:
        TraceError: no trace, or damaged beyond use.
        UsageError: a speed out of range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        speed: float = 1.0,
        start: int | Literal["end"] | None = None,
        paused: bool = False,
        follow: bool = False,
    ) -> None:
        check_speed(speed)
        self._path = Path(path)
        self._trace: Trace = open_trace(self._path)
        self._start: int | Literal["end"] = start if start is not None else ("end" if follow else 0)
        self._begin_paused = paused
        self._follow = follow and not self._trace.ended
        self._changed = threading.Condition(threading.RLock())
        self._head = Playhead(speed)
        self._kept = KeptTimeline(lambda: self._trace.timeline.clip(self._head.position), lambda: self.tree)
        self._history = History()
        self._diagnosis = Diagnosis()
        self._looked_for = 0.0  # when findings were looked for last, by the monotonic clock
        self._marked: tuple[object, tuple[Mark, ...]] = (None, ())
        self._passed = 0  # events
        self._shown = 0  # tokens
        self._told: set[Finding] = set()
        self._heard = time.monotonic()
        self._quiet = False
        self._state = RunState.LOADING
        self._reason = ""
        self._closed = False
        self._mailbox = Mailbox()
        self._thread: threading.Thread | None = None

    # What it is.

    @property
    def name(self) -> str:
        """The file, as the user called it."""
        return str(self._path)

    @property
    def capabilities(self) -> Capability:
        """Pausing, stepping, seeking."""
        return REPLAYED

    @property
    def info(self) -> ModelInfo:
        """The model that was recorded."""
        return self._trace.info

    @property
    def timeline(self) -> ReplaySession:
        """The tokens up to the cursor."""
        return self

    def snapshot(self) -> TimelineView:
        """The tokens up to the cursor, but for those of branches that were deleted by then."""
        return self._kept.snapshot()

    @property
    def state(self) -> RunState:
        """Running while it plays, finished at the end."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it stands there."""
        return self._reason

    @property
    def settings(self) -> GenerationSettings:
        """Those of the run at the cursor."""
        return self._standing.settings or self._trace.settings

    @property
    def branches(self) -> Sequence[Branch]:
        """Runs and forks up to the cursor, but for those that were deleted by then."""
        return self._standing.tree.branches

    @property
    def tree(self) -> BranchTree:
        """How they hang together, and the one that stands at the cursor."""
        return self._standing.tree

    def last_text(self, branch: int) -> str:
        """The text of the token that a branch wrote last, where it is the one at the cursor, and all of it is shown."""
        standing = self._standing
        return standing.unread if branch == standing.tree.current else ""

    @property
    def findings(self) -> Sequence[Finding]:
        """What is wrong with the file, what recording it raised, and what the diagnostics find up to the cursor.

        The last is counted in the clock's thread, and may come a moment later.
        """
        recorded = (finding for finding in self._standing.findings if finding.kind not in DIAGNOSTICS)
        return (*self._of_file, *recorded, *self._diagnosis.found)

    @property
    def interventions(self) -> Sequence[Intervention]:
        """Those in force at the cursor."""
        return self._standing.interventions

    @property
    def playback(self) -> Playback:
        """Where the replay stands."""
        with self._changed:
            head = self._head
            return Playback(head.position, self._trace.num_tokens, head.speed, head.loop, self._quiet)

    @property
    def costs(self) -> dict[str, float]:
        """A replay costs a recorded run nothing."""
        return {}

    # What it does.

    def open(self) -> None:
        """Begin to play."""
        with self._changed:
            if self._thread is not None or self._closed:
                return
            self._load()
            self._heard = time.monotonic()
            self._mailbox.put(ModelChanged(self._trace.info))
            end = self._head.end
            self._move(end if self._start == "end" else self._start)
            if self._begin_paused or (self._head.at_end and not self._follow):
                self._rest("")
            else:
                self._play()
            self._tell_findings()
            self._thread = threading.Thread(target=self._run, name="moetui-replay", daemon=True)
            self._thread.start()

    def events(self) -> AsyncIterator[Event]:
        """What happens, in order, for one reader."""
        return self._mailbox.events()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it plays no more; False if ``timeout`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not self._head.playing, timeout)

    def diagnosed(self, timeout: float | None = None) -> bool:
        """Block until ``findings`` are those of the tokens shown; False if ``timeout`` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._diagnosis.is_of(self.snapshot()), timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """What is shown is in the timeline already."""
        return True

    def close(self, timeout: float = 1.0) -> None:
        """End the clock and close the file."""
        with self._changed:
            self._closed = True
            self._head.pause()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        self._mailbox.close()
        self._trace.close()

    # The clock's thread.

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                if self._follow and now - looked >= _FOLLOW_SECONDS:
                    looked = now
                    self._look()
                self._head.advance(now)
                self._catch_up()
                self._tell_findings()
                if self._head.playing and self._head.at_end and self._head.loop is None and not self._follow:
                    self._rest("")
                view = self._undiagnosed(now)
                if view is None:
                    wait = self._head.wait(time.monotonic())
                    if self._follow:
                        wait = _FOLLOW_SECONDS if wait is None else min(wait, _FOLLOW_SECONDS)
                    self._changed.wait(wait)
                    continue
            others = self._diagnosis.follow(view)  # without the lock: whoever asks where it stands waits for no file
            with self._changed:
                if self._diagnosis.is_of(view):
                    self._looked_for = time.monotonic()
                    self._changed.notify_all()
                if others:
                    self._mailbox.put(StepCaptured(self._shown))

    def _undiagnosed(self, now: float) -> TimelineView | None:
        """The tokens shown, if findings are to be looked for in them now: while it plays, seldom."""
        if self._head.playing and now - self._looked_for < _FINDINGS_SECONDS:
            return None
        view = self.snapshot()
        return None if self._diagnosis.is_of(view) else view

    def _look(self) -> None:
        """Read what was appended to the file."""
        abandoned = self._trace.abandoned  # asked first: what came before it is read below
        if self._trace.refresh():
            self._heard, self._quiet = time.monotonic(), False
            waiting = self._head.at_end and self._head.playing
            info = self._trace.info
            self._load()
            if waiting:
                self._head.play(time.monotonic())
            self._mailbox.put(ModelChanged(info))
        if self._trace.ended or abandoned:
            self._follow = False
        if abandoned and not self._trace.ended:
            self._mailbox.put(Notice(f"{self._path.name} {abandoned}: nothing more will come of it", "warning"))
        silent = self._follow and self._recorded_state is RunState.RUNNING
        if silent and not self._quiet and time.monotonic() - self._heard >= QUIET_SECONDS:
            self._quiet = True
            text = f"{self._path.name}: nothing came for {QUIET_SECONDS:.0f} s: the run is slow, or its writer is gone"
            self._mailbox.put(Notice(text, "warning"))

    @property
    def _recorded_state(self) -> RunState:
        """How the recorded run stands, as far as the file says."""
        events = (item.event for item in reversed(self._trace.events))
        return next((event.state for event in events if isinstance(event, RunStateChanged)), RunState.RUNNING)

    # With the lock held.

    def _load(self) -> None:
        self._history.extend(self._trace.events)
        self._head.follow(self._trace.timeline.steps(), self._trace.num_tokens)

    @property
    def _standing(self) -> Standing:
        with self._changed:
            return self._history.standing(self._passed)

    @property
    def _of_file(self) -> tuple[Finding, ...]:
        """What is wrong with the file: that it has no end is not, as long as somebody writes it."""
        found = self._trace.file_findings
        return tuple(finding for finding in found if finding.kind != "trace_incomplete") if self._follow else found

    def _tell_findings(self) -> None:
        for finding in self._of_file:
            if finding not in self._told:
                self._told.add(finding)
                self._mailbox.put(FindingRaised(finding))
