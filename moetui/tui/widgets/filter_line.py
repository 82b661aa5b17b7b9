"""The filter line: a query as it is typed, what is wrong with it in place, and how many tokens match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.highlighter import Highlighter
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.suggester import Suggester
from textual.widgets import Input, Static

from moetui.routing import QueryError, drawable
from moetui.tui.cells import Line, fit
from moetui.tui.widgets.pens import PEN_CSS, Pens
from moetui.tui.widgets.token_rows import TokenQuery

Parser = Callable[[str], TokenQuery]
Completer = Callable[[str, int], Sequence[str]]


class _Completion(Suggester):
    def __init__(self, complete: Completer) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        if not value or value.endswith(" "):
            return None
        found = self._complete(value, len(value))
        return next((text for text in found if text.startswith(value) and text != value), None)


class _Wrong(Highlighter):
    """Underlines the query from the character at which it stops making sense."""

    def __init__(self) -> None:
        self.position: int | None = None

    def highlight(self, text: Text) -> None:
        if self.position is not None and len(text):
            start = max(0, min(self.position, len(text) - 1))
            text.stylize("underline bold", start, len(text))


class _QueryInput(Input):
    HELP_TITLE = "filter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave the filter", show=False, id="filter.leave", tooltip="Back to the tokens"),
        Binding("down", "leave(True)", "To the tokens", show=False, id="filter.down", tooltip="Back to the tokens"),
        Binding("tab", "take", "Complete", show=False, id="filter.complete", tooltip="Take the completion"),
    ]

    def __init__(self, opener: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._opener = opener

    def on_key(self, event: events.Key) -> None:
        """Whoever is in the line by itself may press the key that leads there all the same."""
        if self._opener and event.character == self._opener and not self.value:
            event.stop()
            event.prevent_default()

    def on_mount(self) -> None:
        """Only asked for does the line take keys: going from part to part does not end up typing."""
        self.can_focus = False
        self.cursor_blink = False  # it would send something twice a second

    def on_resize(self) -> None:
        """The note beside took room or gave some back: the end that is typed at stays in sight."""
        self.scroll_to_region(Region(self._cursor_offset, 0, 1, 1), force=True, animate=False)

    def on_blur(self) -> None:
        """The line is left."""
        self.can_focus = False

    def action_leave(self, down: bool = False) -> None:
        """Give the focus back; an empty or wrong query is left as it is."""
        self.post_message(FilterLine.Left(down))

    def action_take(self) -> None:
        """Take the completion if there is one, else go on to the next widget."""
        if self._suggestion and self.cursor_position == len(self.value):
            self.action_cursor_right()
        else:
            self.screen.focus_next()


class FilterNote(Pens):
    """What the line says at its right end. Its width changes seldom: each change would lay the screen out anew."""

    DEFAULT_CSS = "FilterNote { width: 16; height: 1; " + PEN_CSS + "}"
    COMPONENT_CLASSES: ClassVar[set[str]] = Pens.COMPONENT_CLASSES

    def __init__(self) -> None:
        super().__init__()
        self._said = ("", "head")
        self._wide = 16

    def say(self, text: str, pen: str) -> None:
        """Say this, in drawable characters."""
        self.renew_ink()
        if (text, pen) == self._said:
            return
        self._said = (text, pen)
        wide = max(16, -(-(cell_len(text) + 2) // 8) * 8)
        if wide != self._wide:
            self._wide = wide
            self.styles.width = wide
            self.styles.max_width = "60%"
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line, aligned right."""
        text, pen = self._said
        width = self.room.width
        line = Line().add(fit(text, width - 1, "right", self.ink.glyphs.ellipsis), self.pen(pen))
        return line.strip(width, self.pen())


class FilterLine(Horizontal):
    """``filter  layer:3 entropy>1.2            12 of 37 tokens``.

    Args:
        parse: reads a query.
        complete: tells what may stand at a place of one.
        label: before the line.
        example: shown while the line is empty.
        opener: the key that leads here, if no query begins with it: in the empty line it is not text.
    """

    DEFAULT_CSS = """
    FilterLine {
        height: 1;
        & > .filter--label { width: auto; padding: 0 1; color: $text-muted; }
        & > Input { width: 1fr; height: 1; border: none; padding: 0; background: $surface; }
        & > Input:focus { background: $boost; }
        & > FilterNote { width: 16; height: 1; }
    }
    """

    @dataclass
    class Changed(Message):
        """Another filter: a query, or None for all tokens. A query that does not parse changes nothing."""

        query: TokenQuery | None

    @dataclass
    class Wrong(Message):
        """What was typed does not parse; ``error`` says why."""

        error: str

    @dataclass
    class Entered(Message):
        """Enter was pressed on a query that makes sense; ``Left`` follows."""

        text: str

    @dataclass
    class Left(Message):
        """The person is done here, or wants to go down from here."""

        down: bool = False

    def __init__(
        self,
        parse: Parser,
        complete: Completer,
        *,
        label: str = "filter",
        example: str = 'layer:3 expert:5 entropy>1.2 token:"foo" phase:decode',
        opener: str = "",
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._opener = opener
        self._parse, self._complete = parse, complete
        self._label, self._example = label, example
        self._wrong = _Wrong()
        self._note = ""
        self.error = ""

    def compose(self) -> ComposeResult:
        """Label, input, note."""
        yield Static(Content(self._label), classes="filter--label")
        yield _QueryInput(
            self._opener,
            placeholder=self._example,
            suggester=_Completion(self._complete),
            highlighter=self._wrong,
            select_on_focus=False,
            compact=True,
        )
        yield FilterNote()

    @property
    def value(self) -> str:
        """The query as typed."""
        return self.query_one(_QueryInput).value

    @value.setter
    def value(self, text: str) -> None:
        line = self.query_one(_QueryInput)
        line.value = text
        line.cursor_position = len(text)

    @property
    def cursor(self) -> int:
        """Where the next character would stand."""
        return self.query_one(_QueryInput).cursor_position

    @property
    def typing(self) -> bool:
        """Whether the keys go into it."""
        return self.query_one(_QueryInput).has_focus

    def focus_input(self) -> None:
        """Begin typing."""
        line = self.query_one(_QueryInput)
        line.can_focus = True
        line.focus()

    def on_click(self) -> None:
        """A click begins typing too."""
        self.focus_input()

    def note(self, text: str) -> None:
        """Say how many match, unless there is an error to say."""
        self._note = text
        self._say()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        text = event.value.strip()
        self.error, self._wrong.position = "", None
        try:
            query = self._parse(event.value) if text else None
        except QueryError as error:
            self._wrong.position = error.position
            self.error = error.message + (f" ({error.hint})" if error.hint else "")
            self.post_message(self.Wrong(self.error))
        else:
            self.post_message(self.Changed(query))
        self._say()

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.error:
            self.post_message(self.Entered(event.value))
            self.post_message(self.Left())

    def _say(self) -> None:
        note = self.query_one(FilterNote)
        if self.error:
            note.say(drawable(self.error), "bad")
        else:
            note.say(self._note, "head")
