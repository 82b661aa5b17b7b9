"""Colour ramps of sixteen levels, and what is left of them on terminals with fewer colours.

viridis, cividis and magma are the perceptually uniform maps of matplotlib (CC0): lightness alone orders their levels,
so that they read the same with any colour vision.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

RGB: TypeAlias = tuple[int, int, int]
RampName = Literal["viridis", "cividis", "magma"]
ColorDepth = Literal["truecolor", "256", "16", "none"]

LEVELS = 16
RAMP_NAMES: tuple[RampName, ...] = ("viridis", "cividis", "magma")


def _hexes(text: str) -> tuple[RGB, ...]:
    return tuple((int(word[:2], 16), int(word[2:4], 16), int(word[4:], 16)) for word in text.split())


_TRUECOLOR: dict[RampName, tuple[RGB, ...]] = {
    "viridis": _hexes(
        "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
        "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
    ),
    "cividis": _hexes(
        "00224e 002e6c 1e3a6f 35456c 47516c 575d6d 666970 757575 "
        "848279 948e77 a59c74 b7a96e c8b866 dbc75a eed649 fee838"
    ),
    "magma": _hexes(
        "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d "
        "c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf"
    ),
}
# The nearest colours of the xterm palette would be greys among the hues of viridis; these keep hue and order.
_VIRIDIS_256 = (53, 53, 54, 55, 24, 24, 30, 30, 36, 36, 71, 77, 113, 149, 185, 220)
_DIVERGING_DARK = _hexes(
    "59b4ff 4f9fe4 458bc9 3c77ae 346494 2d517a 283f5e 262f42 3a2f2a 593c28 7a4a29 9b592b bc692e dc7a33 f58f44 ffab66"
)
_DIVERGING_LIGHT = _hexes(
    "08519c 1f66ac 3a7bba 5790c7 76a6d3 97bcde b9d2e8 dde6ef f2e4d8 f3cfb1 f0b68a e99c66 dd8145 cc672a b34f17 963a0a"
)

# The eight colours and their bright forms. What a terminal with 16 colours really shows is the user's choice, so that
# only hue and brightness are relied on there, and glyphs carry the level. The values are those by which Rich finds the
# colour meant: it would take a pure blue for the dark one, which hardly reads on black.
_ANSI: tuple[RGB, ...] = _hexes(
    "000000 aa0000 00aa00 aa5500 0000aa aa00aa 00aaaa aaaaaa 555555 ff5555 55ff55 ffff55 5555ff ff55ff 55ffff ffffff"
)
_SIXTEEN: dict[str, tuple[int, ...]] = {
    "viridis": (5, 5, 4, 4, 12, 12, 6, 6, 6, 2, 2, 2, 10, 10, 11, 11),
    "cividis": (4, 4, 4, 8, 8, 8, 8, 7, 7, 7, 7, 3, 3, 3, 11, 11),
    "magma": (4, 4, 5, 5, 5, 5, 13, 13, 13, 9, 9, 9, 11, 11, 15, 15),
    "diverging": (12, 12, 12, 4, 4, 4, 8, 8, 8, 8, 1, 1, 1, 9, 9, 9),
}


def _xterm_palette() -> tuple[tuple[int, RGB], ...]:
    steps = (0, 95, 135, 175, 215, 255)
    cube = [
        (16 + 36 * r + 6 * g + b, (steps[r], steps[g], steps[b])) for r in range(6) for g in range(6) for b in range(6)
    ]
    greys = [(232 + i, (8 + 10 * i, 8 + 10 * i, 8 + 10 * i)) for i in range(24)]
    return tuple(cube + greys)


_XTERM = _xterm_palette()


@lru_cache(maxsize=2048)
def nearest_256(color: RGB) -> int:
    """Index (16..255) of the xterm palette's nearest colour by the red-mean distance."""
    return min(_XTERM, key=lambda entry: _distance(color, entry[1]))[0]


def xterm_rgb(index: int) -> RGB:
    """The colour of a palette index: above 15 as xterm shows it, below as Rich looks it up."""
    return _ANSI[index] if index < 16 else _XTERM[index - 16][1]


def _distance(a: RGB, b: RGB) -> float:
    mean = (a[0] + b[0]) / 2
    red, green, blue = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return (2 + mean / 256) * red * red + 4 * green * green + (2 + (255 - mean) / 256) * blue * blue


@lru_cache(maxsize=2048)
def reduce_color(color: RGB, depth: ColorDepth) -> RGB | None:
    """What a terminal of ``depth`` can show of a colour, as that palette entry's RGB; None without colour."""
    if depth == "none":
        return None
    if depth == "truecolor":
        return color
    if depth == "256":
        return xterm_rgb(nearest_256(color))
    return min(_ANSI, key=lambda entry: _distance(color, entry))


@lru_cache(maxsize=64)
def ramp(name: RampName, depth: ColorDepth, *, dark: bool = True) -> tuple[RGB, ...]:
    """Sixteen colours from least to most; empty without colour.

    On a light background the ramp runs the other way, so that more always stands out more.
    """
    if depth == "none":
        return ()
    if depth == "16":
        levels: tuple[RGB, ...] = tuple(_ANSI[index] for index in _SIXTEEN[name])
    elif depth == "256" and name == "viridis":
        levels = tuple(xterm_rgb(index) for index in _VIRIDIS_256)
    elif depth == "256":
        levels = tuple(xterm_rgb(nearest_256(color)) for color in _TRUECOLOR[name])
    else:
        levels = _TRUECOLOR[name]
    return levels if dark else levels[::-1]


@lru_cache(maxsize=16)
def diverging_ramp(depth: ColorDepth, *, dark: bool = True) -> tuple[RGB, ...]:
    """Sixteen colours from "less than before" (blue) over "the same" (levels 7 and 8) to "more" (orange)."""
    if depth == "none":
        return ()
    if depth == "16":
        return tuple(_ANSI[index] for index in _SIXTEEN["diverging"])
    levels = _DIVERGING_DARK if dark else _DIVERGING_LIGHT
    return levels if depth == "truecolor" else tuple(xterm_rgb(nearest_256(color)) for color in levels)


def luminance(color: RGB) -> float:
    """Relative luminance 0..1 of an sRGB colour (WCAG 2.2)."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@lru_cache(maxsize=2048)
def legible(color: RGB, ground: RGB, ratio: float = 3.0) -> RGB:
    """``color``, lightened or darkened until a character in it can be read on ``ground`` (contrast as in WCAG 2.2)."""
    base = luminance(ground)
    end = 255 if base < 0.18 else 0
    for step in range(20):
        found = tuple(round(value + (end - value) * step / 20) for value in color)
        low, high = sorted((luminance(found), base))  # type: ignore[arg-type]
        if (high + 0.05) / (low + 0.05) >= ratio:
            return found  # type: ignore[return-value]
    return (end, end, end)


def contrast_text(color: RGB) -> RGB:
    """Near-black or near-white, whichever reads better on ``color``."""
    return (16, 16, 20) if luminance(color) > 0.19 else (244, 244, 246)
