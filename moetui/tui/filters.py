"""The last fences of ``--ascii`` and ``--color none``: whatever was drawn, borders and scrollbars too, obeys them."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.scrollbar import ScrollBarRender

_PAIRS = (
    ("─━╌┄╴╶╸╺═▔⎯", "-"),
    ("│┃┆┊║▌▐▎▏▕▍", "|"),
    ("╭╮╰╯┌┐└┘├┤┬┴┼╔╗╚╝┏┓┗┛╋╞╡", "+"),
    ("·•∙⋅‧", "."),
    ("▁▂▃", "._-"),
    ("▄▅▆▇█▉▊▋", "=+*##%=+"),
    ("▀■▣□▢◼▮", "#"),
    ("×✗✘", "x"),
    ("‖∥", "="),
    ("●○◌◉◆◇★", "o"),
    ("✓✔", "+"),
    ("⚠‼", "!"),
    ("❯›▸▶→▷⟩", ">"),
    ("‹◂◀←◁⟨", "<"),
    ("↑▲△▴", "^"),
    ("↓▼▽▾⌄", "v"),
    ("↵⏎", "/"),
    ("…", "~"),
    ("–—−‐", "-"),
    ("‘’“”„", '\'\'"""'),
    ("Δ∆", "d"),
    ("∞", "8"),
    ("░▒▓", ".:%"),
)
_TABLE = {ord(char): (to[i] if len(to) == len(chars) else to) for chars, to in _PAIRS for i, char in enumerate(chars)}


class ColorlessFilter(LineFilter):
    """Takes all colour away; bold, reverse and the like stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments without colour."""
        return [
            Segment(text, None if style is None else style.without_color, control) for text, style, control in segments
        ]


class AsciiFilter(LineFilter):
    """Replaces what is not ASCII by the character that looks most like it, else by ``?``, cell by cell."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments in ASCII."""
        return [
            segment if segment.text.isascii() else Segment(to_ascii(segment.text), segment.style, segment.control)
            for segment in segments
        ]


class WholeCells(ScrollBarRender):
    """A scroll bar that ends where a cell does: parts of a cell would be characters upon it in ASCII."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


@lru_cache(maxsize=4096)
def to_ascii(text: str) -> str:
    """``text`` in ASCII, as wide as it was."""
    out = []
    for char in text.translate(_TABLE):
        if char.isascii():
            out.append(char)
        elif 0x2800 <= ord(char) <= 0x28FF:  # braille: charts
            out.append(" " if char == "\u2800" else "*")
        else:
            out.append("?" * cell_len(char))
    return "".join(out)
