"""What stands around a site's router, and the short way of those who stand around a site's modules."""

from __future__ import annotations

from typing import Any

from torch import nn

from moetui.engine.adapters.base import RouterCall, RoutingFunction, SiteHandle, Tap, Watch
from moetui.engine.adapters.current import Current
from moetui.engine.around import After, Around, Before, Handle
from moetui.engine.raw import SEEN


class RouterWatch(Watch):
    """Watches the router from when its logits are wanted, or a function that may ask for them.

    Who makes one calls ``follow`` when all of it stands.

    Attributes:
        handle, tap: of the site.
        call: the router's latest call.
        beside: what stands around the experts' forward, if anything does.
    """

    def __init__(self, handle: SiteHandle, tap: Tap) -> None:
        super().__init__()
        self.handle, self.tap, self.call = handle, tap, RouterCall()
        self.beside: Around | None = None
        self._watches_router = False

    def follow(self) -> None:
        """See ``Watch``."""
        function = self.tap.functions[self.handle.site.index]
        if (self.tap.wants_logits or function is not None) and not self._watches_router:
            self._watches_router = True
            self.add(around_router(self))
        if function is None:
            self.call.forget()
        self.glance()

    def glance(self) -> None:
        """Let those that have a short way take it, or not, by what is on the site now."""
        function = self.tap.functions[self.handle.site.index]
        free = self.tap.gate is None and not self.tap.current.crowded
        for handle in self._handles:
            if isinstance(handle, Glancing):
                handle.glance(free and (function is None or self.may_direct(function)), function)

    def may_direct(self, function: RoutingFunction) -> bool:
        """Whether a short way may ask a function for its direct one."""
        del function
        return False

    def meet(self) -> None:
        """The router has returned, and its routing may be changed on its way to the experts."""


class Glancing(Around):
    """An ``Around`` of a site's module with a short way, for what only looks on, or changes it by the logits alone.

    What it touches on its way was pushed out of the processor's caches by the weights of the layer before, so that what
    counts is how many objects these are: a function, its cells and a list less is half of the time.

    Args:
        number: of the site.
        current: where it finds the places to write to; a call takes the long way where they do not lie open.
        before, after: what the long way does; the short way does it in place.

    Attributes:
        short: whether that way is taken at all.
        at: where the site's own places begin.
        function: the site's, on the short way; None where nothing changes the routing.
    """

    __slots__ = ("at", "current", "function", "short")

    def __init__(
        self,
        module: nn.Module,
        number: int,
        current: Current,
        *,
        before: Before | None = None,
        after: After | None = None,
    ) -> None:
        self.at, self.current, self.short = SEEN * number, current, False
        self.function: Any = None
        super().__init__(module, before=before, after=after)

    def glance(self, short: bool, function: RoutingFunction | None) -> None:
        """Calls take the short way from now on, or not."""
        if not short:
            self.short = False
        self.function = function
        self.short = short and not self.removed
        if self.removed or self.current.crowded:  # meanwhile, by another thread
            self.short = False

    def again(self) -> bool:
        """Make room where the pass that is going on calls the site again; False where it is none of this thread's."""
        frame = self.current.frame
        if frame is not None:
            frame.repeat(self.at // SEEN)
        return frame is not None

    def remove(self) -> None:
        """See ``Around``."""
        super().remove()
        self.short = False


class _AroundRouter(Glancing):
    """Keeps what the router returned; and its whole call, where a routing function may need that."""

    __slots__ = ("call", "experts", "watch")

    def __init__(self, watch: RouterWatch, *, after: After) -> None:
        handle = watch.handle
        self.watch, self.call, self.experts = watch, watch.call, handle.experts
        super().__init__(handle.router, handle.site.index, watch.tap.current, after=after)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        seen = self.current.seen
        if seen is None or not self.short:
            return Around.__call__(self, *args, **kwargs)
        inner = self.replaced
        output = type(self.module).forward(self.module, *args, **kwargs) if inner is None else inner(*args, **kwargs)
        at = self.at
        if seen[at] is None or self.again():
            seen[at] = output
        if self.function is not None:
            call, experts = self.call, self.experts
            # Also where the direct way will do: until the experts are called, anything may come that forbids it.
            call.args, call.kwargs, call.output = args, kwargs, output
            outermost = experts.__dict__.get("forward")
            if experts._forward_pre_hooks or experts._forward_hooks or outermost is not self.watch.beside:
                self.watch.meet()
        return output


def around_router(watch: RouterWatch) -> Handle:
    """Keeps the router's output; and, while a routing function or the gate may want it, its whole call."""
    handle, tap, call, meet = watch.handle, watch.tap, watch.call, watch.meet
    number, current, functions = handle.site.index, tap.current, tap.functions
    at = SEEN * number

    def after(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        frame = current.frame
        if frame is not None:
            seen = frame.seen
            if seen[at] is not None:
                frame.repeat(number)
            seen[at] = output
        if functions[number] is not None or tap.gate is not None:
            call.args, call.kwargs, call.output = args, kwargs, output
            meet()

    def behind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if module is handle.router:  # and no copy's
            after(args, kwargs, output)

    if handle.router._forward_hooks:  # somebody else's, which may change the output: what they leave is what counts
        return handle.router.register_forward_hook(behind, with_kwargs=True)
    return _AroundRouter(watch, after=after)
