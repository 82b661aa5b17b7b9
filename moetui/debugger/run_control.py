"""Run control over a model that a user's own code runs, from any other thread than the one that runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from moetui.engine.control import Gate, RunControl
from moetui.routing import UsageError, drawable
from moetui.routing.events import BreakpointHit, RunState
from moetui.routing.given import whole

if TYPE_CHECKING:
    from moetui.engine import Capture


def _running(_: RunControl | None = None) -> RunControl:
    return RunControl(RunState.RUNNING, loaded=True)


class OwnRunControl:
    """Pauses, steps and stops the forward passes that the user's own code makes, ``model.generate`` included.

    The thread that runs the model blocks; it is commanded from another. Until something here is called, passes are not
    held up and cost nothing more. What follows a pass is the user's code to decide: a call of ``generate`` can begin
    once more, but not be taken back to a token or forked, which ``LiveSession.on(debugger)`` can do with prompts of its
    own.

    Args:
        capture: of the model.
        standing: called whenever the model stands, in the thread that runs it.
    """

    def __init__(self, capture: Capture, standing: Callable[[], None] = lambda: None) -> None:
        self._capture, self._standing = capture, standing
        self._changed = threading.Condition()
        self._gate = Gate(self._tell)
        self._gate.apply(_running)
        self._reason = ""
        from moetui.engine.starting_over import StartingOver

        self._over = StartingOver(capture.model)
        self._encodes = any(site.stack == "encoder" for site in capture.info.sites)

    def __repr__(self) -> str:
        return f"<the model stands: {drawable(self.reason)}>" if self.paused else "<the model is not held up>"

    @property
    def paused(self) -> bool:
        """The model stands before a step, or within one before a site."""
        return self._gate.control.state is RunState.PAUSED

    @property
    def reason(self) -> str:
        """Why it stands there, in words; empty while it runs."""
        return self._gate.control.reason if self.paused else ""

    def pause(self) -> None:
        """Stand before the next forward pass.

        Raises:
            UsageError: a session runs the model, and has commands of its own.
        """
        self._arm()
        self._gate.pause()

    def resume(self) -> None:
        """Go on."""
        self._gate.resume()

    def step(self, count: int = 1) -> None:
        """Let ``count`` passes through and stand before the one after; within a pass its rest is the first of them.

        What is asked for while the model is still stepping is done behind that, unless something else stops it first.

        Raises:
            UsageError: as for ``pause``, or a count below 1.
        """
        if whole(count, "the count of steps") < 1:
            raise UsageError(f"{count} steps are none to let through", "a model does not run backwards")
        self._arm()
        self._gate.step(count)

    def step_layer(self) -> None:
        """Go on to the next site and stand there, before its experts run; while it is still stepping, as ``step``.

        Raises:
            UsageError: as for ``pause``.
        """
        self._arm()
        self._capture.gate = self._at_site
        self._gate.step_site()

    def run_to(self, position: int) -> None:
        """Go on until the token at this position of its sequence is next; it counts from 0, with padding on the left.

        Raises:
            UsageError: as for ``pause``, or a negative position.
        """
        if whole(position, "a position") < 0:
            raise UsageError(f"there is no position {position}", "positions count from 0")
        self._arm()
        self._gate.run_to(position)

    def finish(self) -> None:
        """Go on past every breakpoint until something else is commanded; their hits are told and counted.

        Raises:
            UsageError: as for ``pause``.
        """
        self._arm()
        self._gate.finish()

    def stop(self) -> None:
        """End the call of the model before its next pass: it raises ``RunStoppedError`` there, in its own thread.

        Raises:
            UsageError: as for ``pause``.
        """
        self._arm()
        self._over.again = False
        self._gate.stop()

    def restart(self) -> None:
        """Let the call of ``generate`` that is under way begin once more, with the numbers it drew by chance.

        It ends before its next pass and starts over, in its own thread; its caller sees one call. Tokens captured so
        far stay in the timeline.

        Raises:
            UsageError: as for ``pause``; no such call is under way, or it was given a cache.
        """
        if not self._over.under_way:
            raise UsageError("no call of generate is under way", "restart lets one begin once more")
        if self._over.goes_on:
            raise UsageError("the call was given a cache, which holds its tokens by now", "make the call once more")
        self._arm()
        self._over.again = True
        self._gate.stop()

    def attach(self) -> None:
        """Be ready for ``restart``: what ``MoEDebugger.attach`` does."""
        self._over.put_on()

    def detach(self) -> None:
        """Leave the model's ``generate`` alone."""
        self._over.remove()

    def at_breakpoint(self, hit: BreakpointHit) -> None:
        """Stand behind a breakpoint's hit: for ``debugger.breakpoints.on_hit``, or as the action of one."""
        self._arm()
        self._reason = f"{hit.expression}   {hit.values}   (token {hit.token}, hit {hit.hits})"

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the model stands; False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.paused, timeout)

    def release(self) -> None:
        """Let the model go on unwatched: what ``MoEDebugger.close`` does."""
        if self._capture.before_step == self._before_step:
            self._capture.before_step = self._capture.gate = None
        self._reason = ""
        self._gate.apply(_running)

    def _arm(self) -> None:
        # Methods are equal, not identical, each time that they are taken.
        if self._capture.before_step is None:
            self._capture.before_step = self._before_step
        elif self._capture.before_step != self._before_step:
            raise UsageError("a session runs this model", "command it there")

    def _before_step(self, arguments: Mapping[str, Any]) -> bool:
        reason, self._reason = self._reason, ""
        position = 0 if self._gate.control.target is None else _next_position(arguments, encodes=self._encodes)
        try:
            self._gate.before_step(position, reason, lambda _: self._standing())
        except BaseException:
            self._gate.apply(_running)
            raise
        # Not only set where it is asked for: what was queued behind other steps is due here.
        self._capture.gate = self._at_site if self._gate.control.to_site else None
        return True

    def _at_site(self, context: Any) -> None:
        if not self._gate.control.to_site:
            return
        before = self._gate.waited
        self._gate.before_site(context.place, self._standing)
        waited = self._gate.waited - before
        if waited and context.step is not None:
            context.step.stood(int(waited * 1e9))

    def _tell(self, _: RunControl) -> None:
        with self._changed:
            self._changed.notify_all()


def _next_position(arguments: Mapping[str, Any], *, encodes: bool) -> int:
    """Where the next pass begins in its sequence; without a cache, where its last token stands; 0 for an encoder's."""
    from moetui.engine.caches import given_cache, past_length

    names = ("decoder_input_ids", "decoder_inputs_embeds") if encodes else ("input_ids", "inputs_embeds")
    given = next((arguments[name] for name in names if arguments.get(name) is not None), None)
    if given is None:
        return 0
    tokens = int(given.shape[1])
    cache = given_cache(arguments)
    if cache is None:
        return max(0, tokens - 1)
    past = int(past_length(cache))
    mask = arguments.get("decoder_attention_mask" if encodes else "attention_mask")
    if not past and mask is not None and mask.dim() == 2:  # caches of recurrent states alone do not count
        return max(0, int(mask.shape[1]) - tokens)
    return past
