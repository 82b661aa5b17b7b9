"""The styles that widgets draw with, by name, taken from the stylesheet and kept until it changes."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.geometry import Size
from textual.widget import Widget

from moetui.tui.ink import Ink, colored, ink_of
from moetui.tui.ramps import RGB

PENS = ("dim", "head", "accent", "good", "warn", "bad", "cursor", "row", "strong", "bar")

PEN_CSS = """
    & > .pen--dim { color: $foreground-muted 80%; }
    & > .pen--head { color: $foreground-muted; }
    & > .pen--accent { color: $accent; text-style: bold; }
    & > .pen--good { color: $success; }
    & > .pen--warn { color: $warning; }
    & > .pen--bad { color: $error; text-style: bold; }
    & > .pen--cursor { background: $accent; color: $background; text-style: bold; }
    & > .pen--row {
        background: $block-cursor-blurred-background;
        text-style: $block-cursor-blurred-text-style;
    }
    &:focus > .pen--row {
        background: $block-cursor-background;
        text-style: $block-cursor-text-style;
    }
    & > .pen--bar { color: $accent 65%; }
    & > .pen--strong { text-style: bold; }
    &:ansi > .pen--dim { color: ansi_bright_black; }
    &:ansi > .pen--bar { color: $accent; }
    &:ansi > .pen--cursor { background: ansi_default; color: ansi_default; text-style: reverse; }
"""


class Pens(Widget):
    """A widget with pens: semantic styles from component classes, and coloured variants, all cached."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"pen--{name}" for name in PENS}
    _pen_cache: dict[object, Style]
    _ink: Ink | None = None
    _room: tuple[Size, Size] | None = None

    @property
    def room(self) -> Size:
        """``content_size``, which takes Textual long to find out, kept as long as size and styles stay."""
        size = self.outer_size
        known = self._room
        if known is None or known[0] != size:
            found = self.content_size
            if size.area and not found.area:
                return found  # not on the screen, which says nothing of the room when it is back
            known = self._room = (size, found)
        return known[1]

    @property
    def ink(self) -> Ink:
        """The app's ink, as of the last ``renew_ink``: the app works it out anew each time it is asked."""
        return self._ink if self._ink is not None else self.renew_ink()

    def renew_ink(self) -> Ink:
        """Ask the app for its ink; what was drawn with another is dropped. Once before each drawing is enough."""
        found = ink_of(self)
        if found != self._ink:
            self._ink = found
            self.forget_drawn()
        return found

    def pen(self, name: str = "") -> Style:
        """A semantic style with the widget's background; the plain text style for no name."""
        cache = self._pens()
        style = cache.get(name)
        if style is None:
            style = self.get_component_rich_style(f"pen--{name}") if name else self.rich_style
            if self.ink.depth == "none" and name in ("cursor", "row"):
                style = Style(reverse=True, bold=name == "cursor")
            cache[name] = style
        return style

    def paint(self, base: str, foreground: RGB | None = None, background: RGB | None = None) -> Style:
        """A semantic style in another colour."""
        cache = self._pens()
        key = (base, foreground, background)
        style = cache.get(key)
        if style is None:
            style = cache[key] = colored(self.pen(base), foreground, background)
        return style

    def row_pen(self, name: str = "", lit: bool = True) -> Style:
        """A semantic style on the ground of the selected row, if ``lit``."""
        if not lit:
            return self.pen(name)
        cache = self._pens()
        key = ("row", name)
        style = cache.get(key)
        if style is None:
            row = self.pen("row")
            if row.reverse:
                # Reversed, a coloured character would become a coloured block.
                style = self.pen() + row + Style(bold=name in ("accent", "strong", "bad"))
            else:
                # Dim on that ground would be too faint to read.
                style = self.pen("" if name == "dim" else name) + Style(bgcolor=row.bgcolor, bold=row.bold or None)
            cache[key] = style
        return style

    def expert_pen(self, expert: int, lit: bool = False) -> Style:
        """An expert's own colour, on the ground of the selected row if ``lit``."""
        cache = self._pens()
        key = ("expert", expert, lit)
        style = cache.get(key)
        if style is None:
            color = self.ink.expert(expert)
            base = self.row_pen("", lit)
            if base.reverse and not self.ink.by_digit:
                base = self.pen()  # reversed, all experts would look alike
            style = cache[key] = base if base.reverse else colored(base, color)
        return style

    def forget_drawn(self) -> None:
        """Drop what was drawn with styles that are no more; subclasses drop their strips too."""
        self._pen_cache = {}
        self._room = None

    def notify_style_update(self) -> None:
        """Styles changed: the next drawing takes the new ones."""
        self.forget_drawn()
        if self.is_attached:
            self.renew_ink()
        super().notify_style_update()

    def _pens(self) -> dict[object, Style]:
        try:
            return self._pen_cache
        except AttributeError:
            self._pen_cache = {}
            return self._pen_cache
