"""Run control: a small pure state machine, and the gate at which the generating thread waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final

from moetui.routing.events import RunState

PAUSING: Final = "pausing"
ON_REQUEST: Final = "on request"
STEPPED: Final = "stepped"
STOPPING: Final = "stopping"
_A_SITE: Final = 0
_ACTIVE = frozenset({RunState.RUNNING, RunState.PAUSED})
_IDLE = frozenset({RunState.READY, RunState.FINISHED, RunState.FAILED})


class RunStoppedError(BaseException):
    """Unwinds ``generate`` before a forward pass has begun; the model never sees it.

    It is no ``Exception``, so that nothing between the gate and the run's end takes it for a failure.
    """


@dataclass(frozen=True, slots=True)
class RunControl:
    """Where a run stands and what may happen next. Every method returns the control after it; nothing changes in place.

    Attributes:
        reason: why it stands there, in words.
        hint: what to do about a failure.
        steps_left: steps that may pass before the run pauses; None for no limit.
        to_site: pause before the next site.
        queued: what was asked for while the run was still stepping, in order: a count of steps, or 0 for a site.
        target: sequence position before which the run pauses; None for none.
        heedless: pass every breakpoint until the run's end.
        within_step: a step has begun and not ended.
        stopping: the run shall end at the next opportunity.
        turning: the run leaves where it stands, to go on elsewhere; what a person does meanwhile holds there.
        quitting: the session ends; nothing blocks any more.
        loaded: there is a model to run.
    """

    state: RunState = RunState.LOADING
    reason: str = ""
    hint: str = ""
    steps_left: int | None = None
    to_site: bool = False
    queued: tuple[int, ...] = ()
    target: int | None = None
    heedless: bool = False
    within_step: bool = False
    stopping: bool = False
    turning: bool = False
    quitting: bool = False
    loaded: bool = False

    @property
    def active(self) -> bool:
        """A run is going on, paused or not."""
        return self.state in _ACTIVE

    @property
    def idle(self) -> bool:
        """A run may begin."""
        return self.loaded and self.state in _IDLE

    @property
    def blocks(self) -> bool:
        """The generating thread has to wait."""
        return self.state is RunState.PAUSED and not self.unwinds

    @property
    def unwinds(self) -> bool:
        """A step that has not begun shall not begin."""
        return self.stopping or self.turning or self.quitting

    @property
    def flows(self) -> bool:
        """A step that follows another begins with nothing to be looked at or noted."""
        free = self.steps_left is None and self.target is None and not self.unwinds
        return free and self.within_step and self.state is RunState.RUNNING

    # What a person does.

    def pause(self) -> RunControl:
        """Pause before the next step; the one under way is finished."""
        if self.state is not RunState.RUNNING or self.stopping:
            return self
        # A run that turns pauses where it goes on.
        return replace(self, steps_left=0, reason=PAUSING, heedless=False, queued=())

    def resume(self) -> RunControl:
        """Go on until something stops the run."""
        return self._released() if self._listens else self

    def finish(self) -> RunControl:
        """Go on to the end, past every breakpoint."""
        return replace(self._released(), heedless=True) if self._listens else self

    def step(self, count: int = 1) -> RunControl:
        """Let ``count`` steps pass; the rest of a step that is under way at a pause is the first of them.

        While the run is still stepping, by steps or by sites, this is done behind what was asked for before, as if it
        had been asked for at the pause there. Whatever else stops the run or tells it where to go ends what is queued:
        nobody steps on from a breakpoint by what was asked for before it was seen.
        """
        if not self._listens or count < 1:
            return self
        if self._stepping:
            return replace(self, queued=(*self.queued, count))
        begun = self.state is RunState.PAUSED and self.within_step
        return replace(self._released(), steps_left=count - 1 if begun else count)

    def step_site(self) -> RunControl:
        """Go on to the next site and pause before it; while the run is still stepping, as ``step`` does."""
        if not self._listens:
            return self
        if self._stepping:
            return replace(self, queued=(*self.queued, _A_SITE))
        return replace(self._released(), to_site=True)

    def run_to(self, position: int) -> RunControl:
        """Go on until the token at ``position`` is next."""
        return replace(self._released(), target=position) if self._listens else self

    def stop(self) -> RunControl:
        """End the run; a step under way is finished first."""
        if not self._listens:
            return self
        return replace(self._released(), stopping=True, reason=STOPPING)

    def turn(self, reason: str = "", *, paused: bool) -> RunControl:
        """Leave where the run stands, if there is one, and go on elsewhere: at once, or when told to."""
        if self.stopping or self.quitting or not (self.active or self.idle):
            return self
        state = RunState.PAUSED if paused else RunState.RUNNING
        return RunControl(state, reason, turning=self.active, quitting=self.quitting, loaded=self.loaded)

    def quit(self) -> RunControl:
        """End everything."""
        return replace(self, quitting=True)

    # What the generating thread meets.

    def ready(self) -> RunControl:
        """The model is loaded."""
        return replace(self, state=RunState.READY, reason="", hint="", loaded=True)

    def started(self, *, paused: bool = False) -> RunControl:
        """A run begins; ``paused`` stops it before its first step."""
        return RunControl(
            RunState.RUNNING, steps_left=0 if paused else None, quitting=self.quitting, loaded=self.loaded
        )

    def arrived(self) -> RunControl:
        """The run has left where it stood."""
        return replace(self, turning=False)

    def ended(self, reason: str = "") -> RunControl:
        """The run came to its end."""
        return RunControl(RunState.FINISHED, reason, quitting=self.quitting, loaded=self.loaded)

    def failed(self, reason: str, hint: str = "") -> RunControl:
        """Loading or the run failed."""
        return RunControl(RunState.FAILED, reason, hint, quitting=self.quitting, loaded=self.loaded)

    def at_step(self, position: int, breakpoint_reason: str = "") -> RunControl:
        """A step is about to begin at ``position``: pause here, or not. The gate asks until the answer is no."""
        if self.state is not RunState.RUNNING or self.unwinds:
            return self
        if breakpoint_reason and not self.heedless:
            return self._paused(breakpoint_reason)
        if self.target is not None and position >= self.target:
            return self._paused(f"before position {position}")
        if self.steps_left == 0:
            return self._stepped(ON_REQUEST if self.reason == PAUSING else STEPPED)
        return self

    def pass_step(self) -> RunControl:
        """The step begins."""
        left = None if self.steps_left is None else max(0, self.steps_left - 1)
        return replace(self, steps_left=left, within_step=True)

    def end_step(self) -> RunControl:
        """The step's forward pass is over."""
        return replace(self, within_step=False)

    def at_site(self, place: str) -> RunControl:
        """The model is about to enter a site: pause here, or not."""
        if self.state is not RunState.RUNNING or self.unwinds or not self.to_site:
            return self
        return self._stepped(f"before {place}")

    @property
    def _listens(self) -> bool:
        return self.active and not self.stopping

    @property
    def _stepping(self) -> bool:
        """The run comes to a pause by itself that a person asked for by stepping."""
        steps = self.steps_left is not None or self.to_site
        return self.state is RunState.RUNNING and steps and self.reason != PAUSING

    def _stepped(self, reason: str) -> RunControl:
        """Pause, or go on with what is queued as if it had been asked for at that pause."""
        standing = self._paused(reason)
        if not self.queued:
            return standing
        count, *rest = self.queued
        going = standing.step_site() if count == _A_SITE else standing.step(count)
        return replace(going, queued=tuple(rest))

    def _paused(self, reason: str) -> RunControl:
        return replace(
            self,
            state=RunState.PAUSED,
            reason=reason,
            steps_left=None,
            to_site=False,
            queued=(),
            target=None,
            heedless=False,
        )

    def _released(self) -> RunControl:
        return replace(
            self,
            state=RunState.RUNNING,
            reason="",
            steps_left=None,
            to_site=False,
            queued=(),
            target=None,
            heedless=False,
        )


Work = Callable[[], None]
"""Something to do in the generating thread between two steps; it reports its own errors."""


class Gate:
    """Where the generating thread meets the commands of the others.

    Any thread may call what a person does (``pause`` ... ``quit``, ``submit``); the generating thread alone calls what
    the model meets (``before_step``, ``before_site``, ``after_step``, ``wait_idle``).

    Args:
        on_change: told of every change of state or reason, in order, under the gate's lock: it must not block and must
            not call the gate.
    """

    def __init__(self, on_change: Callable[[RunControl], None] | None = None) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._control = RunControl()
        self._on_change = on_change
        self._work: deque[Work] = deque()
        self._waited = 0.0

    @property
    def waited(self) -> float:
        """Seconds that the generating thread has stood before sites so far: no part of any step's time."""
        return self._waited

    @property
    def control(self) -> RunControl:
        """Where the run stands now."""
        return self._control

    def apply(self, change: Callable[[RunControl], RunControl]) -> RunControl:
        """Change the control, wake whoever waits for it, and return what it is then."""
        with self._condition:
            return self._set(change(self._control))

    def pause(self) -> None:
        """See ``RunControl.pause``."""
        self.apply(RunControl.pause)

    def resume(self) -> None:
        """See ``RunControl.resume``."""
        self.apply(RunControl.resume)

    def finish(self) -> None:
        """See ``RunControl.finish``."""
        self.apply(RunControl.finish)

    def step(self, count: int = 1) -> None:
        """See ``RunControl.step``."""
        self.apply(lambda control: control.step(count))

    def step_site(self) -> None:
        """See ``RunControl.step_site``."""
        self.apply(RunControl.step_site)

    def run_to(self, position: int) -> None:
        """See ``RunControl.run_to``."""
        self.apply(lambda control: control.run_to(position))

    def stop(self) -> None:
        """See ``RunControl.stop``."""
        self.apply(RunControl.stop)

    def quit(self) -> None:
        """See ``RunControl.quit``."""
        self.apply(RunControl.quit)

    def submit(self, work: Work) -> None:
        """Have ``work`` done by the generating thread: at once when it waits here, else before its next step."""
        with self._condition:
            self._work.append(work)
            self._condition.notify_all()

    def before_step(
        self, position: int, breakpoint_reason: str = "", standing: Callable[[str], None] | None = None
    ) -> bool:
        """Stand before a step; returns when it may begin.

        Args:
            position: sequence position of the step's first token.
            breakpoint_reason: why a breakpoint holds here, in words; empty if none does.
            standing: called with the reason when the run stands here, in this thread.

        Returns:
            Whether the run was paused here.

        Raises:
            RunStoppedError: the run shall end and the step shall not begin.
        """
        if self._control.flows and not self._work and not breakpoint_reason:
            return False  # looked at without the lock: a command may as well arrive a step later
        with self._condition:
            self._set(self._control.end_step())
            self._do_work()
            self._set(self._control.at_step(position, breakpoint_reason))
            paused = self._control.blocks
            if paused and standing is not None:
                self._unlocked(partial(standing, self._control.reason))
                self._do_work()  # submitted meanwhile, and the run perhaps released behind it
                self._set(self._control.at_step(position))
            while self._control.blocks:
                self._wait()
                # Released and paused again before this thread woke: it must not slip through.
                self._set(self._control.at_step(position))
            if self._control.unwinds:
                raise RunStoppedError
            self._set(self._control.pass_step())
            return paused

    def before_site(self, place: str, standing: Callable[[], None] | None = None) -> None:
        """Stand before a site within a step; returns when the model may enter it. Never raises: the step goes on.

        Args:
            place: the site, perhaps with the tokens that stand there.
            standing: called when the step stands here, in this thread.
        """
        if not self._control.to_site:  # read without the lock: a command may as well arrive a site later
            return
        with self._condition:
            self._set(self._control.at_site(place))
            began = perf_counter()
            if self._control.blocks and standing is not None:
                self._unlocked(standing)
                self._do_work()
            while self._control.blocks:
                self._wait()
            self._waited += perf_counter() - began

    def after_step(self) -> None:
        """The step's forward pass is over."""
        with self._condition:
            self._set(self._control.end_step())

    def wait_idle(self) -> bool:
        """Between runs: do the work that was submitted, waiting for some; False when the session quits."""
        with self._condition:
            while not self._control.quitting:
                if self._work:
                    self._do_work()
                    return not self._control.quitting
                self._condition.wait()
            return False

    def _wait(self) -> None:
        self._condition.wait_for(lambda: bool(self._work) or not self._control.blocks)
        self._do_work()

    def _do_work(self) -> None:
        while self._work and not self._control.quitting:
            self._unlocked(self._work.popleft())

    def _unlocked(self, work: Work) -> None:
        self._condition.release()
        try:
            work()
        finally:
            self._condition.acquire()

    def _set(self, control: RunControl) -> RunControl:
        before, self._control = self._control, control
        if control != before:
            self._condition.notify_all()
            told = (before.state, before.reason, before.hint) != (control.state, control.reason, control.hint)
            if told and self._on_change is not None:
                self._on_change(control)
        return control
