"""A session on a model that runs in this process, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any

from moetui.debugger import MoEDebugger, Plugins
from moetui.debugger.recording import check_target
from moetui.engine.analyses import ANALYSES, find_analysis
from moetui.engine.control import Gate, RunControl
from moetui.engine.models import LoadRequest
from moetui.routing import ModelInfo, Timeline, TimelineView, UsageError
from moetui.routing.events import (
    Event,
    Finding,
    GenerationSettings,
    RunState,
    RunStateChanged,
)
from moetui.routing.interventions import Intervention
from moetui.routing.kept import KeptTimeline
from moetui.routing.timeline import TimelineSource
from moetui.session.breaking import Breaking
from moetui.session.holdings import EventLog, HoldingFiles
from moetui.session.mailbox import Mailbox
from moetui.session.options import LiveOptions
from moetui.session.protocol import LIVE, Capability, Playback
from moetui.session.steering import Steering
from moetui.session.worker import Worker
from moetui.trace.recorded import Held

_SOON = 1.0  # s
_NOTHING = ModelInfo(name="", architecture="", model_type="", sites=())


class LiveSession(Steering, Breaking, HoldingFiles):
    """Loads a model, runs prompts, pauses and steps: a ``Session``.

    It is made at once and imports no torch; ``open`` starts the *generation thread*, which does and which alone touches
    the model. Commands reach that thread at the gate before each step (and each site, when sites are stepped).

    ``close`` may be called from any thread, and from where an exception has unwound to; not from within a signal
    handler, which may have interrupted the very lock that is needed: let the handler raise instead.

    Args:
        options: see ``LiveOptions``.
        debugger: watch this debugger's model instead of loading one.
        on_event: called with each event as it happens, in whatever thread it happens; must be quick.
    """

    def __init__(
        self,
        options: LiveOptions,
        *,
        debugger: MoEDebugger | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._options = options
        self._given = debugger is not None
        self._on_event = on_event
        self._mailbox = Mailbox()
        self._changed = threading.Condition()
        self._closing = False
        self._closed = threading.Event()
        self._gate = Gate(self._tell_control)
        self._worker = Worker(options, self._gate, self._emit, self._wake, debugger)
        self._thread = threading.Thread(target=self._worker.run, name="moetui-generation", daemon=True)
        self._empty = Timeline(_NOTHING)
        self._kept = KeptTimeline(self._every_token, lambda: self._worker.tree)
        self._log = EventLog()
        self._opened = False

    @classmethod
    def on(cls, debugger: MoEDebugger, *, prompt: str = "", settings: GenerationSettings | None = None) -> LiveSession:
        """A session on the model of a debugger; closing it leaves the model, without hooks, to its owner."""
        name = debugger.info.name
        options = LiveOptions(LoadRequest(name), prompt=prompt, settings=settings or GenerationSettings())
        return cls(options, debugger=debugger)

    # What it is.

    @property
    def name(self) -> str:
        """The model, as the user called it."""
        return self._options.load.model

    @property
    def capabilities(self) -> Capability:
        """Everything but seeking."""
        return LIVE

    @property
    def info(self) -> ModelInfo | None:
        """The model; None until it is loaded."""
        debugger = self._worker.debugger
        return None if debugger is None else debugger.info

    @property
    def timeline(self) -> TimelineSource:
        """The tokens that the recorder has handed on, but for those of branches that were deleted."""
        return self._kept

    @property
    def state(self) -> RunState:
        """Where the run stands."""
        return self._gate.control.state

    @property
    def reason(self) -> str:
        """Why it stands there."""
        return self._gate.control.reason

    @property
    def hint(self) -> str:
        """What to do about a failure."""
        return self._gate.control.hint

    @property
    def settings(self) -> GenerationSettings:
        """The settings that the next run uses by default."""
        return self._worker.settings

    @property
    def findings(self) -> Sequence[Finding]:
        """What diagnostics found so far."""
        return tuple(self._worker.findings)

    @property
    def interventions(self) -> Sequence[Intervention]:
        """The interventions in force, or about to be: those that were asked for last."""
        return self._worker.interventions

    @property
    def playback(self) -> Playback | None:
        """None: a live session cannot be sought in."""
        return None

    @property
    def costs(self) -> dict[str, float]:
        """Shares of the last run's wall time that capturing it took, by part."""
        return self._worker.costs()

    @property
    def plugins(self) -> Plugins:
        """Measures, diagnostics and pictures that users registered."""
        return self._worker.plugins

    @property
    def error(self) -> Exception | None:
        """What loading or the last run failed with, for a caller that wants to raise it."""
        return self._worker.error if self.state is RunState.FAILED else None

    @property
    def recording(self) -> tuple[int, str]:
        """Bytes of the recording so far, and what ended it early (empty: nothing)."""
        return self._worker.recorded()

    @property
    def kept_until(self) -> int:
        """The first token that closing would lose; the end where it is recorded, or its debugger's owner has it."""
        end = self.timeline.snapshot().end
        recorded = self._options.record is not None and not self.recording[1]
        return end if recorded or self._given else min(self._saved, end)

    # What it does.

    def open(self) -> None:
        """Start the generation thread: it loads the model, and begins the first run if there is a prompt.

        Raises:
            UsageError: the recording's file exists already, or its folder does not.
        """
        if self._opened:
            return
        if self._options.record is not None:
            check_target(self._options.record, overwrite=self._options.force)
        self._opened = True
        self._emit(RunStateChanged(RunState.LOADING))
        self._thread.start()

    def pace(self, seconds: float) -> None:
        """See ``Paced``; no effect before the model is loaded, nor where ``LiveOptions.linger`` is None."""
        self._worker.pace(seconds)

    def events(self) -> AsyncIterator[Event]:
        """What happens, in order; ends after ``close``."""
        return self._mailbox.events()

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        """Run ``function(model, tokenizer)`` in the generation thread, before the next step or at once where it waits.

        Forward passes that it makes are not captured; interventions act on them. What it calls or analyses itself is
        done at once.
        """
        return self._worker.call(function)

    @property
    def analyses(self) -> Sequence[str]:
        """The names that ``analyze`` knows."""
        return tuple(ANALYSES)

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        """Run an analysis in the generation thread, before the next step or at once where it waits.

        Its passes are not captured; interventions act on them. ``moetui.session.analyses`` tells names, arguments and
        values.

        Raises:
            UsageError: no analysis of this name, or an argument that it does not take.
        """
        return self._worker.analyze(find_analysis(name, arguments), arguments)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the session waits for a command: it neither loads nor runs (it may be paused), or was closed.

        Returns:
            False if ``timeout`` seconds were not enough.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._closing or self._at_rest(), timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all tokens that went through the model are in the timeline and the recording."""
        debugger = self._worker.debugger
        return debugger is None or debugger.flush(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """End everything within ``timeout`` seconds; a thread that the device or a download holds is left to itself."""
        with self._changed:
            if self._closing:
                first = False
            else:
                first = self._closing = True
            self._changed.notify_all()
        if not first:
            self._closed.wait(timeout)
            return
        deadline = monotonic() + timeout
        try:
            self._gate.quit()
            self._worker.cancel_calls()
            if self._opened and threading.current_thread() is not self._thread:
                # An import or a download cannot be called off, and holds nothing that has to be closed.
                self._thread.join(timeout * 0.6 if self._worker.debugger is not None else 0.05)
            if self._thread.is_alive() or not self._opened:
                self._worker.abandon(max(0.05, deadline - monotonic()))
        finally:
            self._mailbox.close()
            self._closed.set()

    def held(self) -> Held:
        """What it holds, as a recording.

        Raises:
            UsageError: no model is loaded.
        """
        if self.info is None:
            raise UsageError("there is nothing to write yet", "load a model and run a prompt first")
        self._catch_up()
        self.flush()
        return self._log.held(self.info, self._every_token(), self.findings)

    def _every_token(self) -> TimelineView:
        debugger = self._worker.debugger
        return (self._empty if debugger is None else debugger.live_timeline).snapshot()

    def _catch_up(self) -> None:
        """Let what was asked of the generation thread before take effect, if it comes to it soon."""
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            done = threading.Event()
            self._gate.submit(done.set)
            done.wait(_SOON)

    def _at_rest(self) -> bool:
        control = self._gate.control
        return not self._worker.busy and control.state not in (RunState.LOADING, RunState.RUNNING)

    def _tell_control(self, control: RunControl) -> None:
        runs = self._worker.runs
        current = None if runs is None else runs.lineage.tree.current
        last = self.last_text(current) if current is not None and control.state is RunState.FINISHED else ""
        self._emit(RunStateChanged(control.state, control.reason, control.hint, last))

    def _emit(self, event: Event) -> None:
        self._log.take(event, lambda: self.timeline.snapshot().end)
        self._mailbox.put(event)
        if self._on_event is not None:
            self._on_event(event)
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
