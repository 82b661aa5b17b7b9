"""Attaches hooks to a model's routers and experts, and hands each forward pass to the recorder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter_ns
from types import TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters.base import Current, Gate, RoutingFunction, SiteHandle
from moetui.engine.modules import describe
from moetui.engine.options import CaptureOptions
from moetui.engine.raw import RawStep
from moetui.engine.recorder import Recorder
from moetui.engine.sites import find_sites
from moetui.engine.streams import Stream, find_streams, reorders_rows
from moetui.engine.texts import TokenTexts
from moetui.routing import ModelError, ModelInfo, Site, Step
from moetui.routing.events import Event, Finding, FindingRaised, ModelChanged


class Capture:
    """The routing of every forward pass of a model, as it is executed.

    A context manager: within it every forward pass, ``generate`` included, yields a ``Step`` a stack of tokens. Steps
    are built and handed on in the recorder's thread, in order.

    Args:
        model: any transformers model; it is not changed but for hooks, and those leave with ``detach``.
        options: what to keep.
        on_step: called with each step, in the recorder's thread.
        on_event: called with ``ModelChanged`` (more became known of the model) and ``FindingRaised``, in the
            recorder's thread or the generating one; must be quick and thread-safe.
        tokenizer: for the text of tokens; None shows ids.
        name: what the user called the model.

    Raises:
        ModelError: no router was found in the model.
        UnsupportedError: the model is compiled, so that hooks would be skipped.

    Attributes:
        branch: number of the branch that the next passes belong to.
        before_step: called in the generating thread before each pass; it may block (a pause).
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
    ) -> None:
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
        self.before_step: Callable[[], None] | None = None
        self._texts = TokenTexts(tokenizer)
        self._info = describe(model, self.handles, name=name)
        self._streams = find_streams(model, self.handles)
        self._on_step, self._on_event = on_step, on_event
        self._hooks: list[RemovableHandle] = []
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
        return bool(self._hooks)

    def attach(self) -> None:
        """Put the hooks on and start the recorder's thread; no effect when attached."""
        if self._hooks:
            return
        if self._recorder is None:
            self._recorder = Recorder(self.handles, self._info, self.options, self._texts, self._on_step, self._emit)
        try:
            for handle in self.handles:
                if self.options.layers is None or handle.site.layer in self.options.layers:
                    self._hooks += handle.adapter.install(handle, self)
            for stream in self._streams:
                self._hooks.append(self._on_enter(stream))
                self._hooks.append(self._on_leave(stream))
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take every hook off; what was captured so far still reaches ``on_step``. No effect when detached."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()
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

    def fail(self, error: Exception) -> None:
        """See ``Tap``: a bug in a hook ends the capture, never the model's forward."""
        self.detach()
        self._emit(
            FindingRaised(
                Finding(
                    "capture_failed",
                    "error",
                    f"capture stopped at an internal error: {type(error).__name__}: {error}",
                    "the model goes on without moetui; please report this with the model's name",
                )
            )
        )

    def __enter__(self) -> Capture:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _emit(self, event: Event) -> None:
        if isinstance(event, ModelChanged):
            self._info = event.info
            self.handles = tuple(replace(handle, site=site) for handle, site in zip(self.handles, event.info.sites))
        if self._on_event is not None:
            self._on_event(event)

    def _on_enter(self, stream: Stream) -> RemovableHandle:
        current = self.current

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            frame = current.frame
            if frame is None or not _is_running(frame):
                if self.before_step is not None:
                    self.before_step()
                current.frame = frame = self._begin(stream)
            try:
                for inputs in stream.read(args, kwargs):
                    known = frame.inputs.get(inputs.stack)
                    if known is None or (known.ids is None and inputs.ids is not None) or known.shape is None:
                        frame.inputs[inputs.stack] = inputs
                        if inputs.shape is not None and inputs.shape[0] > 1:
                            inputs.reordered = reorders_rows()
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                self.fail(error)

        return stream.module.register_forward_pre_hook(enter, with_kwargs=True)

    def _begin(self, stream: Stream) -> RawStep:
        if self._muted:
            return RawStep(-1, self.branch, stream, sys._getframe(2), False, perf_counter_ns())
        index = self._steps
        self._steps += 1
        keep = self.options.keeps(index)
        return RawStep(index, self.branch, stream, sys._getframe(2), keep, perf_counter_ns())

    def _on_leave(self, stream: Stream) -> RemovableHandle:
        current = self.current

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            frame = current.frame
            if frame is None or frame.owner is not stream:
                return
            current.frame = None
            frame.ended = perf_counter_ns()
            frame.caller = None
            if output is None or not frame.keep or self._recorder is None:
                return
            try:
                frame.output = output
                self._recorder.put(frame)
            except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
                self.fail(error)

        # Called even when the forward raises, so that an aborted pass is no open one.
        return stream.module.register_forward_hook(leave, always_call=True)


def _is_running(frame: RawStep) -> bool:
    """Whether the outermost forward of a frame is still on this thread's stack, or was left by an interrupt."""
    caller, running = frame.caller, sys._getframe(1)
    while running is not None:
        if running is caller:
            return True
        running = running.f_back  # type: ignore[assignment]
    return False
