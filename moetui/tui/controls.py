"""What the run keys do to a session, live or replayed; what one cannot do is said, not ignored."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moetui.routing import MoetuiError, drawable
from moetui.routing.events import RunState
from moetui.session import Capability, Playable, Sendable, Session
from moetui.tui.keys import key_now

if TYPE_CHECKING:
    from textual.app import App

    _Base = App[int]
else:
    _Base = object

_SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_LOOP = 32  # tokens
_MARKS = 4  # of those at one token: as many as are told
_TWICE = 2.0  # s within which a second ctrl+c quits
_THOUGHT = 15.0  # s within which a second q does, where the first one asked
_NEEDS = {
    "step": Capability.STEP | Capability.SEEK,
    "toggle_run": Capability.STEP | Capability.SEEK,
    "resume": Capability.STEP,
    "step_layer": Capability.STEP_LAYER,
    "stop": Capability.GENERATE,
    "finish": Capability.GENERATE,
    "restart": Capability.GENERATE,
    "prompt": Capability.GENERATE,
    "fork": Capability.REWIND,
    "rewind": Capability.REWIND,
    "force": Capability.INTERVENE,
    "step_back": Capability.SEEK,
    "faster": Capability.SEEK,
    "slower": Capability.SEEK,
    "seek_dialog": Capability.SEEK,
    "loop": Capability.SEEK,
    "jump": Capability.SEEK,
}
_ONLY_IN = {
    "toggle_run": (RunState.RUNNING, RunState.PAUSED),
    "resume": (RunState.PAUSED,),
    "step": (RunState.PAUSED, RunState.RUNNING),
    "step_layer": (RunState.PAUSED, RunState.RUNNING),
    "stop": (RunState.PAUSED, RunState.RUNNING),
    "finish": (RunState.PAUSED, RunState.RUNNING),
}
IDLE = (RunState.READY, RunState.FINISHED, RunState.FAILED)
IDLE_OR_PAUSED = (*IDLE, RunState.PAUSED)
_OF_A_MODEL = ("prompt", "breakpoints", "fork", "rewind", "force", "compare", "restart")  # there will be none


class RunControls(_Base):
    """Mixed into the app; ``session`` is the app's."""

    session: Session
    _interrupted = -_TWICE
    _answered = -_TWICE
    _asked = -_THOUGHT

    def can(self, action: str) -> bool | None:
        """Whether the session can do an action at all (False hides its key) and now (None dims it)."""
        needs = _NEEDS.get(action)
        if needs is not None and not needs & self.session.capabilities:
            return False
        if self.session.info is None and action in (*_ONLY_IN, "copy", "save_csv", "drawer"):
            return False
        replay = Capability.SEEK in self.session.capabilities
        if not replay and action in _ONLY_IN and self.session.state not in _ONLY_IN[action]:
            return None
        return True

    def needs_model_in_vain(self, action: str) -> bool:
        """Whether an action is of a model that failed to load."""
        return action in _OF_A_MODEL and self.session.info is None and self.session.state is RunState.FAILED

    async def run_action(self, action: Any, *where: Any, **namespaces: Any) -> bool:
        """Do what an action says; what is dim because no run goes on says so when its key is pressed all the same."""
        if await super().run_action(action, *where, **namespaces):
            return True
        return isinstance(action, str) and self._in_vain(action.removeprefix("app."))

    def _in_vain(self, action: str) -> bool:
        """Answer a key of the run that is dim now; whether it is one."""
        if action not in _ONLY_IN or self.can(action) is not None:
            return False
        if self.session.state in IDLE:
            now = time.monotonic()
            if now - self._answered > _TWICE:  # of a burst of keys the first is answered
                again = f", {key_now(self, 'restart', 'X')} runs the last one again" if self.session.branches else ""
                self.say("nothing goes on", f"{key_now(self, 'prompt', 'p')} types a prompt{again}")
            self._answered = now
        else:
            self.action_resume()  # steps that were asked for just before still pass: go on beyond them
        return True

    def ask(self, request: Callable[[], object]) -> bool:
        """Ask the session for something; what it refuses is shown. Returns whether it was accepted."""
        try:
            request()
        except MoetuiError as error:
            self.say(error.message, error.hint, "warning")
            return False
        return True

    def say(self, message: str, hint: str = "", severity: str = "information") -> None:
        """Show a line for a few seconds."""
        text = drawable(message) + (f"\n{drawable(hint)}" if hint else "")
        self.notify(text, severity=severity, markup=False)  # type: ignore[arg-type]

    def action_toggle_run(self) -> None:
        """Pause or go on."""
        running = self.session.state is RunState.RUNNING
        self.ask(self.session.pause if running else self.session.resume)

    def action_resume(self) -> None:
        """Go on."""
        self.ask(self.session.resume)

    def action_step(self) -> None:
        """One step."""
        self.ask(self.session.step)

    def action_step_layer(self) -> None:
        """One router."""
        self.ask(self.session.step_layer)

    def action_step_back(self) -> None:
        """One step back."""
        self.ask(lambda: self.session.step(-1))

    def action_stop(self) -> None:
        """End the run."""
        self.ask(self.session.stop)

    def action_finish(self) -> None:
        """Go on, past every breakpoint."""
        session = self.session
        if isinstance(session, Sendable):
            self.ask(session.finish)

    def action_restart(self) -> None:
        """Run the last prompt again."""
        session = self.session
        if isinstance(session, Sendable):
            self.ask(session.restart)

    def action_faster(self) -> None:
        """Twice as fast."""
        self._change_speed(1)

    def action_slower(self) -> None:
        """Half as fast."""
        self._change_speed(-1)

    def action_seek(self, token: int) -> None:
        """Go to a token."""
        self.ask(lambda: self.session.seek(token))

    def action_loop(self) -> None:
        """Repeat the tokens before the cursor, or stop repeating."""
        playback = self.session.playback
        if playback is not None:
            span = None if playback.loop else (max(0, playback.position - _LOOP), playback.position)
            self.ask(lambda: self.session.set_loop(span))

    def action_seek_dialog(self) -> None:
        """Ask for a token, and go there."""
        playback = self.session.playback
        if playback is None:
            return
        from moetui.tui.seek import SeekScreen

        def go(place: int | float | None) -> None:
            session = self.session
            if isinstance(place, int):
                self.action_seek(place)
            elif place is not None and isinstance(session, Playable):
                self.ask(lambda: session.seek(session.token_at(place)))

        self.push_screen(SeekScreen(playback.end), go)

    def action_jump(self, direction: int) -> None:
        """Go to what happened next in the recording, or before."""
        session = self.session
        if not isinstance(session, Playable):
            return
        mark = session.jump(direction)
        self.clear_notifications()  # from mark to mark, they would pile up over the tokens
        if mark is None:
            self.say("nothing more happened" if direction > 0 else "nothing happened before")
            return
        here = [each for each in session.marks if each.token == mark.token]  # a fork and what was forced on it
        kinds = ", ".join(dict.fromkeys(each.kind for each in here))
        more = [f"{len(here) - _MARKS} more"] if len(here) > _MARKS else []
        self.say(f"token {mark.token}: {kinds}", " · ".join([*(each.text for each in here[:_MARKS]), *more]))

    def _change_speed(self, by: int) -> None:
        playback = self.session.playback
        if playback is None:
            return
        nearest = min(range(len(_SPEEDS)), key=lambda i: abs(_SPEEDS[i] - playback.speed))
        self.ask(lambda: self.session.set_speed(_SPEEDS[min(max(nearest + by, 0), len(_SPEEDS) - 1)]))

    def interrupt_console(self) -> bool:
        """Give up the console's line, where the console is in use and a line runs; the app knows."""
        return False

    def just_ended(self) -> bool:
        """Whether a run or a console's line was over a moment ago, and may have been what a key was pressed for."""
        return False

    def empty_line(self) -> bool:
        """Empty the line that is being typed; False where none is, or nothing stands in it."""
        from textual.widgets import Input

        from moetui.tui.panels.console_input import ConsoleInput

        line = self.screen.focused
        if isinstance(line, ConsoleInput):
            return line.give_up()
        if not isinstance(line, Input) or not line.value:
            return False
        line.value = ""
        return True

    async def action_quit(self) -> None:
        """Leave."""
        self.leave()

    def leave(self) -> None:
        """Leave at once; where that would lose what took long, and nothing runs, at the second time of asking."""
        from moetui.tui.leaving import at_stake

        now = time.monotonic()
        asked, self._asked = now - self._asked < _THOUGHT, now
        lost = "" if asked or self.session.state not in IDLE else at_stake(self.session)
        if not lost:
            self.exit(0)
            return
        self.notify(
            f"in no file: {lost}\nonce more leaves without them; 'save FILE' in the console keeps them",
            severity="warning",
            markup=False,
            timeout=_THOUGHT,
        )

    def action_interrupt(self) -> None:
        """Give up a line that runs or is typed, pause a run, close a dialog; without them, or pressed twice, quit."""
        now = time.monotonic()
        again = now - self._interrupted < _TWICE
        self._interrupted = now
        if not again and self.interrupt_console():
            self.say("giving it up; ctrl+c once more quits")
        elif not again and self.session.state is not RunState.RUNNING and self.screen.is_modal:
            self.pop_screen()
        elif not again and self.session.state in IDLE_OR_PAUSED and self.empty_line():
            self.say("the line is empty; ctrl+c once more quits")
        elif not again and self.just_ended():
            self.say("that was over already; ctrl+c once more quits")
        elif again:
            self.exit(0)
        elif self.session.state is not RunState.RUNNING:
            self.leave()
        elif self.ask(self.session.pause):
            self.say("paused; ctrl+c once more quits")
