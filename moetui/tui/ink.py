"""What the terminal can show, as one value that every widget draws with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rich.color import Color
from rich.style import Style
from textual.widget import Widget

from moetui.tui.glyphs import ASCII, UNICODE, Glyphs, expert_color
from moetui.tui.ramps import RGB, ColorDepth, RampName, diverging_ramp, luminance, ramp, reduce_color, xterm_rgb

_PLAIN = str.maketrans({"·": "-", "×": "x", "–": "-", "−": "-", "…": "~", "▾": "v", "▴": "^", "↵": "<"})
# The hues of ``glyphs.expert_color`` as far as sixteen colours have them; digits tell experts apart there.
_LEAST_CONTRAST = 3.5
_EXPERTS_OF_16 = (12, 3, 10, 9, 13, 11, 14, 5, 1, 2, 6, 7)


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

    def words(self, text: str) -> str:
        """The app's own words in characters there are (not for what a model says)."""
        return text.translate(_PLAIN) if self.ascii_only else text

    @property
    def colored(self) -> bool:
        """Whether there is colour at all."""
        return self.depth != "none"

    @property
    def shaded(self) -> bool:
        """Whether filled cells can carry sixteen levels: enough colours, and block characters allowed."""
        return self.depth in ("truecolor", "256") and not self.ascii_only

    @property
    def by_digit(self) -> bool:
        """Whether experts are told apart by digits, for want of colours."""
        return self.ascii_only or self.depth in ("16", "none")

    def levels(self, *, diverging: bool = False) -> tuple[RGB, ...]:
        """The sixteen colours of the ramp; empty without colour."""
        return diverging_ramp(self.depth, dark=self.dark) if diverging else ramp(self.ramp, self.depth, dark=self.dark)

    def expert(self, expert: int) -> RGB | None:
        """An expert's colour on this terminal; None without colour."""
        if self.depth == "16":
            return xterm_rgb(_EXPERTS_OF_16[expert % len(_EXPERTS_OF_16)])
        color = expert_color(expert)
        return reduce_color(color if self.dark else _on_light(color), self.depth)


@lru_cache(maxsize=1024)
def _on_light(color: RGB) -> RGB:
    """A colour as it reads on a light ground: stronger, and as dark as it takes."""
    mean = sum(color) / 3
    for percent in range(80, 30, -4):
        red, green, blue = (max(0, min(255, round((mean + 1.4 * (c - mean)) * percent / 100))) for c in color)
        if 1.05 / (luminance((red, green, blue)) + 0.05) >= _LEAST_CONTRAST:
            break
    return red, green, blue


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
