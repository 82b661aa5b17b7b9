"""What is to be seen with the terminal's own colours and without any: cursors, choices, experts of a selected row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pytest
from rich.color import Color, ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.command import CommandList
from textual.scrollbar import ScrollBar
from textual.theme import Theme
from textual.widgets import Input

from moetui.tui.ink import Ink
from moetui.tui.options import Look
from moetui.tui.palette import Palette
from moetui.tui.ramps import RampName, nearest_256, ramp, xterm_rgb
from moetui.tui.themes import DARK, LIGHT, TERMINAL, THEMES, theme_name, themes_for
from moetui.tui.widgets.token_table import TokenTable
from tests.tui.builders import make_timeline
from tests.tui.hosts import hosted
from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import running, until

Colors = Literal["truecolor", "256", "16", "none"]


def look(colors: Colors) -> Look:
    return Look(colors, slow=False, ascii=False, mouse=True)


def style_of(segments: Iterable[Segment], text: str) -> Style:
    return next(segment.style for segment in segments if segment.text.startswith(text) and segment.style is not None)


@pytest.mark.parametrize("colors", ["16", "none"])
async def test_the_cursor_in_a_line_is_reversed_and_nothing_else(colors: Colors) -> None:
    async with running(ScriptedSession(), look=look(colors)) as (app, pilot):
        await pilot.press(*"once")
        field = app.query_one(Input)
        style = style_of(field.render_line(0), " ")
        assert style.reverse
        assert style.color is None or style.color.is_default
        assert style.bgcolor is None or style.bgcolor.is_default


@pytest.mark.parametrize("colors", ["truecolor", "16", "none"])
async def test_the_palette_marks_its_choice_and_stands_still(colors: Colors) -> None:
    async with running(ScriptedSession(), look=look(colors)) as (app, pilot):
        app._leave_prompt()
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen.query(CommandList) and app.screen.query_one(CommandList).highlighted == 0)
        assert isinstance(app.screen, Palette)
        words = app.screen.query_one(CommandList)

        def stands_out() -> bool:
            chosen, other = (style_of(words.render_line(y), words.render_line(y).text.strip()) for y in (0, 2))
            if colors == "truecolor":
                return chosen.bgcolor != other.bgcolor
            return bool(chosen.underline and not other.underline)

        await until(pilot, stands_out)
        assert not app.screen.query_one(Input).cursor_blink


async def test_the_experts_of_the_selected_row_keep_their_colours_in_the_terminals_theme() -> None:
    table = TokenTable()
    async with hosted(table, (100, 12)) as pilot:
        pilot.app.theme = TERMINAL.name
        pilot.app.ink = Ink("truecolor")  # type: ignore[attr-defined]
        table.show(make_timeline(decode=4).snapshot())
        await pilot.pause()
        table.select(2, 0)
        await pilot.pause()
        row = next(
            strip for strip in map(table.render_line, range(12)) if any(s.style and s.style.reverse for s in strip)
        )
        squares = [segment.style for segment in row if "■" in segment.text]
        assert squares
        assert all(style is not None and not style.reverse and style.color is not None for style in squares)


def test_names_of_colours_read_on_the_light_ground() -> None:
    from moetui.tui.themes import ON_LIGHT

    def light(color: tuple[int, int, int]) -> float:
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    ground = light((251, 251, 250))
    assert LIGHT.background == "#fbfbfa"
    assert all((ground + 0.05) / (light(ON_LIGHT.ansi_colors[n]) + 0.05) >= 4.5 for n in range(1, 16))


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_a_theme_in_256_colours_is_sent_as_what_it_says(theme: Theme) -> None:
    """Rich must find the colour meant: of two dark greys it would make one black."""
    (reduced,) = (found for found in themes_for(look("256")) if found.name == theme.name)
    sent = {}
    for name in ("primary", "accent", "foreground", "background", "surface", "panel", *theme.variables):
        before, after = (getattr(t, name, None) or t.variables[name] for t in (theme, reduced))
        if before.startswith("#"):
            sent[name] = Color.parse(after).downgrade(ColorSystem.EIGHT_BIT).number
            if name != "block-cursor-background":
                nearest = xterm_rgb(nearest_256(tuple(Color.parse(before).get_truecolor())))
                assert max(abs(a - b) for a, b in zip(xterm_rgb(sent[name] or 0), nearest)) < 10
    if theme is DARK:
        assert len({sent["background"], sent["surface"], sent["panel"]}) == 3
    if sent:
        assert sent["block-cursor-background"] != sent["block-cursor-blurred-background"]


def test_sixteen_colours_are_sent_as_those_meant() -> None:
    for index in range(16):
        assert Color.from_rgb(*xterm_rgb(index)).downgrade(ColorSystem.STANDARD).number == index


@pytest.mark.parametrize("asked", ["light-cividis", "moetui-dark-magma", "dark"])
async def test_a_theme_names_the_colours_of_its_heatmap(asked: str) -> None:
    wanted: RampName = "cividis" if "cividis" in asked else "magma" if "magma" in asked else "viridis"
    async with running(ScriptedSession(), look=look("truecolor")) as (app, pilot):
        app.theme = theme_name(asked, look("truecolor"))
        await pilot.pause()
        assert app.ink.ramp == wanted
        assert app.ink.levels() == ramp(wanted, "truecolor", dark="dark" in asked)


@pytest.mark.parametrize("ascii_only", [True, False])
async def test_a_scroll_bar_in_ascii_has_no_characters_upon_it(ascii_only: bool) -> None:
    wanted = Look("truecolor", slow=False, ascii=ascii_only, mouse=True)
    async with running(ScriptedSession(), look=wanted):
        drawn = set()
        for position in range(40):
            segments = ScrollBar.renderer.render_bar(size=10, virtual_size=57, window_size=10, position=position)
            drawn |= {segment.text for segment in segments.segments}
        assert (drawn - {"\n"} == {" "}) is ascii_only
