"""What a live session does with each step: tell of it, look for findings, watch the recording."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from moetui.debugger import MoEDebugger
from moetui.engine.options import LINGER
from moetui.routing.diagnostics import DEFAULTS, diagnose, is_unsure, new_findings
from moetui.routing.events import Event, Finding, FindingRaised, ModelChanged, RecordingChanged, StepCaptured
from moetui.routing.steps import Steps
from moetui.routing.totals import RoutingTotals

_FINDINGS_SECONDS = 1.0
_RECORDING_BYTES = 64_000
_FIRST_LINGER = 0.03  # s
_LINGER_SHARE = 0.5  # of the time that a run has gone on


class Watch:
    """Stands between the timeline and the screen, in whichever thread records.

    Args:
        debugger: its steps and events come here.
        emit: takes events at once.
        findings: gets what is found; what the diagnostics found stays for as long as they hold to it.
        linger: seconds that a step may come later where a person looks on, until ``pace`` says otherwise; None leaves
            it as it is.
    """

    def __init__(
        self,
        debugger: MoEDebugger,
        emit: Callable[[Event], None],
        findings: list[Finding],
        linger: float | None = None,
    ) -> None:
        self._debugger, self._emit, self._findings = debugger, emit, findings
        self._linger, self._began = linger, perf_counter()
        if linger is not None:
            debugger.linger = linger
        self._totals = RoutingTotals(debugger.info.sites)
        self._told: list[Finding] = []  # by the diagnostics, at some time
        self._raised: list[Finding] = []  # by others
        self._diagnosed = perf_counter()
        self._told_bytes = -1
        self._told_problem = ""
        debugger.listen(self._take_steps, self._take_event)

    def run_began(self) -> None:
        """In the generating thread: the first tokens are handed on as they come, as a short run has no others."""
        if self._linger is not None:
            self._began, self._debugger.linger = perf_counter(), min(_FIRST_LINGER, self._linger)

    def pace(self, seconds: float) -> None:
        """Steps made together cost a fraction: make them no more often than somebody looks."""
        if self._linger is not None:
            self._linger = min(max(seconds, _FIRST_LINGER), LINGER)
            self._debugger.linger = min(self._debugger.linger, self._linger)

    def run_ended(self) -> None:
        """In the generating thread, with the recorder flushed: look once more, at everything."""
        self._diagnose()
        self._tell_recording(always=True)

    def _take_steps(self, _: Steps, end: int) -> None:
        self._emit(StepCaptured(end))
        now = perf_counter()
        debugger = self._debugger
        if self._linger is not None and debugger.linger < self._linger:
            debugger.linger = min(self._linger, max(_FIRST_LINGER, _LINGER_SHARE * (now - self._began)))
        if now - self._diagnosed >= _FINDINGS_SECONDS:
            self._diagnose()
            self._diagnosed = perf_counter()
        self._tell_recording()

    def _take_event(self, event: Event) -> None:
        if isinstance(event, FindingRaised):
            if event.finding not in self._told:
                self._raised.append(event.finding)
                self._findings.append(event.finding)
        elif isinstance(event, ModelChanged):
            self._totals = RoutingTotals(event.info.sites)
        self._emit(event)

    def _diagnose(self) -> None:
        self._totals.update(self._debugger.live_timeline.snapshot())
        everything = diagnose(self._totals, DEFAULTS, self._debugger.plugins.diagnostics)
        found = [finding for finding in everything if not is_unsure(finding)]
        new = new_findings(self._told, found)
        self._told += new
        self._findings[:] = [*self._raised, *found]
        for finding in new:
            self._debugger.tell(FindingRaised(finding))

    def _tell_recording(self, *, always: bool = False) -> None:
        recording = self._debugger.recording
        if recording is None:
            return
        grown = recording.nbytes - self._told_bytes >= _RECORDING_BYTES
        news = recording.problem != self._told_problem
        if always or grown or news:
            self._told_bytes, self._told_problem = recording.nbytes, recording.problem
            self._emit(RecordingChanged(str(recording.path), recording.nbytes, recording.problem))
        if news and recording.problem:
            message, hint = f"the recording stopped: {recording.problem}", "'save FILE' writes what is held elsewhere"
            self._take_event(FindingRaised(Finding("recording_stopped", "error", message, hint)))
