"""What a token attended to and what its predecessors were worth to it, asked by key and drawn in table and detail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from moetui.routing import Timeline, UnsupportedError
from moetui.routing.analyses import AttentionPaid, Attribution
from moetui.tui.ink import Ink
from moetui.tui.panels.network import NetworkPanel
from moetui.tui.ramps import contrast_text
from moetui.tui.widgets.context import attention_related, attribution_related
from tests.tui.builders import HeldSession, make_info, make_step, make_timeline
from tests.tui.hosts import Host, hosted, lines_of

INFO = make_info(4, 8, 2)


class AskedSession(HeldSession):
    """Answers questions when it is told to."""

    analyses: tuple[str, ...] = ("attention", "attribution")

    def __init__(self, source: Timeline) -> None:
        super().__init__(source, INFO)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.waiting: list[Future[Any]] = []

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        self.asked.append((name, arguments))
        self.waiting.append(Future())
        return self.waiting[-1]


def paid(token: int) -> AttentionPaid:
    """All layers but L2 know; at each, all attention goes to the token of the layer's number."""
    shares = np.zeros((3, token + 1), np.float32)
    for row, layer in enumerate((0, 1, 3)):
        shares[row, layer] = 1
    return AttentionPaid(np.arange(token + 1), (0, 1, 3), shares, (4, 4, 4), 0.25)


def worth(token: int) -> Attribution:
    output = np.array([3.0, 1.0], np.float32)
    routing = np.array([[0.0, 0.5], [0.1, 0.1], [0.0, 0.0], [np.nan, np.nan]], np.float32)
    return Attribution(np.array([token - 1, token]), token - 1, " the", output, routing)


@asynccontextmanager
async def asked(
    size: tuple[int, int] = (120, 40), ink: Ink | None = None
) -> AsyncIterator[tuple[NetworkPanel, AskedSession, Pilot[None]]]:
    session = AskedSession(make_timeline(INFO, prompt=4, decode=10))
    panel = NetworkPanel()
    async with hosted(panel, size, ink) as pilot:
        panel.refresh_from(session.timeline.snapshot(), session)
        panel.tokens.go_to(9)
        panel.tokens.focus()
        await pilot.pause()
        yield panel, session, pilot


def column(panel: NetworkPanel) -> list[str]:
    """The cells of the column of shares, the header first; empty without one."""
    plan = panel.tokens._plan
    assert plan is not None
    found = [each for each in plan.columns if each.name is None]
    return [line[found[0].start :][: found[0].width].strip() for line in lines_of(panel.tokens)] if found else []


async def test_attention_is_shown_by_layer_then_by_all_then_no_more() -> None:
    async with asked() as (panel, session, pilot):
        await pilot.press("A")
        assert session.asked == [("attention", {"branch": 0, "sequence": 0, "position": 9})]
        assert "asking the model" in str(panel.tokens.border_title)
        session.waiting[0].set_result(paid(9))
        await pilot.pause()
        assert "attention of 9, L0" in str(panel.tokens.border_title)
        assert column(panel)[:4] == ["paid", "100%", "0%", "0%"]
        assert column(panel)[10:13] == ["0%", "", ""], "tokens after it were not there yet"
        await pilot.press("right_square_bracket")
        assert column(panel)[1:3] == ["0%", "100%"]
        (line,) = [each for each in lines_of(panel.detail) if "paid L1" in each]
        assert "mean of 4 heads, 25% rerouted" in line, "in few words where the whole has no room"
        await pilot.press("right_square_bracket")
        assert "L2: none there" in str(panel.tokens.border_title)
        assert any("forms no weights" in each for each in lines_of(panel.detail))
        await pilot.press("A")
        assert "all 3 layers" in str(panel.tokens.border_title)
        assert column(panel)[1:5] == ["33%", "33%", "0%", "33%"]
        await pilot.press("A")
        assert column(panel) == []
        assert any("paid L2" in each for each in lines_of(panel.detail)), "what is known stays in the detail"
        await pilot.press("A")
        assert len(session.asked) == 1, "what is known is not asked again"


async def test_an_answer_stays_with_its_token_while_others_are_looked_at() -> None:
    async with asked() as (panel, session, pilot):
        await pilot.press("A")
        session.waiting[0].set_result(paid(9))
        await pilot.pause()
        await pilot.press("up")
        assert "attention of 9" in str(panel.tokens.border_title)
        assert not any("paid" in each for each in lines_of(panel.detail))
        await pilot.press("A")
        assert session.asked[-1][1]["position"] == 8
        session.waiting[1].set_result(paid(8))
        await pilot.pause()
        assert "attention of 8" in str(panel.tokens.border_title)


async def test_a_new_run_takes_the_answer_off_the_table() -> None:
    async with asked() as (panel, session, pilot):
        await pilot.press("A")
        session.waiting[0].set_result(paid(9))
        await pilot.pause()
        assert column(panel)
        session.source.append(make_step(INFO, 99, np.zeros((1, 4, 8), np.float32), branch=1))
        panel.refresh_from(session.timeline.snapshot(), session)
        await pilot.pause()
        assert column(panel) == []
        assert any("paid" in each for each in lines_of(panel.detail))


@pytest.mark.parametrize("width", [200, 150, 120, 110, 100])
async def test_a_note_is_whole_beside_its_shares(width: int) -> None:
    async with asked((width, 40)) as (panel, session, pilot):
        for key, answer in (("A", paid(9)), ("W", worth(9))):
            await pilot.press(key)
            session.waiting[-1].set_result(answer)
            await pilot.pause()
        lines = [each.rstrip() for each in lines_of(panel.detail) if "why next" in each or "paid" in each]
        assert len(lines) == 2
        assert lines[0].endswith(("mean of 4 heads", "heads, 25% rerouted", "25% of the routers chose otherwise in it"))
        assert lines[1].endswith(("  estimate", 'replaced by "·the"'))
        assert all("%  " in line for line in lines), "the largest share is always there"


async def test_another_question_cancels_the_one_that_waits() -> None:
    async with asked() as (panel, session, pilot):
        await pilot.press("A", "W")
        await pilot.pause()
        assert session.waiting[0].cancelled()
        assert "asking the model" in str(panel.tokens.border_title)
        session.waiting[1].set_result(worth(9))
        await pilot.pause()
        assert column(panel)[9:11] == ["75%", "25%"]
        (line,) = [each for each in lines_of(panel.detail) if "why next" in each]
        assert 'estimate: each of the newest 2 replaced by "·the"' in line or line.rstrip().endswith("  estimate")
        await pilot.press("W")
        assert "routing at L0" in str(panel.tokens.border_title)
        assert column(panel)[9:11] == ["0%", "100%"]


async def test_other_interventions_make_an_answer_stale() -> None:
    async with asked() as (_, session, pilot):
        await pilot.press("A")
        session.waiting[0].set_result(paid(9))
        await pilot.pause()
        session.interventions = ("ban",)
        await pilot.press("A")
        assert len(session.asked) == 2


async def test_what_cannot_be_had_is_said() -> None:
    async with asked() as (panel, session, pilot):
        await pilot.press("A")
        session.waiting[0].set_exception(UnsupportedError("no layer\x1b[2J of it", "try another"))
        await pilot.pause()
        app = pilot.app
        assert isinstance(app, Host)
        assert app.said[-1] == "no layer␛[2J of it\ntry another"
        assert column(panel) == []
        assert "asking" not in str(panel.tokens.border_title)
        session.analyses = ()
        await pilot.press("W")
        assert len(session.asked) == 1, "where nobody answers, the key is none"


@pytest.mark.parametrize("ink", [Ink(), Ink("256"), Ink("16"), Ink("none"), Ink("none", ascii_only=True)])
async def test_more_attention_stands_out_more_whatever_the_colours(ink: Ink) -> None:
    async with asked((80, 24), ink) as (panel, session, pilot):
        await pilot.press("A")
        session.waiting[0].set_result(paid(9))
        await pilot.pause()
        panel.tokens.go_to(0)
        panel.tokens.go_to(2)
        strip = panel.tokens.render_line(1)
        if ink.shaded:
            high = ink.levels()[15]
            grounds = [segment.style.bgcolor.triplet for segment in strip if segment.style and segment.style.bgcolor]
            assert high in grounds
            assert contrast_text(high)
        else:
            assert ink.glyphs.level(15) + "100%" in strip.text
        assert column(panel)[0] == "paid"
        assert strip.cell_length == panel.tokens.content_size.width


def test_shares_in_words() -> None:
    def texts(number: int) -> str:
        return f"t{number}"

    view = attention_related(9, paid(9), texts, None)
    assert view.note.endswith("25% of the routers chose otherwise in it")
    assert [text for text, _ in view.most] == ["t0", "t1", "t3"]
    assert attribution_related(9, worth(9), texts, None).note == 'estimate: each of the newest 2 replaced by "·the"'
    none = attribution_related(9, worth(9), texts, INFO.sites[2])
    assert (none.most, none.note) == ((), "no replacement changed the routing at L2")
    unknown = attribution_related(9, worth(9), texts, INFO.sites[3])
    assert (unknown.most, unknown.note) == ((), "no expert of L3 took this token")
    assert attribution_related(9, worth(9), texts, INFO.sites[1]).shares == pytest.approx({8: 0.5, 9: 0.5})
