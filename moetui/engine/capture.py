"""Attaches hooks to a model's routers and experts, and hands each forward pass to the recorder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from moetui.engine import compiled
from moetui.engine.adapters import Gate, RoutingFunction, SiteHandle
from moetui.engine.adapters.base import Current
from moetui.engine.assemble import Assembler
from moetui.engine.compiled import breaking, refuse_compiled
from moetui.engine.endings import Endings
from moetui.engine.extras import Extras
from moetui.engine.gather import Gatherer
from moetui.engine.modules import describe
from moetui.engine.options import CaptureOptions
from moetui.engine.predict import Predictor
from moetui.engine.raw import RawStep
from moetui.engine.recorder import Recorder
from moetui.engine.sites import find_sites
from moetui.engine.streams import Stream, find_streams, next_tokens, note_output
from moetui.engine.study import Study
from moetui.engine.texts import TokenTexts
from moetui.routing import ModelError, ModelInfo, Site, Step
from moetui.routing.events import Event, Finding, FindingRaised, ModelChanged

_OWN_FILES = (__file__, compiled.__file__)


class Capture:
    """The routing of every forward pass of a model, as it is executed.

    A context manager: within it every forward pass, ``generate`` included, yields a ``Step`` a stack of tokens. Steps
    are built and handed on in the recorder's thread, in order. Hooks never raise into the model: where one breaks, the
    capture ends with a finding and the model goes on.

    Args:
        model: any transformers model; it is not changed but for hooks, and those leave with ``detach``.
        options: what to keep; may be replaced while detached (the sample rate at any time).
        on_step: called with each step, in the recorder's thread; in the generating thread while ``after_step`` is set.
        on_event: called with ``ModelChanged`` (more became known of the model: before the steps it applies to) and
            ``FindingRaised``, mostly in the recorder's thread; must be quick and thread-safe.
        tokenizer: for the text of tokens; None shows ids.
        name: what the user called the model.
        epoch: ``perf_counter_ns`` that ``Step.started`` counts from; now by default.

    Raises:
        ModelError: no router was found in the model.
        UnsupportedError: the model is compiled, so that hooks would be skipped (by ``attach`` too).

    Attributes:
        handles: the sites with their modules and adapters.
        extras: expert activations and attention, where the options ask for them.
        branch: number of the branch that the next passes belong to; set it between passes.
        before_step: called in the generating thread before each pass with the arguments of its forward, not part of its
            duration; it may block. It tells whether the pass is to be recorded.
        after_step: called in the generating thread after each pass that is recorded, not part of its duration.
        gate: called in the generating thread at each site before the experts get their routing; it may block.
        hook_ns: nanoseconds spent in hooks so far, those of routing functions and the gate's waiting left out.
        put_ns: nanoseconds spent on handing passes to the recorder so far, waiting for it included; or on recording
            them, while ``after_step`` is set.
    """

    def __init__(
        self,
        model: nn.Module,
        options: CaptureOptions | None = None,
        *,
        on_step: Callable[[Step], None],
        on_event: Callable[[Event], None] | None = None,
        tokenizer: Any = None,
        name: str = "",
        epoch: int | None = None,
    ) -> None:
        refuse_compiled(model)
        self.model = model
        self.options = options or CaptureOptions()
        self.handles = find_sites(model)
        if not self.handles:
            raise ModelError(f"found no router in {type(model).__name__}", "moetui debugs Mixture-of-Experts models")
        self.current = Current()
        self.functions: list[RoutingFunction | None] = [None] * len(self.handles)
        self.gate: Gate | None = None
        self.wants_logits = self.options.logits
        self.branch = 0
        self.before_step: Callable[[Mapping[str, Any]], bool] | None = None
        self.after_step: Callable[[], None] | None = None
        self._info = describe(model, self.handles, name=name)
        self._streams = find_streams(model, self.handles)
        self._on_step, self._on_event = on_step, on_event
        self._study = Study(self.handles, self._info, self.current, self._emit)
        self.extras = Extras(self.handles, self.current, self._find)
        self._vocabulary = next_tokens(model)
        self._texts = TokenTexts(tokenizer)
        self._epoch = perf_counter_ns() if epoch is None else epoch
        self._site_hooks: dict[int, list[RemovableHandle]] = {}
        self._stream_hooks: list[RemovableHandle] = []
        self._extra_hooks: list[RemovableHandle] = []
        self._compiling = False
        self.hook_ns = self.put_ns = 0
        self._steps = 0
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
        return bool(self._stream_hooks)

    @property
    def steps(self) -> int:
        """Forward passes begun so far, kept or not."""
        return self._steps

    @property
    def recorder_ns(self) -> int:
        """Nanoseconds of processor time that the recorder's thread has spent so far."""
        return self._recorder.work_ns if self._recorder is not None else 0

    def attach(self) -> None:
        """Put the hooks on and start the recorder's thread; no effect when attached."""
        if self.attached:
            return
        refuse_compiled(self.model)
        if self._recorder is None:
            self._recorder = self._new_recorder()
        watched = {handle.site.index for handle in self.handles if self._keeps(handle)}
        self._study.watch(watched, logits=self.wants_logits)
        try:
            for stream in self._streams:
                self._stream_hooks += [
                    breaking(self._on_enter(stream), self._break_graphs),
                    breaking(self._on_leave(stream)),
                ]
            self._hook_sites()
            self._study.attach()
            self._hook_extras()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take every hook off; what was captured so far still reaches ``on_step``. No effect when detached."""
        for hooks in [*self._site_hooks.values(), self._stream_hooks, self._extra_hooks]:
            for hook in hooks:
                hook.remove()
        self._site_hooks, self._stream_hooks, self._extra_hooks = {}, [], []
        self._compiling = False
        self._study.detach()
        self.current.frame = None

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every step captured so far was handed on; False if ``timeout`` seconds were not enough."""
        return self._recorder is None or self._recorder.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Detach, hand on what was captured, and end the recorder's thread; False if it did not end in time."""
        self.detach()
        recorder, self._recorder = self._recorder, None
        return recorder is None or recorder.close(timeout)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Within it this thread's passes are neither recorded nor counted nor held up; routing functions still apply.

        For passes of an analysis; also between two sites of a pass that is under way, which goes on afterwards.
        """
        frame, self.current.frame = self.current.frame, None
        held = self.before_step, self.gate, self._muted
        self.before_step, self.gate, self._muted = None, None, True
        try:
            yield
        finally:
            self.before_step, self.gate, self._muted = held
            self.current.frame = frame

    def set_functions(self, functions: Mapping[int, RoutingFunction]) -> None:
        """Replace the functions that change the routing, by site number; they hold from the next site passed on."""
        for number in range(len(self.functions)):
            self.functions[number] = functions.get(number)
        if self.attached:
            self._hook_sites()

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
            Gatherer(self.handles, options.logits),
            Predictor(candidates) if candidates else None,
            Assembler(
                self.sites,
                options,
                self._texts,
                self._epoch,
                self._find,
                lambda: self.sites,
                Endings.of(self.model),
            ),
            self._study,
            self.extras,
            self._on_step,
            self._lost,
            queue_size=options.queue,
        )

    def _find(self, finding: Finding) -> None:
        self._emit(FindingRaised(finding))

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

    def _hook_extras(self) -> None:
        hooks: list[RemovableHandle] = []
        if self.options.activations:
            hooks += self.extras.watch_activations(self.fail)
        if self.options.attention:
            hooks += self.extras.watch_attention(self.model, self.fail)
        self._extra_hooks = hooks

    def _break_graphs(self) -> None:
        """The model is being compiled and its outermost forward has just begun: what comes behind gets breaking hooks.

        Hooks are not made so from the start, because looking whether there is a compiler costs more than what they do.
        """
        if not self._compiling:
            self._compiling = True
            for hooks in [*self._site_hooks.values(), self._extra_hooks, self._study.hooks]:
                for hook in hooks:
                    breaking(hook)

    def _keeps(self, handle: SiteHandle) -> bool:
        return self.options.layers is None or handle.site.layer in self.options.layers

    def _hook_sites(self) -> None:
        """Hooks on the sites that are kept or changed, anew where a function needs the router's call too."""
        for handle in self.handles:
            number = handle.site.index
            if number in self._site_hooks and self.wants_logits:
                continue  # all hooks are there; and while a pass stands at this site, none of them may change
            if self._keeps(handle) or self.functions[number] is not None:
                for hook in self._site_hooks.pop(number, []):
                    hook.remove()
                self._site_hooks[number] = handle.adapter.install(handle, self)
                if self._compiling:
                    self._site_hooks[number] = [breaking(hook) for hook in self._site_hooks[number]]

    def _on_enter(self, stream: Stream) -> RemovableHandle:
        current, stacks = self.current, {stack for stack, _ in stream.stacks}

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            frame = current.frame
            if frame is None or not _is_running(frame):
                recorded = not self._muted
                if self.before_step is not None and recorded:
                    recorded = self.before_step({**dict(zip(stream.parameters, args)), **kwargs} if args else kwargs)
                current.frame = frame = self._begin(stream, recorded)
            if frame.told >= stacks:
                return
            began = perf_counter_ns()
            try:
                stream.read(args, kwargs, frame)
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                self.fail(error)
            frame.cost += perf_counter_ns() - began

        return stream.module.register_forward_pre_hook(enter, with_kwargs=True)

    def _begin(self, stream: Stream, recorded: bool) -> RawStep:
        index = self._steps if recorded else -1
        frame = RawStep(index, self.branch, stream, _calling_frame(), len(self.handles))
        if not recorded:
            frame.keep = False
        else:
            self._steps += 1
            frame.keep = self.options.keeps(index)
        frame.started = perf_counter_ns()
        return frame

    def _on_leave(self, stream: Stream) -> RemovableHandle:
        current = self.current

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
            frame = current.frame
            if frame is None or frame.owner is not stream:
                return
            frame.ended = perf_counter_ns()
            current.frame = frame.caller = None
            recorder = self._recorder
            if output is None or not frame.keep or recorder is None:
                return
            try:
                note_output(frame, output, self._vocabulary)
                # What looks at a step right behind it needs it now.
                (recorder.put if self.after_step is None else recorder.record)(frame)
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                self.fail(error)
            self.hook_ns += frame.cost
            self.put_ns += perf_counter_ns() - frame.ended
            if self.after_step is not None:
                self.after_step()

        # Called even when the forward raises, so that an aborted pass does not stay open.
        return stream.module.register_forward_hook(leave, always_call=True)


def _calling_frame() -> FrameType:
    """The frame that runs the hooked module: the first behind this capture's own and the compiler's."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_code.co_filename in _OWN_FILES or "_dynamo" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    return frame


def _is_running(frame: RawStep) -> bool:
    """Whether the outermost forward of a pass is still on this thread's stack, or was left by an interrupt."""
    running = sys._getframe(1)
    while running is not frame.caller:
        if running.f_back is None:
            return False
        running = running.f_back
    return True
