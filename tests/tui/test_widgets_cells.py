"""Numbers, texts and colours measured in cells."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from moetui.routing import drawable
from moetui.tui.cells import Line, chance, fit, number, short
from moetui.tui.glyphs import ASCII, UNICODE, expert_color, expert_digit, waterfall_bar
from moetui.tui.ink import Ink
from moetui.tui.ramps import (
    LEVELS,
    RAMP_NAMES,
    contrast_text,
    diverging_ramp,
    legible,
    luminance,
    nearest_256,
    ramp,
    reduce_color,
    xterm_rgb,
)
from tests.tui.builders import HOSTILE

RED, BLUE = Style.parse("red"), Style.parse("blue")


@given(st.text(), st.integers(0, 30), st.sampled_from(["left", "right", "center"]))
def test_a_fitted_text_has_exactly_its_width(text, width, align):
    assert cell_len(fit(drawable(text), width, align)) == width


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_fit_too(text):
    assert cell_len(fit(drawable(text, spaces=True), 12)) == 12


def test_a_wide_character_is_not_cut_in_half():
    assert fit("日本語", 4) == "日 …"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.714, ".71"), (-0.214, "-.21"), (1.0, "1.00"), (-0.001, ".00"), (math.nan, "–"), (math.inf, "inf")],
)
def test_numbers_have_no_needless_zero(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.50"), (22.44, "22.4"), (512.3, "512"), (9999, "9999"), (41_200, "41k"), (3.4e6, "3.4M"), (math.nan, "–")],
)
def test_magnitudes_are_short(value, text):
    assert short(value) == text
    assert len(text) <= 5


def test_a_small_probability_is_not_nothing():
    assert [chance(p) for p in (0.0, 0.001, 0.004999, 0.005, 0.83, 1.0, math.nan)] == [
        ".00", "<.01", "<.01", ".01", ".83", "1.00", "–",
    ]  # fmt: skip


def test_neighbours_of_one_style_become_one_segment():
    strip = Line().add("ab", RED).add("cd", RED).add("e", BLUE).space(2, BLUE).strip(10, BLUE)
    assert [segment.text for segment in strip] == ["abcd", "e       "[:1] + "  " + "   "]
    assert strip.cell_length == 10
    assert strip.text == "abcde     "


def test_a_line_is_cut_to_the_width_of_the_strip():
    assert Line().add("日本語", RED).strip(5, RED).text == "日本 "
    assert Line().extend(Line().add("abcdef", RED).clip(3)).add("x", BLUE).strip(5, RED).text == "abcx "


@pytest.mark.parametrize("name", RAMP_NAMES)
@pytest.mark.parametrize("depth", ["truecolor", "256"])
def test_more_is_lighter_on_dark_and_darker_on_light(name, depth):
    levels = [luminance(color) for color in ramp(name, depth)]
    assert len(levels) == LEVELS
    steps = [b - a for a, b in itertools.pairwise(levels)]
    assert min(steps) > -0.02, "the order of levels must show in lightness alone"
    assert levels[-1] > 0.5 > 0.1 > levels[0]
    assert ramp(name, depth, dark=False) == ramp(name, depth)[::-1]


def test_the_256_colours_of_viridis_have_no_greys():
    assert not [color for color in ramp("viridis", "256") if max(color) - min(color) < 40]


@pytest.mark.parametrize("ground", [(15, 18, 22), (252, 252, 250)])
def test_characters_in_the_colours_of_a_ramp_can_be_read(ground):
    for name in RAMP_NAMES:
        for color in ramp(name, "truecolor", dark=ground[0] < 100):
            low, high = sorted((luminance(legible(color, ground)), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3.0
    assert legible((253, 231, 37), (15, 18, 22)) == (253, 231, 37)


def test_a_diverging_ramp_is_plain_in_the_middle_and_loud_at_both_ends():
    levels = [luminance(color) for color in diverging_ramp("truecolor")]
    assert levels.index(min(levels)) in (7, 8)
    assert levels[0] > 0.3
    assert levels[-1] > 0.3


def test_reduced_colours_are_entries_of_the_palette():
    for expert in range(40):
        color = reduce_color(expert_color(expert), "256")
        assert color == xterm_rgb(nearest_256(color))
        assert reduce_color(expert_color(expert), "none") is None


def test_experts_of_one_model_do_not_share_a_colour():
    assert len({expert_color(expert) for expert in range(512)}) == 512
    first = [expert_color(expert) for expert in range(8)]
    nearest = min(sum((x - y) ** 2 for x, y in zip(a, b)) for i, a in enumerate(first) for b in first[:i])
    assert nearest > 60**2


def test_every_expert_shows_on_dark_and_on_light_ground():
    for expert in range(512):
        dark, light = Ink(dark=True).expert(expert), Ink(dark=False).expert(expert)
        assert (luminance(dark) + 0.05) / 0.055 > 3
        assert 1.05 / (luminance(light) + 0.05) > 3.4


def test_text_on_a_ramp_colour_can_be_read():
    for name in RAMP_NAMES:
        for color in ramp(name, "truecolor"):
            a, b = sorted((luminance(color), luminance(contrast_text(color))))
            assert (b + 0.05) / (a + 0.05) > 4


def test_expert_digits_are_one_character():
    assert [expert_digit(e, 8) for e in (0, 7)] == ["0", "7"]
    assert [expert_digit(e, 36) for e in (0, 9, 10, 35)] == ["0", "9", "a", "z"]
    assert [expert_digit(e, 128) for e in (0, 3, 4, 127)] == ["0", "0", "1", "v"]
    assert len({expert_digit(e, 512) for e in range(512)}) <= 36


def test_sparklines_are_as_wide_as_asked_and_leave_unknown_values_blank():
    assert UNICODE.spark([0, 1, math.nan, 2], 6) == "  ▁▅ █"
    assert UNICODE.spark([5, 5, 5], 3) == "▅▅▅"
    assert UNICODE.spark([], 4) == "    "
    assert ASCII.spark(list(range(20)), 8).isascii()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40))
def test_a_bar_stays_inside_and_never_vanishes(a, b, width):
    start, stop = sorted((a, b))
    first, bar = waterfall_bar(start, stop, width)
    assert bar
    assert first >= 0
    assert first + len(bar) <= width
    assert waterfall_bar(start, stop, width, ascii_only=True)[1].isascii()


def test_ascii_words_have_no_special_characters():
    assert Ink("none", True).words("last 64 tokens · 2× – …").isascii()
    assert Ink().words("2×") == "2×"
