"""The prompt line: what is typed here the model goes on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from moetui.tui.lines import LineWidget, Part

NEWLINE = "↵"  # stands for a line break while a prompt is edited on one line


def on_one_line(prompt: str) -> str:
    """A prompt as it stands on one line while it is edited."""
    return prompt.replace("\n", NEWLINE)


class PromptInput(Input):
    """An input that keeps pasted line breaks and remembers earlier prompts."""

    HELP_TITLE = "prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "earlier", "earlier", show=False, tooltip="The prompt before"),
        Binding("down", "later", "later", show=False, tooltip="The prompt after"),
        Binding("escape", "leave", "leave", tooltip="Leave the prompt; the keys are the panel's again"),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="type a prompt", compact=True, id="prompt", select_on_focus=False)
        self.cursor_blink = False  # it would send something twice a second
        self._history: list[str] = []
        self._at = 0

    def remember(self, text: str) -> None:
        """Add a prompt to the history."""
        if not self._history or self._history[-1] != text:
            self._history.append(text)
        self._at = len(self._history)

    async def key_ctrl_j(self) -> None:
        """What an Enter is that was typed while the terminal still edited lines, before the screen was there."""
        await self.action_submit()

    def action_earlier(self) -> None:
        """The prompt before."""
        self._go(-1)

    def action_later(self) -> None:
        """The prompt after; past the last one an empty line."""
        self._go(1)

    def action_leave(self) -> None:
        """Give the keys back to the panel."""
        self.post_message(PromptLine.Left())

    def _go(self, by: int) -> None:
        self._at = min(max(self._at + by, 0), len(self._history))
        self.value = on_one_line(self._history[self._at]) if self._at < len(self._history) else ""
        self.cursor_position = len(self.value)

    def _on_paste(self, event: events.Paste) -> None:
        text = "\n".join(event.text.splitlines())
        self.replace(on_one_line(text).replace("\t", "    "), *self.selection)
        event.prevent_default()
        event.stop()


class PromptLine(Horizontal):
    """The prompt with its mark at the left and what Enter would do at the right."""

    DEFAULT_CSS = """
    PromptLine {
        height: 1;
        & > #prompt-mark { width: 3; }
        & > #prompt { width: 1fr; background: transparent; }
        & > #prompt-hint { width: 22; }
    }
    """

    @dataclass
    class Run(Message):
        """Run this prompt."""

        text: str

    class Empty(Message):
        """Enter was pressed, and there is nothing to run."""

    class Left(Message):
        """The prompt was left without running it."""

    def compose(self) -> ComposeResult:
        """Mark, input, hint."""
        mark = LineWidget(id="prompt-mark")
        mark.show([Part(" ❯ ", "accent")])
        yield mark
        yield PromptInput()
        yield LineWidget(id="prompt-hint")

    @property
    def input(self) -> PromptInput:
        """The input."""
        return self.query_one(PromptInput)

    def hint(self, text: str, key: str = "") -> None:
        """Say at the right what Enter does now."""
        self.query_one("#prompt-hint", LineWidget).show(
            [], [Part(f"{key} " if key else "", "key"), Part(text, "dim"), Part(" ")]
        )

    def plain(self) -> None:
        """Use ASCII for the mark."""
        self.query_one("#prompt-mark", LineWidget).show([Part(" > ", "accent")])

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = event.value.replace(NEWLINE, "\n")
        if text.strip():
            self.input.remember(text)
            self.post_message(self.Run(text))
        else:
            self.post_message(self.Empty())
