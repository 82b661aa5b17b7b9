"""The console's input: one line or several, earlier lines by key and by search, words to complete with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.document._document import Location
from textual.message import Message
from textual.widgets import TextArea

from moetui.console import Completion, Console
from moetui.routing import drawable
from moetui.tui.panels.console_search import Search

_INDENT = 4
_MOST_ROWS = 8


class ConsoleInput(TextArea, inherit_bindings=False):
    """Edits what is to be run; the panel is told of what changes and of what was sent."""

    HELP_TITLE = "console"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "run", tooltip="Run the line; within a block or bracket, begin the next line"),
        Binding("escape", "leave", "leave", tooltip="To the Network tab"),
        Binding("tab", "complete(1)", "complete", tooltip="Complete the word; again: the next of the words shown"),
        Binding("shift+tab", "complete(-1)", "word before", show=False, tooltip="The word before, of those shown"),
        Binding("up", "up", "earlier", show=False, tooltip="The line before, or the row above"),
        Binding("down", "down", "later", show=False, tooltip="The line after, or the row below"),
        Binding("ctrl+r", "search", "search", tooltip="Search the lines run before; again: an older one"),
        Binding("ctrl+o", "new_line", "new line", show=False, tooltip="A new line, whatever Enter would do"),
        Binding("pageup", "scroll_log(-1)", "log up", show=False, tooltip="Scroll the log up"),
        Binding("pagedown", "scroll_log(1)", "log down", show=False, tooltip="Scroll the log down"),
        Binding("ctrl+l", "clear_log", "clear", show=False, tooltip="Empty the log"),
        Binding("left", "cursor_left", "left", show=False, tooltip="A character to the left"),
        Binding("right", "cursor_right", "right", show=False, tooltip="A character to the right"),
        Binding("ctrl+left,alt+b", "cursor_word_left", "word left", show=False, tooltip="A word to the left"),
        Binding("ctrl+right,alt+f", "cursor_word_right", "word right", show=False, tooltip="A word to the right"),
        Binding("home,ctrl+a", "cursor_line_start", "line start", show=False, tooltip="To the line's start"),
        Binding("end,ctrl+e", "cursor_line_end", "line end", show=False, tooltip="To the line's end"),
        Binding("backspace,ctrl+h", "delete_left", "delete", show=False, tooltip="Delete the character before"),
        Binding("delete,ctrl+d", "delete_right", "delete right", show=False, tooltip="Delete the character behind"),
        Binding("ctrl+w,alt+backspace", "delete_word_left", "delete word", show=False, tooltip="Delete a word"),
        Binding(
            "ctrl+u", "delete_to_start_of_line", "delete to start", show=False, tooltip="Delete to the line's start"
        ),
        Binding("ctrl+k", "delete_to_end_of_line", "delete to end", show=False, tooltip="Delete to the line's end"),
        Binding("ctrl+underscore", "undo", "undo", show=False, tooltip="Take the last edit back"),
    ]

    @dataclass
    class Sent(Message):
        """Run this."""

        text: str

    @dataclass
    class Edited(Message):
        """The text or the cursor is another; words are shown, or no longer."""

        words: tuple[str, ...]
        chosen: int | None

    @dataclass
    class LogScrolled(Message):
        """Scroll the log by so many pages."""

        pages: int

    class Left(Message):
        """The person is done here, where it is no drawer that the app closes."""

    class LogCleared(Message):
        """Empty the log."""

    def __init__(self) -> None:
        super().__init__(
            compact=True,
            id="console-input",
            highlight_cursor_line=False,
            placeholder="type help",
        )
        self.cursor_blink = False  # it would send something twice a second
        self.show_vertical_scrollbar = False
        self.moe: Console | None = None
        self.search: Search | None = None
        self._browsed: list[str] = []  # lines run before, as of when going through them began
        self._back = 0  # lines gone back
        self._draft = ""
        self._found: Completion | None = None
        self._chosen: int | None = None

    def attach(self, console: Console) -> None:
        """Take history, completion and the end of statements from a console."""
        self.moe = console

    # ------------------------------------------------------------------ what is typed

    @property
    def value(self) -> str:
        """The text."""
        return self.text

    @value.setter
    def value(self, text: str) -> None:
        self.load_text(text)
        self.move_cursor(self.document.end)

    @property
    def cursor_position(self) -> int:
        """Where the cursor is, counted in characters from the start."""
        row, column = self.cursor_location
        return sum(len(self.document.get_line(i)) + 1 for i in range(row)) + column

    def location_of(self, position: int) -> Location:
        """Row and column of a character."""
        before = self.text[:position]
        return before.count("\n"), len(before) - (before.rfind("\n") + 1)

    @property
    def words(self) -> tuple[str, ...]:
        """What the word before the cursor could become, if that is shown."""
        return self._found.words if self._found is not None else ()

    @property
    def words_start(self) -> int:
        """Where the word begins that they would replace."""
        return self._found.start if self._found is not None else 0

    @property
    def chosen_word(self) -> str:
        """The marked word, if one is and it begins the line."""
        return self.words[self._chosen] if self._chosen is not None and not self.words_start else ""

    def on_text_area_changed(self) -> None:
        """Follow the text with the height, and with the words if they are shown."""
        self.styles.height = min(_MOST_ROWS, max(1, self.wrapped_document.height))
        if self._found is not None:
            self._look(keep=True)
        self._tell()

    def on_text_area_selection_changed(self) -> None:
        """The cursor went elsewhere: words for another place are no longer good."""
        if self._found is not None and self.cursor_position < self._found.start:
            self._hide_words()
        self._tell()

    def on_resize(self) -> None:
        """Other rows."""
        self.styles.height = min(_MOST_ROWS, max(1, self.wrapped_document.height))

    async def _on_paste(self, event: events.Paste) -> None:
        # What is pasted is shown as it is typed: characters that a terminal would obey must not be in it.
        event.prevent_default()
        event.stop()
        rows = event.text.expandtabs(_INDENT).splitlines()
        self._replace_via_keyboard("\n".join(drawable(row) for row in rows), *self.selection)

    async def _on_key(self, event: events.Key) -> None:
        if self.search is not None and self._search_key(event):
            event.stop()
            event.prevent_default()
        elif event.key == "escape" and self._found is not None:
            event.stop()
            event.prevent_default()
            self._hide_words()
        elif event.key == "enter":  # the base would insert it
            event.prevent_default()

    def give_up(self) -> bool:
        """Empty the line and end what goes on in it; False where nothing stands there."""
        if not self.text:
            return False
        self.search = self._found = self._chosen = None
        self._back = 0
        self.value = ""
        self._tell()
        return True

    # ------------------------------------------------------------------ keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A drawer is closed by the app."""
        return super().check_action(action, parameters) and (action != "leave" or self.screen.has_class("-console-tab"))

    def action_leave(self) -> None:
        """Give the keys back."""
        self.post_message(self.Left())

    def action_send(self) -> None:
        """Take the chosen word, begin a new line where more belongs to it, or run what is there."""
        if self._chosen is not None:
            self._take(self.words[self._chosen])
            return
        self._hide_words()
        text = self.text
        if not self.cursor_at_last_line or (self.moe is not None and self.moe.needs_more(text)):
            self.action_new_line()
            return
        self.value = ""
        self._back = 0
        if text.strip():
            self.post_message(self.Sent(text))

    def action_new_line(self) -> None:
        """A new line, as deep as the one before or one deeper behind a colon."""
        line = self.document.get_line(self.cursor_location[0])[: self.cursor_location[1]]
        depth = len(line) - len(line.lstrip(" ")) + (_INDENT if line.rstrip().endswith(":") else 0)
        self._replace_via_keyboard("\n" + " " * depth, *self.selection)

    def action_up(self) -> None:
        """The word, row or line before."""
        if self._found is not None:
            self._choose(-1)
        elif self.cursor_at_first_line:
            self._go(1)
        else:
            self.action_cursor_up()

    def action_down(self) -> None:
        """The word, row or line after; past the last line what was being typed."""
        if self._found is not None:
            self._choose(1)
        elif self.cursor_at_last_line:
            self._go(-1)
        else:
            self.action_cursor_down()

    def action_scroll_log(self, pages: int) -> None:
        """Scroll the log."""
        self.post_message(self.LogScrolled(pages))

    def action_clear_log(self) -> None:
        """Empty the log."""
        self.post_message(self.LogCleared())

    def _go(self, back: int) -> None:
        if not self._back:
            self._draft = self.text
            self._browsed = list(self.moe.history.lines) if self.moe is not None else []
        to = min(max(self._back + back, 0), len(self._browsed))
        if to != self._back:
            self._back = to
            self.value = self._browsed[-to] if to else self._draft

    # ------------------------------------------------------------------ completion

    def action_complete(self, by: int) -> None:
        """Complete the word before the cursor as far as it is certain, and show what it could be."""
        if self._found is not None:
            self._choose(by)
            return
        row, column = self.cursor_location
        if row and not self.document.get_line(row)[:column].strip():
            self._replace_via_keyboard(" " * (_INDENT - column % _INDENT), *self.selection)
        else:
            self._look()

    def _look(self, *, keep: bool = False) -> None:
        """Ask what the word could become; ``keep``: words are shown already, and the text is left alone."""
        if self.moe is None:
            return
        found = self.moe.complete(self.text, self.cursor_position)
        typed = self.text[found.start : self.cursor_position]
        self._chosen = None
        if keep:
            self._found = found if found.words and found.words != (typed,) else None
            return
        common = _common(found.words)
        if len(found.words) == 1:
            self._found = found
            self._take(found.words[0])
            return
        self._found = found if found.words else None
        if len(common) > len(typed):
            self._replace_via_keyboard(common, self.location_of(found.start), self.cursor_location)
        self._tell()

    def take(self, number: int) -> None:
        """Take one of the words shown."""
        if number < len(self.words):
            self._take(self.words[number])

    def _choose(self, by: int) -> None:
        count = len(self.words)
        self._chosen = (0 if by > 0 else count - 1) if self._chosen is None else (self._chosen + by) % count
        self._tell()

    def _take(self, word: str) -> None:
        assert self._found is not None
        start, self._found, self._chosen = self._found.start, None, None
        behind = self.text[self.cursor_position :][:1]
        tail = "" if behind == " " or word[-1:] in "=(.:/" else " "
        self._replace_via_keyboard(word + tail, self.location_of(start), self.cursor_location)
        self._tell()

    def _hide_words(self) -> None:
        self._found = self._chosen = None
        self._tell()

    def _tell(self) -> None:
        self.post_message(self.Edited(self.words, self._chosen))

    # ------------------------------------------------------------------ search

    def action_search(self) -> None:
        """Search the lines run before."""
        if self.moe is not None:
            self._hide_words()
            self.search = Search(self.moe.history, self.text)
            self._tell()

    def _search_key(self, event: events.Key) -> bool:
        """What a key does to the search; False if it has ended and the key means what it always does."""
        search = self.search
        assert search is not None
        if event.key == "ctrl+r":
            search.older()
        elif event.key in ("backspace", "ctrl+h"):
            search.shorten()
        elif event.key in ("escape", "ctrl+g"):
            self.search, self.value = None, search.draft
            self._tell()
            return True
        elif event.is_printable and event.character:
            search.type(event.character)
        else:
            self.search = None
            self._tell()
            return False
        self.value = search.line
        self._tell()
        return True


def _common(words: Sequence[str]) -> str:
    """What all words begin with."""
    low, high = min(words, default=""), max(words, default="")
    return low[: next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))]
