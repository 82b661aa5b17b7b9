"""What the terminal can show, as one value that every widget draws with."""

from __future__ import annotations

from dataclasses import dataclass

from rich.color import Color
from rich.style import Style
from textual.widget import Widget

from moetui.tui.glyphs import ASCII, UNICODE, Glyphs, expert_color
from moetui.tui.ramps import RGB, ColorDepth, RampName, diverging_ramp, ramp, reduce_color


@dataclass(frozen=True, slots=True)
class Ink:
    """How to draw: colours the terminal has, ASCII or not, the ramp, and whether the ground is dark.

    The app holds one as its attribute ``ink`` and replaces it when theme or options change.
    """

    depth: ColorDepth = "truecolor"
    ascii_only: bool = False
    ramp: RampName = "viridis"
    dark: bool = True

    @property
    def glyphs(self) -> Glyphs:
        """The characters to draw with."""
        return ASCII if self.ascii_only else UNICODE

    @property
    def colored(self) -> bool:
        """Whether there is colour at all."""
        return self.depth != "none"

    @property
    def shaded(self) -> bool:
        """Whether filled cells can carry sixteen levels: enough colours, and block characters allowed."""
        return self.depth in ("truecolor", "256") and not self.ascii_only

    def levels(self, *, diverging: bool = False) -> tuple[RGB, ...]:
        """The sixteen colours of the ramp; empty without colour."""
        return diverging_ramp(self.depth, dark=self.dark) if diverging else ramp(self.ramp, self.depth, dark=self.dark)

    def expert(self, expert: int) -> RGB | None:
        """An expert's colour on this terminal; None without colour."""
        color = reduce_color(expert_color(expert), self.depth)
        if color is None or self.dark or self.depth == "16":
            return color
        red, green, blue = color
        return reduce_color((red * 4 // 5, green * 4 // 5, blue * 4 // 5), self.depth)


def ink_of(widget: Widget) -> Ink:
    """The app's ink, or the plain one where the app has none."""
    found = getattr(widget.app, "ink", None)
    return found if isinstance(found, Ink) else Ink()


def colored(base: Style, foreground: RGB | None = None, background: RGB | None = None) -> Style:
    """``base`` with another foreground or background, where given."""
    return base + Style.from_color(
        None if foreground is None else Color.from_rgb(*foreground),
        None if background is None else Color.from_rgb(*background),
    )
