"""What runs first, and what is typed at the prompt: a script, then a prompt given before, then what a person types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moetui.routing import MoetuiError
from moetui.routing.events import RunState
from moetui.session import Session
from moetui.tui.options import ScreenOptions
from moetui.tui.prompt import PromptLine

if TYPE_CHECKING:
    from textual.app import App
    from textual.widget import Widget

    from moetui.tui.controls import RunControls

    class _Base(RunControls, App[int]):
        tab: str
        _panels: dict[str, Widget]

        async def action_drawer(self) -> None: ...
        def _focus_panel(self, name: str) -> None: ...
else:
    _Base = object


class Prompting(_Base):
    """Mixed into the app."""

    session: Session
    options: ScreenOptions
    _pending: str
    _script: tuple[str, ...]
    _refused: MoetuiError | None  # what the command line's prompt was refused with, until anything runs

    async def _run_script(self) -> None:
        lines, self._script = self._script, ()
        if lines:
            if self.tab != "console" and not self.screen.has_class("-drawer"):
                await self.action_drawer()
            panel: Any = self._panels["console"]
            panel.run_script(self.options.script_name, lines, self._script_done)

    def _script_done(self, ok: bool) -> None:
        if ok:
            self._run_pending()
        elif self._pending:  # what the script was to prepare is not: whether to run it all the same is the person's
            line, self._pending = self.query_one(PromptLine), ""
            line.input.value = self.options.prompt

    def _run_pending(self) -> None:
        prompt, self._pending = self._pending, ""
        if not prompt:
            return
        try:
            self.session.generate(prompt)
        except MoetuiError as error:
            self.say(error.message, error.hint, "warning")
            self._refused = error if prompt == self.options.prompt else None
        else:
            self._leave_prompt()

    def action_prompt(self) -> None:
        """Type a prompt."""
        self.query_one(PromptLine).input.focus()

    def on_prompt_line_run(self, event: PromptLine.Run) -> None:
        """Run it, or keep it until the model is there."""
        if self.session.state is RunState.LOADING:
            self._pending = event.text
            self.query_one(PromptLine).hint("runs when ready")
        elif self.ask(lambda: self.session.generate(event.text)):
            self._leave_prompt()

    def on_prompt_line_left(self) -> None:
        """Give the keys back to the panel."""
        self._leave_prompt()

    def _leave_prompt(self) -> None:
        self._focus_panel(self.tab)
