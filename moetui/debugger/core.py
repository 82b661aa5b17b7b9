"""``MoEDebugger``: what watches a model, whoever runs it."""

from __future__ import annotations

import atexit
import difflib
import importlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from moetui.debugger.breakpoints import BreakpointSet
from moetui.debugger.interventions import InterventionSet, unheeded
from moetui.debugger.memory import MemoryMeter
from moetui.debugger.plugins import F, Plugins
from moetui.debugger.recording import Recording
from moetui.debugger.run_control import OwnRunControl
from moetui.engine import CaptureOptions
from moetui.routing import ModelInfo, Timeline, TimelineView, UsageError, drawable
from moetui.routing.events import (
    Event,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    ModelChanged,
    Notice,
)
from moetui.routing.given import file_path, shown, whole
from moetui.routing.steps import Steps
from moetui.routing.timeline import view_text

_HOOKABLE = tuple(field.name for field in fields(CaptureOptions))
_LAYOUT = ("logits", "weights")
_AT_EXIT = 2.0  # seconds that the interpreter's end waits for the recording, and for what is still on its way to it


class CompleteTimeline:
    """The timeline as a script wants it: a view holds every token that went through the model before."""

    def __init__(self, timeline: Timeline, flush: Callable[[], bool]) -> None:
        self._timeline, self._flush = timeline, flush

    def __repr__(self) -> str:
        return f"<timeline of {view_text(self._timeline.snapshot())}>"

    def snapshot(self) -> TimelineView:
        """All tokens so far; waits for the recorder, not for the model."""
        self._flush()
        return self._timeline.snapshot()


class MoEDebugger:
    """Watches the routing of a model, and changes it when told to.

    A context manager: within it every forward pass, ``model.generate`` included, is captured; behind it no hook is left
    on the model, whatever happened.

    Args:
        model: any transformers model with routers.
        tokenizer: for the text of tokens; None shows ids.
        logits: keep the routers' logits (needed for entropies and margins).
        sample_rate: share of the steps to keep, 0..1.
        buffer_tokens: tokens held in memory; older ones leave.
        layers: layers to watch; None for all.
        options: all capture options at once, in the place of ``logits``, ``sample_rate`` and ``layers``.
        name: what to call the model.
        on_steps: called with steps as they come and the number of tokens so far, in the recorder's thread.
        on_event: called with what becomes known; in the recorder's thread or the generating one. Without it, warnings
            and errors go to the logger ``moetui``.

    Attributes:
        control: pauses, steps and stops what the user's own code runs, from another thread.
        breakpoints: conditions that each step's tokens are held against.
        interventions: changes of the routing in force.

    Raises:
        ModelError: the model has no router.
        UnsupportedError: it is compiled, so that hooks would be skipped.
        UsageError: what was given is no model or no tokenizer, an option is outside its range or of another kind, or a
            layer has no router.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        logits: bool = True,
        sample_rate: float = 1.0,
        buffer_tokens: int = 100_000,
        layers: Sequence[int] | None = None,
        options: CaptureOptions | None = None,
        name: str = "",
        on_steps: Callable[[Steps, int], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        from moetui.engine import Capture

        if whole(buffer_tokens, "buffer_tokens") < 1:
            raise UsageError(f"the buffer needs room for one token, not {buffer_tokens}")
        if options is None:  # which makes a tuple of the layers
            options = CaptureOptions(logits=logits, sample_rate=sample_rate, layers=layers)  # type: ignore[arg-type]
        elif not isinstance(options, CaptureOptions):
            raise UsageError(f"{shown(options)} are no options", "CaptureOptions(logits=False), of moetui.engine")
        self.model, self.tokenizer = model, tokenizer
        self.plugins = Plugins()
        self._on_steps, self._on_event = on_steps, on_event
        self.capture = Capture(
            model,
            options,
            on_steps=self._take_steps,
            on_event=self._take_event,
            tokenizer=tokenizer,
            name=name,
            memory=lambda: self._memory.megabytes(),
        )
        self.live_timeline = Timeline(self.capture.info, buffer_tokens)
        self.timeline = CompleteTimeline(self.live_timeline, self.capture.flush)
        self.interventions = InterventionSet(self.capture, self._tell_interventions)
        self.breakpoints = BreakpointSet(options)
        self.breakpoints.bind(self.capture, self.live_timeline, self.tell)
        self.control = OwnRunControl(self.capture, self.keep)
        self.recording: Recording | None = None
        self._recorded_by = 0  # the process
        self._findings: list[Finding] = []
        self._memory = MemoryMeter(self.info.device)
        self._told_rules: dict[str, str] = {}
        self._told_rate = 1.0
        self._entered = 0

    def __repr__(self) -> str:
        state = "attached" if self.capture.attached else "detached"
        return f"<debugger of {self.info.architecture}, {len(self.info.sites)} sites, {state}>"

    @property
    def info(self) -> ModelInfo:
        """The model, as far as it is known by now."""
        return self.capture.info

    @property
    def linger(self) -> float:
        """Seconds that a step may come later, so that steps can be made together; may be changed at any time."""
        return self.capture.linger

    @linger.setter
    def linger(self, seconds: float) -> None:
        self.capture.linger = seconds
        recording = self.recording
        if recording is not None:
            recording.linger = seconds

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the capture itself found: silent sites, lost steps, broken callbacks, steps left out as asked for."""
        return tuple(self._findings)

    def attach(self) -> MoEDebugger:
        """Put the hooks on; the same as entering the context."""
        self._tell_rate()
        self.capture.attach()
        self.control.attach()
        return self

    def detach(self) -> None:
        """Take every hook off; tokens captured so far still arrive."""
        self.control.detach()
        self.capture.detach()

    def close(self, timeout: float | None = None) -> bool:
        """Detach, hand on what was captured, close the recording; False if ``timeout`` seconds were not enough."""
        atexit.unregister(self._close_at_exit)
        self.control.release()
        self.control.detach()
        done = self.capture.close(timeout)
        recording, self.recording = self.recording, None
        if recording is not None:
            done = recording.close(timeout=-1 if timeout is None else timeout) and done
        return done

    def __enter__(self) -> MoEDebugger:
        self.attach()
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:  # one within another goes on
            self.close()

    def listen(self, on_steps: Callable[[Steps, int], None] | None, on_event: Callable[[Event], None] | None) -> None:
        """Replace ``on_steps`` and ``on_event``."""
        self._on_steps, self._on_event = on_steps, on_event

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all tokens captured so far are in the timeline and the recording."""
        return self.capture.flush(timeout)

    def muted(self) -> AbstractContextManager[None]:
        """Within it this thread's passes are not captured; interventions still act."""
        return self.capture.muted()

    def configure_hooks(self, options: Mapping[str, Any]) -> None:
        """Change what is captured, by the names of ``CaptureOptions``: ``{"logits": False, "layers": (2, 3)}``.

        It holds from the next forward pass on. Turning logits or weights on or off clears the timeline, as its tokens
        would have columns that the new ones lack. Breakpoints that ask for what is no longer captured are switched off.

        Raises:
            UsageError: an unknown name, with the nearest; a value outside its range or of another kind; or a layer that
                has no router.
        """
        if not isinstance(options, Mapping):
            raise UsageError(f"{shown(options)} are no hook options", "name and value: {'logits': False}")
        for name in options:
            if name not in _HOOKABLE:
                near = difflib.get_close_matches(str(name), _HOOKABLE, n=1)
                hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(_HOOKABLE)}"
                raise UsageError(f"there is no hook option {name}", hint)
        self._configure(replace(self.capture.options, **options))

    def set_sampling_rate(self, rate: float) -> None:
        """Keep this share of the steps, 0..1, from the next step on.

        Raises:
            UsageError: a rate outside 0..1, or no number.
        """
        self.capture.options = replace(self.capture.options, sample_rate=rate)
        self._tell_rate()

    def clear_buffer(self) -> None:
        """Forget the tokens held; their numbering goes on. A recording keeps them."""
        self.flush()
        self.live_timeline.clear()

    def record(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        settings: GenerationSettings | None = None,
        prompt: str = "",
    ) -> Recording:
        """Write every step from now on to a trace, until ``close``, or the end of a script that does not call it.

        What it returns can be closed by itself, as when the next run is to have a file of its own.

        Raises:
            UsageError: the file exists (without ``overwrite``), a recording is going on, or that is no file's name.
            TraceError: the file cannot be written.
        """
        if self.recording is not None and not self.recording.closed:
            raise UsageError(f"{self.recording.path} is being recorded already", "one recording at a time")
        self.flush()
        recording = Recording(
            file_path(path),
            self.info,
            settings=settings,
            prompt=prompt,
            overwrite=overwrite,
            has_logits=self.capture.options.logits,
        )
        recording.linger = self.linger
        self.recording, self._recorded_by = recording, os.getpid()
        atexit.register(self._close_at_exit)
        self._told_rate = 1.0  # not to this recording
        self._tell_rate()
        if len(self.interventions):
            self._tell_interventions()
        return recording

    def _close_at_exit(self) -> None:
        """End the file as ``close`` does: what waits to be flushed would be lost, and the file called incomplete."""
        if os.getpid() == self._recorded_by:  # a forked child shares the file
            self.close(_AT_EXIT)

    def keep(self) -> None:
        """Have all tokens so far in the recording's file, if there is one: the model stands."""
        if self.recording is not None:
            self.flush()
            self.recording.flush()

    def metric(self, name: str) -> Callable[[F], F]:
        """Decorator: add a measure ``(view) -> float``; ``metrics`` in the console shows it."""
        return self.plugins.metric(name)

    def diagnostic(self, name: str) -> Callable[[F], F]:
        """Decorator: add a diagnostic ``(totals, thresholds) -> findings``; they are told with the others."""
        return self.plugins.diagnostic(name)

    def inspector(self, function: F) -> F:
        """Decorator: add an inspector ``(module, path) -> {name: value}``: the Elements tab shows what it says."""
        return self.plugins.inspector(function)

    def register_viz(self, name: str) -> Callable[[F], F]:
        """Decorator: add a picture ``(view) -> Rich renderable``; ``viz NAME`` in the console draws it."""
        return self.plugins.register_viz(name)

    def start(self, prompt: str = "") -> int:
        """Open the terminal app on this model, and return when it is left.

        Returns:
            The app's exit status.
        """
        # By name: the debugger lies below the session and the screen, and knows nothing of them otherwise.
        session = importlib.import_module("moetui.session.live").LiveSession.on(self)
        screen = importlib.import_module("moetui.tui")
        return int(screen.run_app(session, screen.ScreenOptions(prompt=prompt)))

    def _configure(self, options: CaptureOptions) -> None:
        self.capture.check_layers(options)
        attached = self.capture.attached
        before = self.capture.options
        self.capture.close()
        self.capture.options = options
        self.capture.wants_logits = options.logits
        self._tell_rate()
        if any(getattr(before, name) != getattr(options, name) for name in _LAYOUT):
            self.live_timeline.clear()
        self.breakpoints.check_again()
        if attached:
            self.capture.attach()

    def _take_steps(self, steps: Steps) -> None:
        recording = self.recording
        end = self.live_timeline.extend(steps)
        if recording is not None:
            # Whoever waits for the steps to be in the timeline is not to wait for the disk.
            recording.write_steps(steps, aside=self.capture.after_step is not None)
        if self._on_steps is not None:
            try:
                self._on_steps(steps, end)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code, which is to cost no step
                finding = _broken("on_steps", error)
                if all(known.kind != finding.kind for known in self._findings):
                    self._take_event(FindingRaised(finding))
        if len(self.interventions) and self.interventions.rules != self._told_rules:
            self._tell_interventions()

    def _take_event(self, event: Event) -> None:
        if isinstance(event, ModelChanged):
            self.live_timeline.update_info(event.info)
        elif isinstance(event, FindingRaised):
            self._findings.append(event.finding)
        self.tell(event)

    def tell(self, event: Event) -> None:
        """Write an event to the recording and hand it to ``on_event``; who has none reads what is wrong in the log."""
        if self.recording is not None:
            self.recording.write_event(event)
        if self._on_event is None:
            _log(event)
            return
        try:
            self._on_event(event)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code; the model would wait for the recorder
            finding = _broken("on_event", error)
            if all(known.kind != finding.kind for known in self._findings):
                self._findings.append(finding)
                _log(FindingRaised(finding))

    def _tell_rate(self) -> None:
        """Say once which share of the steps is kept, if not all are: nothing else says that steps are missing."""
        rate = self.capture.options.sample_rate
        if rate < 1.0 and rate != self._told_rate:
            message = f"{100 * rate:.3g}% of the steps are recorded, as the sample rate asks"
            finding = Finding("steps_sampled", "info", message, "a sample rate of 1 records all")
            if finding not in self._findings:
                self._findings.append(finding)
            self.tell(FindingRaised(finding))
        self._told_rate = rate

    def _tell_interventions(self) -> None:
        self._told_rules = self.interventions.rules
        self.flush()
        token = self.live_timeline.snapshot().end
        self.tell(InterventionsChanged(self.interventions.current, token, dict(self._told_rules)))
        found = unheeded(self.interventions.current, self.capture.sites, self._told_rules)
        if found is not None and found not in self._findings:
            self.capture.report(found)


def _broken(name: str, error: BaseException) -> Finding:
    message = f"{name} does not work: {type(error).__name__}: {error}"
    return Finding("callback_failed", "error", message, "no step is lost by it; mend the function")


def _log(event: Event) -> None:
    """Python writes warnings and errors to standard error, unless a script has it otherwise."""
    if isinstance(event, FindingRaised):
        severity, line = event.finding.severity, f"{event.finding.message} ({event.finding.suggestion})"
    elif isinstance(event, Notice):
        severity, line = event.severity, event.message
    else:
        return
    if severity != "info":
        level = logging.ERROR if severity == "error" else logging.WARNING
        logging.getLogger("moetui").log(level, "%s", drawable(line))
