"""What runs first, and what is typed at the prompt: a script, then a prompt given before, then what a person types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moetui.routing import MoetuiError, drawable
from moetui.routing.events import RunState
from moetui.session import ComingSession, Session
from moetui.tui.controls import IDLE
from moetui.tui.options import ScreenOptions
from moetui.tui.prompt import PromptLine, on_one_line

if TYPE_CHECKING:
    from textual.app import App
    from textual.widget import Widget

    from moetui.tui.controls import RunControls

    class _Base(RunControls, App[int]):
        tab: str
        _panels: dict[str, Widget]

        @property
        def _enter(self) -> str: ...
        async def action_drawer(self) -> None: ...
        def _focus_panel(self, name: str) -> None: ...
else:
    _Base = object


class Prompting(_Base):
    """Mixed into the app."""

    session: Session
    options: ScreenOptions
    _given: str  # the command line's prompt, until it runs
    _typed = ""  # what is to run behind it: typed before there was a model
    _script: tuple[str, ...]  # until it has run
    _viewed: bool  # whether the model's first view is painted: what runs before that is not seen
    _refused: MoetuiError | None  # what the command line's prompt was refused with, until anything runs

    def console_waits(self) -> bool:
        """Whether the console takes lines that run when the model is there."""
        return self.session.state is RunState.LOADING and not isinstance(self.session, ComingSession)

    async def _console_follows(self, state: RunState) -> None:
        """Run the script, then what was typed at the console, once there is a model."""
        if self._script and state is RunState.READY:
            if self.tab != "console" and not self.default_screen.has_class("-drawer"):
                await self.action_drawer()
            panel: Any = self._panels["console"]
            panel.run_script(self.options.script_name, self._script, self._script_done)
        console: Any = self._panels.get("console")
        if console is not None and state not in (RunState.LOADING, RunState.FAILED):
            console.begin()

    def on_console_panel_idle(self) -> None:
        """What was typed at the console before there was a model has run: now the prompts."""
        self._run_pending()

    def _script_done(self, ok: bool) -> None:
        self._script = ()
        if not ok:  # what the script was to prepare is not: whether to run it all the same is the person's
            self._given = ""
        self._run_pending()

    def _run_pending(self) -> None:
        """Run what was asked for before it could run, unless something still goes on."""
        console = self._panels.get("console")
        busy = console is not None and getattr(console, "busy", False)
        if self._script or busy or not self._viewed or self.session.state not in IDLE:
            return
        given, self._given = self._given, ""
        if given and self._begin_run(given, given=True):
            if self._typed:
                self.query_one(PromptLine).hint("runs next")
            return
        typed, self._typed = self._typed, ""
        if typed:
            self._begin_run(typed)

    def _begin_run(self, prompt: str, *, given: bool = False) -> bool:
        try:
            self.session.generate(prompt)
        except MoetuiError as error:
            self.say(error.message, error.hint, "warning")
            self._refused = error if given else self._refused
            return False
        if self.query_one(PromptLine).input.value in ("", on_one_line(prompt)):  # else another is being typed
            self._leave_prompt()
        return True

    def _show_given(self, line: PromptLine) -> None:
        """Let the command line's prompt stand in the line."""
        text = on_one_line(self._given)
        if text and drawable(text) == text.replace("\t", "⇥"):  # what cannot be drawn as it is would not run as it is
            line.input.value = text
            line.input.remember(self._given)
        line.hint("runs when ready")

    def action_prompt(self) -> None:
        """Type a prompt: in the place of the command line's that waits, and runs all the same, or was refused."""
        line = self.query_one(PromptLine).input
        line.focus()
        if (self._given or self._refused is not None) and line.value == on_one_line(self.options.prompt):
            line.select_all()

    def on_prompt_line_run(self, event: PromptLine.Run) -> None:
        """Run it, or keep it until the model is there."""
        if self._given or self._script or (not self._viewed and self.session.state not in IDLE):
            if event.text != self._given:
                self._typed = event.text
            self.query_one(PromptLine).hint("runs next" if self._given and self._typed else "runs when ready")
        elif self.ask(lambda: self.session.generate(event.text)):
            self._leave_prompt()

    def on_prompt_line_empty(self) -> None:
        """Say what is missing."""
        self.say("the prompt is empty", f"type what the model is to go on with, then {self._enter}")

    def on_prompt_line_left(self) -> None:
        """Give the keys back to the panel."""
        self._leave_prompt()

    def _leave_prompt(self) -> None:
        self._focus_panel(self.tab)
