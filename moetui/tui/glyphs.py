"""The characters that carry numbers, with an ASCII form each, and the hue that an expert keeps everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from moetui.tui.ramps import LEVELS, RGB

_EIGHTHS = "▁▂▃▄▅▆▇█"
_LEFT_EIGHTHS = "▏▎▍▌▋▊▉█"
_ASCII_RAMP = ":-=+*#%@"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

# Twelve hues that stay apart on dark and on light ground; more experts continue by the golden angle.
_FIRST_HUES = (
    *("5b9cf5", "f28c3f", "4ec27e", "e8606b", "a97ff0", "e2cf4b"),
    *("3cc3cd", "ef7fc0", "b58a5e", "9bcf52", "8f9fbf", "f0ab94"),
)
_GOLDEN_ANGLE = 137.50776
_LIGHTNESS = (0.72, 0.62, 0.80, 0.67)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of characters: block elements and box drawing, or ASCII alone."""

    levels: str
    """Least to most, eight characters."""
    zero: str
    unknown: str
    bar: str
    half_bar: str
    block: str
    forced: str
    dropped: str
    near_tie: str
    broken: str
    dot: str
    mark: str
    prefill: str
    selected: str
    stopped: str
    ellipsis: str
    rule: str
    delta: str
    dash: str
    up: str
    down: str
    times: str
    middle: str

    def level(self, level: int) -> str:
        """The character of a level 0..15."""
        return self.levels[min(7, max(0, level * 8 // LEVELS))]

    def spark(self, values: Sequence[float], width: int, low: float | None = None, high: float | None = None) -> str:
        """One character a value, the newest last, over ``low..high`` (the values' own range unless given).

        Unknown values (NaN) leave a blank; fewer values than ``width`` leave blanks at the left.
        """
        shown = list(values)[-width:] if width > 0 else []
        known = [value for value in shown if math.isfinite(value)]
        floor = min(known, default=0.0) if low is None else low
        top = max(known, default=1.0) if high is None else high
        span = top - floor
        out = []
        for value in shown:
            if not math.isfinite(value):
                out.append(" ")
                continue
            share = 0.5 if span <= 0 else (value - floor) / span
            out.append(self.levels[min(7, max(0, int(share * 8)))])
        return "".join(out).rjust(width)


UNICODE = Glyphs(
    levels=_EIGHTHS,
    zero="·",
    unknown="?",
    bar="━",
    half_bar="╸",
    block="■",
    forced="▣",
    dropped="✗",
    near_tie="◂",
    broken="‼",
    dot="●",
    mark="◆",
    prefill="›",
    selected="▌",
    stopped="▶",
    ellipsis="…",
    rule="┆",
    delta="Δ",
    dash="–",
    up="▲",
    down="▼",
    times="×",
    middle="·",
)
ASCII = Glyphs(
    levels=_ASCII_RAMP,
    zero=".",
    unknown="?",
    bar="=",
    half_bar="-",
    block="#",
    forced="F",
    dropped="x",
    near_tie="<",
    broken="!",
    dot="E",
    mark="*",
    prefill=">",
    selected=">",
    stopped="@",
    ellipsis="~",
    rule="|",
    delta="d",
    dash="-",
    up="^",
    down="v",
    times="x",
    middle="-",
)


def digit_share(experts: int) -> int:
    """How many neighbouring experts of a site share a digit: one up to 36."""
    return max(1, -(-experts // len(_BASE36)))


def expert_digit(expert: int, experts: int = 36) -> str:
    """One character for an expert where colour is missing: base 36, of ``expert // digit_share(experts)``."""
    return _BASE36[min(len(_BASE36) - 1, expert // digit_share(experts))]


@lru_cache(maxsize=1024)
def expert_color(expert: int) -> RGB:
    """The one colour of an expert, in every table, strip, flow and chart, whatever the model."""
    if 0 <= expert < len(_FIRST_HUES):
        word = _FIRST_HUES[expert]
        return int(word[:2], 16), int(word[2:4], 16), int(word[4:], 16)
    hue = math.radians((expert * _GOLDEN_ANGLE + 20.0) % 360.0)
    return _from_oklch(_LIGHTNESS[expert % len(_LIGHTNESS)], 0.135, hue)


def _from_oklch(lightness: float, chroma: float, hue: float) -> RGB:
    """SRGB of an OKLCH colour (Ottosson 2020), clipped to the gamut."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _gamma(4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short),
        _gamma(-1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short),
        _gamma(-0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short),
    )


def _gamma(linear: float) -> int:
    clipped = min(1.0, max(0.0, linear))
    value = 12.92 * clipped if clipped <= 0.0031308 else 1.055 * clipped ** (1 / 2.4) - 0.055
    return round(value * 255)


def waterfall_bar(start: float, stop: float, width: int, *, ascii_only: bool = False) -> tuple[int, str]:
    """Cells of a bar over ``start..stop`` (shares 0..1 of ``width`` cells): its first cell and its characters.

    A bar is never thinner than one eighth of a cell, so that nothing that took time is invisible.
    """
    if width <= 0:
        return 0, ""
    first = min(width - 1, max(0, int(start * width)))
    length = max(stop * width - first, 1 / 8)
    whole = min(int(length), width - first)
    if ascii_only:
        return first, "=" * max(1, whole)
    part = int((length - whole) * 8)
    tail = _LEFT_EIGHTHS[part - 1] if part and first + whole < width else ""
    return first, "█" * whole + tail or _LEFT_EIGHTHS[0]
