"""Around the modules that tokens enter a model by: where a forward pass begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from moetui.engine.adapters.current import Current
from moetui.engine.compiled import BreakingAround
from moetui.engine.raw import RawStep
from moetui.engine.streams import Stream


class Passes(Protocol):
    """Who follows a model's passes. All of it is called in the hot path."""

    current: Current

    def begin(self, stream: Stream, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RawStep:
        """A call from outside enters the model: the frame of the pass that it is. May block, or raise to stop it."""

    def enter(self, stream: Stream, args: tuple[Any, ...], kwargs: dict[str, Any], frame: RawStep) -> None:
        """Within that pass a stack is entered that the outer call may not have told the tokens of. Must not raise."""

    def end(self, frame: RawStep, output: Any) -> None:
        """The pass has left the model with this output. May block, or raise to stop what called it."""


class Bounds(BreakingAround):
    """Around one such module.

    As few functions as can be lie on its way: what each touches was pushed out of the processor's caches by the step
    before, so that calling one costs more than what it does.

    Args:
        stream: the module.
        passes: who follows.
        on_compile: see ``BreakingAround``.
    """

    __slots__ = ("_only", "_own", "_passes", "_stacks", "_stream")

    def __init__(self, stream: Stream, passes: Passes, on_compile: Callable[[], None]) -> None:
        self._stream, self._passes, self._own = stream, passes, passes.current.own
        self._stacks = tuple(names.stack for names in stream.stacks)
        self._only = self._stacks[0] if len(self._stacks) == 1 else None
        super().__init__(stream.module, before=self._enter, after=self._leave, broke=self._broke, on_compile=on_compile)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        if self.removed or self._compiling():
            return BreakingAround.__call__(self, *args, **kwargs)
        own, stream, inner = self._own, self._stream, self.replaced
        frame = own.frame
        if frame is not None and frame.owner is not stream:
            # Of those within, most have nothing to tell.
            unread = frame.unread
            if (unread is None or unread[0] != self._only) and not frame.knows(self._stacks):
                self._passes.enter(stream, args, kwargs, frame)
            return type(self.module).forward(self.module, *args, **kwargs) if inner is None else inner(*args, **kwargs)
        passes = self._passes
        try:
            frame = passes.begin(stream, args, kwargs)
            output = (
                type(self.module).forward(self.module, *args, **kwargs) if inner is None else inner(*args, **kwargs)
            )
            if own.frame is frame and not self.removed:
                passes.end(frame, output)
        except BaseException:
            self._broke()
            raise
        return output

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream, frame = self._stream, self._own.frame
        if frame is None or frame.owner is stream:  # the same: a compiled pass broke off
            self._passes.begin(stream, args, kwargs)
        elif not frame.knows(self._stacks):
            self._passes.enter(stream, args, kwargs, frame)

    def _leave(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = self._own.frame
        if frame is not None and frame.owner is self._stream:
            self._passes.end(frame, output)

    def _broke(self) -> None:
        frame = self._own.frame
        if frame is not None and frame.owner is self._stream:
            self._passes.current.leave(frame)
