"""Attaches hooks to a model's routers and experts, and hands each forward pass to the recorder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter_ns
from types import TracebackType
from typing import Any
from weakref import WeakSet

from torch import nn

from moetui.engine.adapters import Gate, RoutingFunction, SiteContext, SiteHandle
from moetui.engine.adapters.base import Watch
from moetui.engine.adapters.current import Current
from moetui.engine.around import Handle
from moetui.engine.assemble import Assembler
from moetui.engine.bounds import Bounds
from moetui.engine.compiled import breaking, refuse_compiled
from moetui.engine.endings import Endings
from moetui.engine.extras import Extras
from moetui.engine.gather import Gatherer
from moetui.engine.glance import Glance
from moetui.engine.modules import describe
from moetui.engine.options import LINGER, CaptureOptions
from moetui.engine.predict import Predictor
from moetui.engine.raw import RawStep
from moetui.engine.recorder import Recorder
from moetui.engine.sites import find_sites
from moetui.engine.streams import Stream, find_streams, next_tokens, note_output
from moetui.engine.study import Study
from moetui.engine.texts import TokenTexts
from moetui.engine.transfer import only_host
from moetui.engine.uninterrupted import uninterrupted
from moetui.routing import ModelError, ModelInfo, Site, Step, TimelineView, UsageError
from moetui.routing.events import Event, Finding, FindingRaised, ModelChanged
from moetui.routing.given import shown
from moetui.routing.ranges import with_routers
from moetui.routing.steps import Steps

_TIMED = 32  # of so many passes, one takes the time that its hooks take, on a longer way

_recording: WeakSet[Capture] = WeakSet()  # those that have begun a recorder's thread


class Capture:
    """The routing of every forward pass of a model, as it is executed.

    A context manager: within it every forward pass, ``generate`` included, yields a ``Step`` a stack of tokens. Steps
    are built and handed on in the recorder's thread, in order. Hooks never raise into the model: where one breaks, the
    capture ends with a finding and the model goes on.

    Args:
        model: any transformers model; it is not changed but for hooks, and those leave with ``detach``.
        options: what to keep; may be replaced while detached (the sample rate at any time).
        on_steps: called with steps as they come, in the recorder's thread; in the generating thread where
            ``after_step`` waits for them.
        on_step: the same for each step by itself.
        on_event: called with ``ModelChanged`` (more became known of the model: before the steps it applies to) and
            ``FindingRaised``, mostly in the recorder's thread; must be quick and thread-safe.
        tokenizer: for the text of tokens; None shows ids.
        name: what the user called the model.
        epoch: ``perf_counter_ns`` that ``Step.started`` counts from; now by default.
        linger: seconds that a step may come later, so that steps can be made together.
        memory: gives ``Step.memory``; asked in the thread that makes the steps, once for those that it makes together.

    Raises:
        ModelError: no router was found in the model.
        UnsupportedError: the model is compiled, so that hooks would be skipped (by ``attach`` too).
        UsageError: what was given is no model or no tokenizer, or the options keep a layer that has no router.

    Attributes:
        handles: the sites with their modules and adapters.
        extras: expert activations and attention, where the options ask for them.
        branch: number of the branch that the next passes belong to; set it between passes.
        before_step: called in the generating thread before each pass with the arguments of its forward, not part of its
            duration; it may block. It tells whether the pass is to be recorded.
        after_step: called in the generating thread after each pass that is recorded, not part of its duration.
        look_first: asked before it of each pass: where it says False, that pass is recorded as if nobody waited for it.
        gate: called in the generating thread at each site before the experts get their routing; it may block.
        repeated: names of sites that a pass was seen to go through several times, so that a step has their last routing
            only.
        hook_ns: nanoseconds spent in hooks so far, those of routing functions and the gate's waiting left out; taken in
            one pass of several.
        put_ns: nanoseconds spent on handing passes to the recorder so far, waiting for it included; or on
            recording them, where ``after_step`` waits for them.
    """

    def __init__(
        self,
        model: nn.Module,
        options: CaptureOptions | None = None,
        *,
        on_step: Callable[[Step], None] | None = None,
        on_steps: Callable[[Steps], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        tokenizer: Any = None,
        name: str = "",
        epoch: int | None = None,
        linger: float = LINGER,
        memory: Callable[[], float] = lambda: math.nan,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"{shown(model)} is no model", "load one first: from_pretrained gives one")
        refuse_compiled(model)
        self.model = model
        self.options = options or CaptureOptions()
        self.handles = find_sites(model)
        if not self.handles:
            raise ModelError(f"found no router in {type(model).__name__}", "moetui debugs Mixture-of-Experts models")
        self.check_layers(self.options)
        self.current = Current(self._crowded)
        self.functions: list[RoutingFunction | None] = [None] * len(self.handles)
        self._gate: Gate | None = None
        self.wants_logits = self.options.logits
        self.branch = 0
        self.repeated: set[str] = set()
        self.before_step: Callable[[Mapping[str, Any]], bool] | None = None
        self.after_step: Callable[[], None] | None = None
        self.look_first: Callable[[Glance], bool] | None = None
        self._info = describe(model, self.handles, name=name)
        self._streams = find_streams(model, self.handles)
        self._linger = linger
        self._on_step, self._on_steps, self._on_event, self._memory = on_step, on_steps, on_event, memory
        self._study = Study(self.handles, self._info, self.current, self._emit)
        self.extras = Extras(self.handles, self.current, self.report)
        self._vocabulary = next_tokens(model)
        self._texts = TokenTexts(tokenizer)
        self._epoch = perf_counter_ns() if epoch is None else epoch
        self._on_sites: dict[int, Watch] = {}
        self._on_streams: list[Handle] = []
        self._on_others: list[Handle] = []
        self._compiling = False
        self.hook_ns = self.put_ns = 0
        self._steps = self._kept = 0
        self._muted = False
        self._recorder: Recorder | None = None

    @property
    def info(self) -> ModelInfo:
        """The model, as far as it is known by now."""
        return self._info

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, as far as they are known by now."""
        return self._info.sites

    @property
    def attached(self) -> bool:
        """Whether hooks are on the model."""
        return bool(self._on_streams)

    @property
    def steps(self) -> int:
        """Forward passes begun so far, kept or not."""
        return self._steps

    @property
    def linger(self) -> float:
        """See above; may be changed at any time."""
        return self._linger

    @linger.setter
    def linger(self, seconds: float) -> None:
        self._linger = seconds
        if self._recorder is not None:
            self._recorder.linger = seconds

    @property
    def gate(self) -> Gate | None:
        """See above; may be changed at any time."""
        return self._gate

    @gate.setter
    def gate(self, gate: Gate | None) -> None:
        if gate == self._gate:  # set before each pass by those who follow a run
            return
        self._gate = gate
        for watch in tuple(self._on_sites.values()):
            watch.follow()

    @property
    def recorder_ns(self) -> int:
        """Nanoseconds of processor time that the recorder's thread has spent so far."""
        return self._recorder.work_ns if self._recorder is not None else 0

    def check_layers(self, options: CaptureOptions) -> None:
        """Refuse options for other layers than the model's.

        Raises:
            UsageError: they keep a layer that has no router.
        """
        with_routers(options.layers or (), {handle.site.layer for handle in self.handles})

    def attach(self) -> None:
        """Put the hooks on and start the recorder's thread; no effect when attached."""
        if self.attached:
            return
        refuse_compiled(self.model)
        if self._recorder is None:
            self._recorder = self._new_recorder()
            _recording.add(self)
        watched = {handle.site.index for handle in self.handles if self._keeps(handle)}
        self._study.watch(watched, logits=self.wants_logits)
        try:
            for stream in self._streams:
                self._on_streams.append(Bounds(stream, self, self._is_compiled))
            self._watch_sites()
            self._study.attach()
            self._watch_others()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take every hook off; what was captured so far still reaches ``on_step``. No effect when detached."""
        for handle in (*self._on_sites.values(), *self._on_streams, *self._on_others):
            handle.remove()
        self._on_sites, self._on_streams, self._on_others = {}, [], []
        self._compiling = False
        self._study.detach()
        if self.current.frame is not None:
            self.current.leave(self.current.frame)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every step captured so far was handed on; False if ``timeout`` seconds were not enough."""
        return self._recorder is None or self._recorder.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Detach, hand on what was captured, and end the recorder's thread; False if it did not end in time."""
        self.detach()
        recorder, self._recorder = self._recorder, None
        return recorder is None or recorder.close(timeout)

    def forked(self) -> None:
        """Record nothing in a forked child: the recorder's thread is not there, and the model would wait for it."""
        self._recorder = None
        self.before_step = self.after_step = self.gate = None  # nor whoever lets a run go on

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Within it this thread's passes are neither recorded nor counted nor held up; routing functions still apply.

        For passes of an analysis; also between two sites of a pass that is under way, which goes on afterwards.
        """
        held = self.before_step, self.gate, self._muted
        self.before_step, self.gate, self._muted = None, None, True
        try:
            with self.current.aside():
                yield
        finally:
            self.before_step, self.gate, self._muted = held

    def so_far(self, context: SiteContext) -> TimelineView | None:
        """The tokens that stand before a site, with their routing so far; for the gate. See ``Glance.so_far``."""
        if self._recorder is None or not isinstance(context.step, RawStep):
            return None
        return self._recorder.glance(context.step).so_far(context)

    def set_functions(self, functions: Mapping[int, RoutingFunction]) -> None:
        """Replace the functions that change the routing, by site number; they hold from the next site passed on."""
        for number in range(len(self.functions)):
            self.functions[number] = functions.get(number)
        if self.attached:
            self._watch_sites()

    def report(self, finding: Finding) -> None:
        """Hand a finding to ``on_event``."""
        if finding.kind == "site_repeated" and finding.site is not None:
            self.repeated.add(finding.site)
        self._emit(FindingRaised(finding))

    def fail(self, error: Exception) -> None:
        """See ``Tap``: a bug in a hook ends the capture, never the model's forward."""
        self.detach()
        message = f"capture stopped at an internal error: {type(error).__name__}: {error}"
        hint = "the model goes on unwatched and unchanged; please report this with the model's name"
        self._emit(FindingRaised(Finding("capture_failed", "error", message, hint)))

    def __enter__(self) -> Capture:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_recorder(self) -> Recorder:
        options = self.options
        candidates = options.candidates if self._vocabulary else 0
        return Recorder(
            Gatherer(self.handles, options.logits, options.layers),
            Predictor(candidates) if candidates else None,
            Assembler(
                self.sites,
                options,
                self._texts,
                self._epoch,
                self.report,
                lambda: self.sites,
                Endings.of(self.model),
                self._memory,
            ),
            self._study,
            self.extras,
            self._take,
            self._lost,
            queue_size=options.queue,
            hosted=only_host(self.model),
            linger=self._linger,
        )

    def _take(self, steps: Steps) -> None:
        if self._on_steps is not None:
            self._on_steps(steps)
        if self._on_step is not None:
            for step in steps:
                self._on_step(step)

    def _emit(self, event: Event) -> None:
        if isinstance(event, ModelChanged):
            self._info = event.info
            self.handles = tuple(replace(handle, site=site) for handle, site in zip(self.handles, event.info.sites))
        if self._on_event is not None:
            self._on_event(event)

    def _lost(self, step: int, error: Exception) -> None:
        message = f"step {step} was not recorded: {type(error).__name__}: {error}"
        hint = "the run goes on; please report this with the model's name"
        self._emit(FindingRaised(Finding("step_lost", "error", message, hint)))

    def _watch_others(self) -> None:
        if self.options.activations:
            self._on_others += self.extras.watch_activations(self.fail)
        if self.options.attention:
            self._on_others += self.extras.watch_attention(self.model, self.fail)

    def _crowded(self) -> None:
        for watch in tuple(self._on_sites.values()):
            watch.follow()

    def _is_compiled(self) -> None:
        """The model is being compiled and its outermost forward has just begun: what comes behind breaks the graph.

        It does not from the start, because looking whether there is a compiler costs more than all else.
        """
        if not self._compiling:
            self._compiling = True
            for watch in self._on_sites.values():
                watch.break_graphs(breaking)
            for hook in [*self._on_others, *self._study.hooks]:
                breaking(hook)

    def _keeps(self, handle: SiteHandle) -> bool:
        return self.options.layers is None or handle.site.layer in self.options.layers

    def _watch_sites(self) -> None:
        """Watch the sites that are kept or changed."""
        for handle in self.handles:
            number = handle.site.index
            watch = self._on_sites.get(number)
            if watch is not None:
                watch.follow()
            elif self._keeps(handle) or self.functions[number] is not None:
                watch = self._on_sites[number] = handle.adapter.install(handle, self)
                if self._compiling:
                    watch.break_graphs(breaking)

    def begin(self, stream: Stream, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RawStep:
        """See ``Passes``."""
        recorded, current = not self._muted, self.current
        if recorded and self.before_step is not None:
            recorded = self.before_step({**dict(zip(stream.parameters, args)), **kwargs} if args else kwargs)
        index = -1
        if recorded:
            index = self._steps
            self._steps += 1
        frame = RawStep(index, self.branch, stream, len(self.handles))
        options = self.options
        if recorded and (options.sample_rate >= 1.0 or options.keeps(index)):
            self._kept += 1
            frame.timed = self._kept % _TIMED == 2  # a short run has its second one
        else:
            frame.keep = False
        if self._muted:
            current.frame = frame
        else:
            current.enter(frame)
        frame.started = perf_counter_ns()
        try:
            stream.note(args, kwargs, frame)
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            self.fail(error)
        if frame.timed:
            frame.cost = perf_counter_ns() - frame.started
        return frame

    def enter(self, stream: Stream, args: tuple[Any, ...], kwargs: dict[str, Any], frame: RawStep) -> None:
        """See ``Passes``."""
        began = perf_counter_ns()
        try:
            stream.read(args, kwargs, frame)
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            self.fail(error)
        if frame.timed:
            frame.cost += perf_counter_ns() - began

    def end(self, frame: RawStep, output: Any) -> None:
        """See ``Passes``."""
        frame.ended = perf_counter_ns()
        self.current.leave(frame)
        if not frame.keep or output is None:
            return
        recorder = self._recorder
        if recorder is None:
            return
        after = self.after_step
        try:
            note_output(frame, output, self._vocabulary)
            if after is None:
                recorder.put(frame)
            else:
                with uninterrupted():
                    # What looks at a step right behind it needs it now.
                    if self.look_first is None or self.look_first(recorder.glance(frame)):
                        recorder.record(frame)
                    else:
                        recorder.put(frame)
                        after = None
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            self.fail(error)
        self.hook_ns += _TIMED * frame.cost
        self.put_ns += perf_counter_ns() - frame.ended
        if after is not None:
            after()


def _in_a_child() -> None:
    for capture in list(_recording):
        capture.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
