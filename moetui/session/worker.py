"""What the generation thread of a live session does: load, run prompts, and what others ask of it in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from moetui.debugger import BreakpointSet, MoEDebugger, Plugins
from moetui.engine import CaptureOptions
from moetui.engine.analyses import Analysis, run_analysis
from moetui.engine.collector import collecting_seldom
from moetui.engine.control import Gate, RunControl
from moetui.engine.settings import check_settings
from moetui.routing import ModelError, MoetuiError, UsageError
from moetui.routing.branches import BranchTree
from moetui.routing.events import (
    BreakpointHit,
    Event,
    Finding,
    GenerationSettings,
    LoadProgress,
    ModelChanged,
    Notice,
    RecordingChanged,
    RunState,
)
from moetui.routing.interventions import Intervention, checked
from moetui.session.keeping import Keeper
from moetui.session.meter import Meter
from moetui.session.offers import Underway
from moetui.session.runs import Runs
from moetui.session.watch import Watch

if TYPE_CHECKING:
    from moetui.debugger.recording import Recording
    from moetui.session.options import LiveOptions


class Worker:
    """The body of the generation thread, and what it shares with those who command it.

    Args:
        options: what to load and run.
        gate: where the thread waits.
        emit: takes events, from any thread, at once.
        wake: called when ``busy`` changed.
        debugger: of a model that is there already; None to load one.
    """

    def __init__(
        self,
        options: LiveOptions,
        gate: Gate,
        emit: Callable[[Event], None],
        wake: Callable[[], None],
        debugger: MoEDebugger | None = None,
    ) -> None:
        self.settings = options.settings
        self.debugger: MoEDebugger | None = None
        self.plugins = Plugins() if debugger is None else debugger.plugins
        self.runs: Runs | None = None
        self.findings: list[Finding] = []
        self.breakpoints = (
            BreakpointSet(CaptureOptions(logits=options.logits)) if debugger is None else debugger.breakpoints
        )
        self._options, self._gate, self._emit, self._wake = options, gate, emit, wake
        self._given = debugger
        self._keeper = None if options.state is None else Keeper(options.state, options.load.model)
        self._calls: set[Future[Any]] = set()
        self._calls_lock = threading.Lock()
        self._calling: int | None = None  # the generation thread, while it is in a call
        self._before_next: Callable[[], None] | None = None
        self._coming: list[tuple[Intervention, ...]] = []
        self._watch: Watch | None = None
        self._meter = Meter(lambda: gate.waited)
        self._preparing = True
        self._error: Exception | None = None
        self._recording: Recording | None = None  # told of when it is closed, too

    @property
    def busy(self) -> bool:
        """Something goes on that the run's state does not tell."""
        return self._preparing or (self.runs is not None and self.runs.busy)

    @property
    def tree(self) -> BranchTree:
        """Runs and forks so far."""
        return BranchTree() if self.runs is None else self.runs.lineage.tree

    @property
    def hit(self) -> BreakpointHit | None:
        """Of the breakpoint that the run stands at."""
        paused = self._gate.control.state is RunState.PAUSED
        return self.runs.passage.hit if self.runs is not None and paused else None

    @property
    def underway(self) -> Underway | None:
        """The step that the run stands within."""
        paused = self._gate.control.state is RunState.PAUSED
        return self.runs.passage.underway if self.runs is not None and paused else None

    @property
    def error(self) -> Exception | None:
        """What loading or the last run failed with."""
        return self._error or (None if self.runs is None else self.runs.passage.error)

    # In the generation thread.

    def run(self) -> None:
        """Load the model, then do what is asked until the session quits."""
        with ExitStack() as stack:
            try:
                self._prepare(stack)
            except Exception as error:  # noqa: BLE001 - the thread's last resort: say what happened, stay alive
                self._fail(error)
            except BaseException as error:  # noqa: BLE001 - code that came with the model may leave by sys.exit
                self._fail(ModelError(f"the model's own code ended its loading: {type(error).__name__}: {error}"))
            self._preparing = False
            self._wake()
            while self._gate.wait_idle():
                pass
            if self.debugger is not None:
                self._leave(self.debugger)

    def _prepare(self, stack: ExitStack) -> None:
        debugger = self._given
        if debugger is None:
            with collecting_seldom():
                debugger = self._load(stack)
        try:
            self.runs = self._set_up(debugger)
        except Exception:
            self._leave(debugger)  # and with it a recording in which nothing stands
            raise
        self.debugger = debugger
        self._emit(ModelChanged(debugger.info))
        self._gate.apply(RunControl.ready)
        if self._options.prompt and self._options.begin:
            self.begin(self._options.prompt, self._options.settings, paused=self._options.paused)

    def _set_up(self, debugger: MoEDebugger) -> Runs:
        watch = self._watch = Watch(debugger, self._emit, self.findings, self._options.linger)
        runs = Runs(debugger, self._gate, self._emit, self._wake, watch, self._meter)
        debugger.capture.before_step = self._before_step
        for problem in self.plugins.load_entry_points():
            self._emit(Notice(problem, "warning"))
        if self._options.record is not None:
            self._recording = debugger.record(
                self._options.record,
                overwrite=self._options.force,
                settings=self._options.settings,
                prompt=self._options.prompt,
            )
            self._emit(RecordingChanged(str(self._options.record)))
        debugger.attach()
        self._restore_breakpoints()
        if self._options.interventions:
            debugger.interventions.set(self._options.interventions)
        return runs

    def _load(self, stack: ExitStack) -> MoEDebugger:
        from moetui.engine.surroundings import check_surroundings

        check_surroundings()
        self._emit(LoadProgress("starting torch and transformers"))
        from moetui.engine.libraries import overheard
        from moetui.engine.loading import load
        from moetui.engine.one_thread import run_by_one

        if self._options.load.model == "demo":
            run_by_one()
        stack.enter_context(
            overheard(lambda line: self._emit(Notice(line, "warning")), lambda line: self._emit(LoadProgress(line)))
        )
        loaded = load(self._options.load, lambda message, done: self._emit(LoadProgress(message, done)))
        if self._gate.control.quitting:
            raise ModelError("the session was closed while the model was loading")
        debugger = MoEDebugger(
            loaded.model,
            loaded.tokenizer,
            logits=self._options.logits,
            sample_rate=self._options.sample_rate,
            buffer_tokens=self._options.buffer_tokens,
            name=loaded.name,
        )
        debugger.plugins, debugger.breakpoints = self.plugins, self.breakpoints
        self.breakpoints.bind(debugger.capture, debugger.live_timeline, debugger.tell)
        for notice in loaded.notices:
            self._emit(Notice(notice, "warning"))
        return debugger

    def _leave(self, debugger: MoEDebugger) -> None:
        debugger.capture.before_step = debugger.capture.gate = None
        debugger.close()

    def _before_step(self, arguments: Mapping[str, Any]) -> bool:
        if self._before_next is not None:
            self._gate.submit(self._before_next)
            self._before_next = None
        return self.runs is None or self.runs.passage.before_step(arguments)

    def _restore_breakpoints(self) -> None:
        if self._keeper is None:
            return
        problems = self._keeper.restore(self.breakpoints)
        for problem in problems:
            self._emit(Notice(problem, "warning"))
        count = len(self.breakpoints)
        if count:
            self._emit(Notice(f"{count} breakpoint{'s' if count > 1 else ''} of an earlier session: see 'breakpoints'"))

    def _fail(self, error: Exception) -> None:
        self._error = error
        if isinstance(error, MoetuiError):
            message, hint = error.message, error.hint
        else:
            message = f"internal error: {type(error).__name__}: {error}"
            hint = "this is a bug in moetui; --debug shows where"
        self._gate.apply(lambda control: control.failed(message, hint))

    # From any thread.

    def begin(self, prompt: str, settings: GenerationSettings, *, paused: bool = False) -> None:
        """Check a prompt and start its run; raises ``UsageError``."""
        self.started().begin(prompt, settings, paused=paused)
        self.settings = settings
        self._error = None

    def started(self) -> Runs:
        """The runs.

        Raises:
            UsageError: the model is not loaded, or the session is closed.
        """
        self._loaded()
        assert self.runs is not None
        return self.runs

    def keep_breakpoints(self) -> None:
        """Write the breakpoints down for the next session."""
        problem = "" if self._keeper is None else self._keeper.save(self.breakpoints)
        if problem:
            self._keeper = None
            self._emit(Notice(problem, "warning"))

    def pace(self, seconds: float) -> None:
        """See ``Paced``."""
        if self._watch is not None:
            self._watch.pace(seconds)

    def watch_sites(self) -> None:
        """Let the next sites come to the gate."""
        if self.debugger is not None and self.runs is not None:
            self.debugger.capture.gate = self.runs.passage.at_site

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Those that were asked for last: whoever adds to them loses none that the next step takes up."""
        coming = self._coming[-1:]  # one look: the generation thread shortens the list meanwhile
        if coming:
            return coming[0]
        return self._options.interventions if self.debugger is None else self.debugger.interventions.current

    def set_interventions(self, interventions: Sequence[Intervention]) -> None:
        """See ``LiveSession.set_interventions``."""
        debugger = self._loaded()
        wanted = checked(interventions)
        prepared = debugger.interventions.prepare(wanted)
        self._coming.append(wanted)

        def put() -> None:
            if self._gate.control.within_step and not debugger.capture.wants_logits:
                # The routers' hooks are missing, and none may be added while the pass stands at a site.
                self._before_next = put
            else:
                if self._gate.control.within_step:
                    self.started().passage.changed_within()
                debugger.interventions.put(wanted, prepared)
                places = [place for place, coming in enumerate(self._coming) if coming is wanted]
                del self._coming[: places[0] + 1 if places else 0]

        self._submit(put)

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        """See ``LiveSession.call``. From within a call it is done at once: its thread would wait for itself."""
        future: Future[Any] = Future()
        with self._calls_lock:
            if self._gate.control.quitting:
                future.cancel()
                return future
            self._calls.add(future)
        future.add_done_callback(self._forget_call)
        self._submit(lambda: self._do_call(function, future))
        return future

    def _submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by the generation thread between two steps, where a call stands, too."""
        if self._calling == threading.get_ident():
            work()
        else:
            self._gate.submit(work)

    def analyze(self, analysis: Analysis, arguments: Mapping[str, Any]) -> Future[Any]:
        """See ``LiveSession.analyze``."""

        def run(model: Any, tokenizer: Any) -> Any:
            from moetui.engine.analyses.subject import Subject

            debugger = self._loaded()
            debugger.flush()
            subject = Subject(
                model, tokenizer, debugger.capture.handles, debugger.live_timeline.snapshot(), self.tree.every
            )
            return run_analysis(analysis, subject, arguments)

        return self.call(run)

    def cancel_calls(self) -> None:
        """Cancel what waits to be called."""
        with self._calls_lock:
            waiting = list(self._calls)
        for future in waiting:
            future.cancel()

    def configure(self, settings: GenerationSettings) -> None:
        """See ``LiveSession.configure``."""
        check_settings(settings)
        self.settings = settings

    def recorded(self) -> tuple[int, str]:
        """See ``LiveSession.recording``."""
        recording = self._recording or (None if self.debugger is None else self.debugger.recording)
        return (0, "") if recording is None else (recording.nbytes, recording.problem)

    def costs(self) -> dict[str, float]:
        """See ``LiveSession.costs``."""
        return self._meter.shares()

    def abandon(self, timeout: float) -> None:
        """The thread does not come back in time: close the recording without it."""
        debugger = self.debugger or self._given
        if debugger is None:
            return
        debugger.capture.before_step = debugger.capture.gate = None
        debugger.detach()
        debugger.flush(timeout / 2)
        if debugger.recording is not None:
            debugger.recording.close(timeout=timeout / 2)

    def _loaded(self) -> MoEDebugger:
        control = self._gate.control
        if self.debugger is None:
            if control.state is RunState.FAILED:
                raise UsageError(f"there is no model: {control.reason}", control.hint)
            raise UsageError("the model is not loaded yet", "wait until it is")
        if control.quitting:
            raise UsageError("the session is closed")
        return self.debugger

    def _do_call(self, function: Callable[[Any, Any], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            debugger = self._loaded()
            with ExitStack() as stack:
                if self._calling is None:  # else a call does it for those within it
                    self._enter_call(stack, debugger)
                result = function(debugger.model, debugger.tokenizer)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
            future.set_exception(error)
        else:
            future.set_result(result)

    def _enter_call(self, stack: ExitStack, debugger: MoEDebugger) -> None:
        stack.enter_context(debugger.muted())
        if self._gate.control.active:
            # A sampled run goes on afterwards as if nothing had been in between.
            from moetui.engine.rewind import kept_generators

            stack.enter_context(kept_generators())
        self._calling = threading.get_ident()
        stack.callback(setattr, self, "_calling", None)

    def _forget_call(self, future: Future[Any]) -> None:
        with self._calls_lock:
            self._calls.discard(future)
