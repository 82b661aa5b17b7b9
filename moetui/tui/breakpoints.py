"""The breakpoints as a dialog: what stops a run or is logged, how often it held, and a line to edit a condition in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from moetui.routing import MoetuiError, drawable, query
from moetui.routing.breakpoints import Breakpoint
from moetui.session import Breakable, Session
from moetui.tui.cells import Line, fit
from moetui.tui.lines import LineWidget, Part
from moetui.tui.widgets.filter_line import FilterLine
from moetui.tui.widgets.row_list import RowList
from moetui.tui.widgets.token_rows import TokenQuery

_REFRESH = 0.5  # s
_COLUMNS = (("does", 11), ("ignore", 6), ("hits", 6))
_NARROW = 56  # cells; with fewer the condition has all the room
_ROOM = 20  # lines of the screen; with fewer the list of fields would leave none for the breakpoints
_EXPLAINED = 3  # of so many fields it is said what they are


class BreakpointRows(RowList):
    """A row a breakpoint: on or off, number, what it does, hits to let pass, hits so far, condition."""

    HELP_TITLE = "breakpoints"
    EMPTY = "no breakpoints: type a condition"

    def __init__(self) -> None:
        super().__init__(id="breakpoint-rows")
        self.points: list[Breakpoint] = []

    @property
    def total(self) -> int:
        """Breakpoints."""
        return len(self.points)

    def show(self, points: Sequence[Breakpoint]) -> None:
        """Draw these from now on."""
        if list(points) != self.points:
            self.points = list(points)
            self.move_cursor(self.cursor)

    def header(self, width: int) -> Line:
        """The columns' names."""
        pen, line = self.pen("head"), Line()
        line.add("      # ", pen)
        for name, cells in _COLUMNS if width >= _NARROW else ():
            line.add(fit(name, cells, "left" if name == "does" else "right") + " ", pen)
        return line.add(" condition", pen)

    def draw_row(self, row: int, width: int, *, selected: bool) -> Line:
        """One of them."""
        point, line = self.points[row], Line()
        pen = self.row_pen("" if point.enabled else "dim", selected)
        on, off = ("*", "o") if self.ink.ascii_only else ("●", "○")
        line.add(f" {on if point.enabled else off}", self.row_pen("bad" if point.enabled else "dim", selected))
        line.add(f" {point.id:>4} ", pen)
        if width >= _NARROW:
            does = ("logs" if point.log_only else "stops") + (" once" if point.temporary else "")
            line.add(f"{does:<11} {point.ignore or '':>6} {point.hits:>6} ", pen)
        room = max(0, width - line.width - 1)
        return line.add(" " + fit(drawable(point.expression), room, "left", self.ink.glyphs.ellipsis), pen)


class BreakpointsScreen(ModalScreen[None]):
    """Lists, adds, changes and removes the breakpoints of a session that has some."""

    HELP_TITLE = "breakpoints"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "add", tooltip="Add a breakpoint"),
        Binding("enter,e", "edit", "edit", tooltip="Edit the condition"),
        Binding("space", "switch", "on/off", tooltip="Look at it, or pass over it"),
        Binding("l", "log", "stop/log", tooltip="Stop the run where it holds, or write a line and go on"),
        Binding("o", "once", "once", tooltip="Only the first time, or every time"),
        Binding("plus,equals_sign", "ignore(1)", "ignore", key_display="+ -", tooltip="Let one more hit pass first"),
        Binding("minus", "ignore(-1)", "ignore less", show=False, tooltip="Let one hit less pass first"),
        Binding("d,delete", "remove", "delete", tooltip="Delete it"),
        Binding("escape,q,b", "dismiss", "close", tooltip="Close this list"),
        Binding("question_mark,f1", "app.help", "help", show=False, tooltip="All keys that do something here"),
    ]
    DEFAULT_CSS = """
    BreakpointsScreen {
        align: center middle;
        background: $background 60%;
        & > #breakpoints {
            width: 94%; max-width: 110; height: 16; max-height: 90%;
            background: $surface; border: round $border; border-title-color: $accent; padding: 0 1;
        }
        & BreakpointRows { height: 1fr; background: $surface; }
        & FilterNote { display: none; }  /* its line has room below */
        & LineWidget { height: 1; }
        & #breakpoint-fields { height: auto; max-height: 5; padding: 0 1; color: $foreground-muted; }
    }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._store = cast(Breakable, session)
        self._editing: Breakpoint | None = None
        self._refused = False

    def compose(self) -> ComposeResult:
        """Rows, the line to edit in, what went wrong, keys."""
        with Vertical(id="breakpoints") as box:
            box.border_title = "breakpoints"
            yield BreakpointRows()
            yield FilterLine(
                self._parse,
                self._complete,
                label="condition",
                example="entropy < 0.3 and layer == 5",
                opener="a",
                id="condition",
            )
            yield LineWidget(id="breakpoint-note")
            yield Static(id="breakpoint-fields")
            yield LineWidget(id="breakpoint-keys")
            yield LineWidget(id="breakpoint-more-keys")

    def on_mount(self) -> None:
        """Show what there is; hits go on being counted meanwhile. Where there is none, what is typed is a condition."""
        self._show()
        if self._store.breakpoints:
            self.query_one(BreakpointRows).focus()
        else:
            self._edit(None)
        self.call_after_refresh(self._show_keys)
        self.set_interval(_REFRESH, self._show)

    def on_resize(self) -> None:
        """Keys that have no room on one line go on on a second."""
        self.call_after_refresh(self._show_keys)
        self._guide()

    # ------------------------------------------------------------------ keys

    def action_add(self) -> None:
        """Type the condition of another."""
        self._edit(None)

    def action_edit(self) -> None:
        """Type another condition for this one."""
        point = self._current()
        self._edit(point)

    def action_switch(self) -> None:
        """Switch it on or off."""
        point = self._current()
        if point is not None:
            self._try(lambda: self._store.change_breakpoint(point.id, enabled=not point.enabled))

    def action_log(self) -> None:
        """Stop, or log."""
        point = self._current()
        if point is not None:
            # A log point that is gone after its first line would be of no use.
            self._try(lambda: self._store.change_breakpoint(point.id, log_only=not point.log_only, temporary=False))

    def action_once(self) -> None:
        """Once, or always; a log point stops the run, once."""
        point = self._current()
        if point is not None:
            once = point.log_only or not point.temporary
            self._try(lambda: self._store.change_breakpoint(point.id, log_only=False, temporary=once))

    def action_ignore(self, by: int) -> None:
        """Let more hits pass, or fewer."""
        point = self._current()
        if point is not None and point.ignore + by >= 0:
            self._try(lambda: self._store.change_breakpoint(point.id, ignore=point.ignore + by))

    def action_remove(self) -> None:
        """Delete it."""
        point = self._current()
        if point is not None:
            self._try(lambda: self._store.remove_breakpoint(point.id))

    # ------------------------------------------------------------------ the line

    def _edit(self, point: Breakpoint | None) -> None:
        self._editing = point
        line = self.query_one(FilterLine)
        line.value = "" if point is None else point.expression
        line.focus_input()
        self._guide()

    def on_descendant_focus(self) -> None:
        """Say what the line takes as soon as it is typed in."""
        self._guide()

    def on_descendant_blur(self) -> None:
        """The list has its room back."""
        self._offer()

    @on(FilterLine.Changed)
    def _changed(self, event: FilterLine.Changed) -> None:
        event.stop()
        self._guide()

    @on(FilterLine.Wrong)
    def _wrong(self, event: FilterLine.Wrong) -> None:
        event.stop()
        self._say(event.error)
        self._offer()

    def _offer(self) -> None:
        """List what may stand where the line is typed in: names side by side, of a few what they are."""
        line, shown = self.query_one(FilterLine), self.query_one("#breakpoint-fields", Static)
        shown.display = line.typing and self.size.height >= _ROOM
        if not shown.display:
            return
        info = self._session.info
        found = query.complete(line.value, line.cursor, info, self._branches())
        if len(found) > _EXPLAINED:
            text = "  ".join(drawable(one.text).rstrip(" :") for one in found)
        else:
            named = [(drawable(one.text).rstrip(" :"), drawable(one.help)) for one in found]
            known = query.field_before(line.value, line.cursor)
            if known is not None and known.name not in [name for name, _ in named]:
                named.insert(0, (known.name, known.help))
            text = "\n".join(f"{name}   {told}" for name, told in named)
        shown.update(Content(text))

    def _guide(self) -> None:
        """Say below the line what Enter does with it."""
        self._offer()
        if self.query_one(FilterLine).typing:
            enter = self.app.get_key_display(Binding("enter", "", ""))
            what = "adds it" if self._editing is None else f"changes {self._editing.id}"
            keys = [Part(enter, "key"), Part(f" {what}   ", "dim"), Part("tab", "key"), Part(" completes   ", "dim")]
            self._note([*keys, Part("esc", "key"), Part(" leaves it", "dim")])

    @on(FilterLine.Entered)
    def _entered(self, event: FilterLine.Entered) -> None:
        event.stop()
        text = event.text.strip()
        edited = self._editing
        if not text:
            return
        if edited is None:
            self._refused = not self._try(lambda: self._store.add_breakpoint(text))
            rows = self.query_one(BreakpointRows)
            rows.move_cursor(rows.total - 1)
        else:
            self._refused = not self._try(lambda: self._store.change_breakpoint(edited.id, expression=text))

    @on(FilterLine.Left)
    def _left(self, event: FilterLine.Left) -> None:
        event.stop()
        refused, self._refused = self._refused, False
        if refused:  # what is wrong with it is said below it
            return
        line, rows = self.query_one(FilterLine), self.query_one(BreakpointRows)
        if not line.value and not rows.points and not event.down:  # there is no list to go back to
            self.dismiss()
            return
        line.value = ""
        self._note([])
        rows.focus()

    def _parse(self, text: str) -> TokenQuery:
        info = self._session.info
        return query.parse(text, self._branches(), () if info is None else info.sites)

    def _complete(self, text: str, cursor: int) -> Sequence[str]:
        found = query.complete(text, cursor, self._session.info, self._branches())
        return [text[: one.start] + one.text + text[one.stop :] for one in found if one.start < cursor]

    def _branches(self) -> dict[str, int]:
        return {branch.name: branch.id for branch in self._session.branches}

    # ------------------------------------------------------------------ what is held

    def _current(self) -> Breakpoint | None:
        rows = self.query_one(BreakpointRows)
        return rows.points[rows.cursor] if rows.points else None

    def _try(self, work: Callable[[], object]) -> bool:
        self._say("")
        try:
            work()
        except MoetuiError as error:
            self._say(error.message + (f" ({error.hint})" if error.hint else ""))
            return False
        finally:
            self._show()
        return True

    def _show(self) -> None:
        self.query_one(BreakpointRows).show(self._store.breakpoints)

    def _say(self, text: str) -> None:
        self._note([Part(drawable(text), "bad")] if text else [])

    def _note(self, parts: Sequence[Part]) -> None:
        self.query_one("#breakpoint-note", LineWidget).show([Part(" "), *parts])

    def _show_keys(self) -> None:
        first, second = (self.query_one(f"#breakpoint-{name}", LineWidget) for name in ("keys", "more-keys"))
        parts = self._keys()
        room, kept = first.size.width, len(parts)
        while kept > 2 and sum(part.width for part in parts[:kept]) > room:
            kept -= 2  # a key and what it does
        first.show(parts[:kept])
        second.show(parts[kept:])
        second.display = kept < len(parts)

    def _keys(self) -> list[Part]:
        parts: list[Part] = []
        for rank, binding in enumerate(self._bindings.shown_keys, 1):
            known = any(part.action == f"screen.{binding.action}" for part in parts)
            if binding.show and not known:
                action = f"screen.{binding.action}"
                rank = 0 if binding.action == "dismiss" else rank  # how to leave is said however narrow it is
                parts.append(Part(self.app.get_key_display(binding), "key", rank, action))
                parts.append(Part(f" {binding.description}  ", "dim", rank, action))
        return parts
