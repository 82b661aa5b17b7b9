"""Lines longer than the room they are typed in: the end that is typed at is what one sees."""

from __future__ import annotations

import pytest

from tests.tui.scripted import ScriptedSession
from tests.tui.test_app_shell import running, shown, until
from tests.tui.test_in_order import burst

TEXT = " ".join(f"word{number}" for number in range(30))


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_what_is_longer_than_its_line_is_seen_where_it_is_typed(size: tuple[int, int]) -> None:
    async with running(ScriptedSession(), size) as (app, pilot):
        burst(app, *TEXT)
        await until(pilot, lambda: shown(app).count("word28 word29") == 1)
        burst(app, "home")
        await until(pilot, lambda: "word0 word1" in shown(app))
        app._leave_prompt()
        burst(app, *"/entropy>1.1 entropy>1.2 entropy>1.3 entropy>1.4 margin<0.25")
        await until(pilot, lambda: "margin<0.25" in shown(app))
        burst(app, "escape", "3")
        await until(pilot, lambda: bool(app.query("#console-input")) and app.focused is app.query_one("#console-input"))
        burst(app, *TEXT)
        await until(pilot, lambda: "word29" in shown(app))
