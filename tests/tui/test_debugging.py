"""The debugger's verbs by key: the list of breakpoints, where a run stopped, fork, rewind, force, compare."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from moetui.routing import UnsupportedError, query
from moetui.routing.branches import BranchTree
from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import Branch, BranchChanged, BreakpointHit, GenerationSettings, RunState
from moetui.session import Capability
from moetui.tui.app import MoetuiApp
from moetui.tui.breakpoints import BreakpointRows, BreakpointsScreen
from moetui.tui.lines import LineWidget
from moetui.tui.panels.console_input import ConsoleInput
from moetui.tui.widgets.filter_line import FilterLine
from tests.tui.scripted import LIVE, ScriptedSession
from tests.tui.test_app_shell import PROMPT, calm, line, running, shown, until
from tests.tui.test_in_order import burst


class Debugged(ScriptedSession):
    """A scripted session with breakpoints and a way back."""

    def __init__(self) -> None:
        super().__init__(capabilities=(LIVE | Capability.REWIND) & ~Capability.PYTHON)
        self.breakpoints: list[Breakpoint] = []
        self._last = 0

    def add_breakpoint(
        self, expression: str, *, log_only: bool = False, temporary: bool = False, ignore: int = 0
    ) -> Breakpoint:
        query.parse(expression)
        self._last += 1
        self.breakpoints.append(Breakpoint(self._last, expression, log_only, temporary, ignore))
        return self.breakpoints[-1]

    def change_breakpoint(self, number: int, **changes: Any) -> Breakpoint:
        changes = {name: value for name, value in changes.items() if value is not None}
        query.parse(changes.get("expression", "layer:0"))
        self.breakpoints = [replace(point, **changes) if point.id == number else point for point in self.breakpoints]
        return next(point for point in self.breakpoints if point.id == number)

    def remove_breakpoint(self, number: int) -> None:
        self.breakpoints = [point for point in self.breakpoints if point.id != number]

    def run_to(self, position: int) -> None:
        self.asked.append(("run_to", position))

    def finish(self) -> None:
        self.asked.append(("finish", None))

    def restart(self) -> None:
        self.asked.append(("restart", None))

    def rewind(self, token: int) -> None:
        self.asked.append(("rewind", token))

    def fork(
        self, token: int, settings: GenerationSettings | None = None, name: str = "", *, paused: bool = False
    ) -> None:
        self.asked.append(("fork", (token, paused)))


async def opened(app: MoetuiApp, pilot: Pilot[Any]) -> BreakpointsScreen:
    app._leave_prompt()
    await pilot.press("b")
    await until(pilot, lambda: isinstance(app.screen, BreakpointsScreen) and bool(app.screen.query(BreakpointRows)))
    assert isinstance(app.screen, BreakpointsScreen)
    return app.screen


def rows(screen: BreakpointsScreen) -> list[str]:
    found = screen.query_one(BreakpointRows)
    return [found.render_line(y + 1).text.strip() for y in range(max(1, found.total))]


def held(session: Debugged) -> list[tuple[str, bool, bool, int, bool]]:
    return [(p.expression, p.log_only, p.temporary, p.ignore, p.enabled) for p in session.breakpoints]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_breakpoints_are_added_changed_and_deleted_by_key(size: tuple[int, int]) -> None:
    session = Debugged()
    async with running(session, size) as (app, pilot):
        screen = await opened(app, pilot)
        assert "type a condition" in rows(screen)[0]
        if size >= (80, 24):
            said = "".join(
                screen.query_one(f"#breakpoint-{k}", LineWidget).render_line(0).text for k in ("keys", "more-keys")
            )
            assert [word for word in ("add", "once", "ignore", "delete", "close") if word not in said] == []
        await pilot.press("a", *"entropy<0.4", "enter")
        await pilot.press("a", *"margin<0.01", "enter")
        await until(pilot, lambda: len(session.breakpoints) == 2)
        await pilot.press("space", "l", "plus", "plus", "minus")
        await until(pilot, lambda: held(session)[-1] == ("margin<0.01", True, False, 1, False))
        await pilot.press("o")
        await until(pilot, lambda: held(session)[-1] == ("margin<0.01", False, True, 1, False))
        await pilot.press("l")
        await until(pilot, lambda: held(session)[-1] == ("margin<0.01", True, False, 1, False))
        await pilot.press("up", "o", "enter")
        assert screen.query_one(FilterLine).value == "entropy<0.4"
        await pilot.press(*" and layer:5", "enter")
        await until(pilot, lambda: ("entropy<0.4 and layer:5", False, True, 0, True) in held(session))
        assert ("stops once" in rows(screen)[0]) == (size[0] > 40)  # changed in its place
        assert "entropy<0.4 and layer:5" in rows(screen)[0]
        assert [point.id for point in session.breakpoints] == [1, 2]
        await pilot.press("d")
        assert [point.expression for point in session.breakpoints] == ["margin<0.01"]
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


async def test_the_fields_that_a_condition_may_use_are_listed_where_it_is_typed() -> None:
    session = Debugged()
    session.add_breakpoint("layer:5")
    async with running(session, (80, 24)) as (app, pilot):
        screen = await opened(app, pilot)
        fields = screen.query_one("#breakpoint-fields", Static)
        assert not fields.display
        await pilot.press("a")
        await until(pilot, lambda: fields.display and "load_cv" in shown(app))
        listed = " ".join(shown(app).split())
        assert [name for name in query.FIELDS if name not in listed] == []
        assert "layer:5" in rows(screen)[0], "what there is stays in sight"
        await pilot.press(*"marg")
        await until(pilot, lambda: "margin   k-th minus k+1-th score at the site: margin<0.05" in shown(app))
        assert "load_cv" not in shown(app)
        await pilot.press(*"in")
        await until(pilot, lambda: "margin   k-th minus" in shown(app))
        await pilot.press(*"<0.1 and phase:")
        await until(pilot, lambda: "prefill   the prompt" in shown(app))
        assert "phase   phase:prefill  phase:decode" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: not fields.display)


async def test_what_is_wrong_with_a_condition_is_said_where_it_is_typed() -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        screen = await opened(app, pilot)
        await pilot.press("a", *"entropy <")
        await until(pilot, lambda: "is missing before the end" in shown(app))
        await pilot.press("enter")
        assert not session.breakpoints
        assert isinstance(app.focused, Input)
        await pilot.press(*" 0.4 and lay")
        await until(pilot, lambda: "is missing before the end" not in shown(app))
        await pilot.press("tab", *"5", "enter")
        await until(pilot, lambda: held(session)[0][0] == "entropy < 0.4 and layer:5")
        await pilot.press("a", *"layer:99", "enter")
        await until(pilot, lambda: "there is no layer 99 (layers: 0 to 5)" in shown(app))
        assert len(session.breakpoints) == 1
        await pilot.press("escape")
        await pilot.press("a", *"nonsense", "escape")
        assert len(session.breakpoints) == 1
        assert screen.query_one(FilterLine).value == ""
        assert app.focused is screen.query_one(BreakpointRows)


async def test_a_condition_typed_in_one_burst_lands_in_the_dialog() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        burst(app, *"baentropy<1\r", "escape", *"2")
        await until(pilot, lambda: app.tab == "elements")
        assert held(session) == [("entropy<1", False, False, 0, True)]


@pytest.mark.parametrize("condition", ["layer:3", "expert:3", "branch:1", "not nan"])
async def test_with_no_breakpoint_what_is_typed_is_a_condition(condition: str) -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        app._leave_prompt()
        burst(app, *f"b{condition}")
        await until(pilot, lambda: [line.value for line in app.screen.query(Input)] == [condition])
        await until(pilot, lambda: "adds it" in shown(app))


async def test_escape_leaves_an_empty_list_at_once_and_first_what_is_typed() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        await opened(app, pilot)
        await pilot.press("escape")
        assert len(app.screen_stack) == 1
        screen = await opened(app, pilot)
        await pilot.press("a", "n", "escape")
        assert (screen.query_one(FilterLine).value, len(app.screen_stack)) == ("", 2)
        await pilot.press("l", "escape")
        assert len(app.screen_stack) == 1


async def test_a_condition_that_is_refused_stays_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Debugged()

    def refuse(_: str) -> None:
        raise UnsupportedError("entropy: the router logits are not captured", "leave out --no-logits")

    monkeypatch.setattr(session, "add_breakpoint", refuse)
    async with running(session, (120, 40)) as (app, pilot):
        screen = await opened(app, pilot)
        await pilot.press(*"entropy<1", "enter")
        await until(pilot, lambda: "leave out --no-logits" in shown(app))
        await calm(app, pilot)
        assert screen.query_one(FilterLine).value == "entropy<1"
        assert isinstance(app.focused, Input)
        assert "leave out --no-logits" in shown(app)


async def test_a_run_goes_to_its_end_or_begins_again_by_key() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        await pilot.press("E")
        assert ("finish", None) not in session.asked  # nothing runs
        session.set_state(RunState.PAUSED)
        await until(pilot, lambda: "paused" in shown(app))
        await pilot.press("E", "X")
        assert session.asked[-2:] == [("finish", None), ("restart", None)]


async def test_keys_of_a_run_say_that_none_goes_on() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        for key in ("space", "n", "s", "c", "x", "E", "f10"):
            app._answered = -math.inf
            app.clear_notifications()
            burst(app, key, key)
            await until(pilot, lambda: bool(app._notifications))
            await calm(app, pilot)
            assert [one.message for one in app._notifications] == ["nothing goes on\np types a prompt"], key
        assert session.asked == [("open", None)]
        app._answered = -math.inf
        session.generate(PROMPT)
        session.set_state(RunState.FINISHED)
        await calm(app, pilot)
        await pilot.press("n")
        assert "X runs the last one again" in shown(app)


async def test_going_on_right_behind_a_step_that_still_runs_goes_on() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        app._leave_prompt()
        session.set_state(RunState.RUNNING)
        await pilot.press("c")
        assert session.asked[-1] == ("resume", None)
        assert not app._notifications


async def test_hits_are_counted_while_the_list_is_open() -> None:
    session = Debugged()
    session.add_breakpoint("entropy<1")
    async with running(session) as (app, pilot):
        screen = await opened(app, pilot)
        session.breakpoints = [replace(session.breakpoints[0], hits=37)]
        await until(pilot, lambda: " 37 " in rows(screen)[0])


async def test_a_session_without_breakpoints_has_no_list_of_them() -> None:
    async with running(ScriptedSession()) as (app, pilot):
        app._leave_prompt()
        await pilot.press("b")
        assert len(app.screen_stack) == 1


async def test_the_line_of_a_stop_says_why_and_how_to_go_on() -> None:
    for size in ((150, 40), (80, 24), (40, 12)):
        session = Debugged()
        async with running(session, size) as (app, pilot):
            session.generate(PROMPT)
            session.advance(3)
            hit = BreakpointHit(1, "entropy < 0.4 and layer == 5", 7, 5, "entropy = 0.31, layer = 5", 3)
            session._mail.put(hit)
            session.set_state(RunState.PAUSED, "entropy < 0.4 and layer == 5   entropy = 0.31   (hit 3)")
            await until(pilot, lambda: "token 7 · L5" in line(app, "#state"))
            await calm(app, pilot)
            keys = app.query_one("#state-keys", LineWidget)
            said = line(app, "#state") + (line(app, "#state-keys") if keys.display else "")
            if size[0] > 40:
                for text in (
                    "‖ paused",
                    "entropy < 0.4 and layer == 5",
                    "= 0.31",
                    "hit 3",
                    "c continue",
                    "n token",
                    "F fork",
                ):
                    assert text in said, text
                assert said.count("hit 3") == 1
            await pilot.press("c")
            await until(pilot, lambda: not app.query_one("#state", LineWidget).display)


async def test_a_run_that_goes_on_from_a_hit_is_followed_again_unless_another_token_was_selected() -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        session.advance(5)
        app._leave_prompt()
        for own in (False, True):
            session._mail.put(BreakpointHit(1, "entropy < 0.4", 7, 3, "entropy = 0.31", 3))
            session.set_state(RunState.PAUSED, "entropy < 0.4")
            await until(pilot, lambda: app.selection.token == 7)
            if own:
                await pilot.press("up")
                await until(pilot, lambda: app.selection.token == 6)
            await pilot.press("c")
            await until(pilot, lambda own=own: app.selection.token == (6 if own else None))
            await calm(app, pilot)
            assert app._panels["network"].tokens.following is not own


async def test_fork_and_rewind_by_key_mean_the_selected_token() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        session.advance(5)
        session.pause()
        await calm(app, pilot)
        app._leave_prompt()
        await pilot.press("F")
        assert session.asked[-1] == ("fork", (10, True))
        session._mail.put(BreakpointHit(1, "entropy < 0.4", 7, 3, "entropy = 0.31", 3))
        await until(pilot, lambda: app.selection.token == 7)
        await pilot.press("F", "backspace")
        assert session.asked[-2:] == [("fork", (7, True)), ("rewind", 7)]


async def test_force_is_begun_and_compare_is_run_in_the_console() -> None:
    session = Debugged()
    async with running(session, (120, 40)) as (app, pilot):
        session.generate(PROMPT)
        await calm(app, pilot)
        app.selection = replace(app.selection, site=3)
        app._leave_prompt()
        await pilot.press("C")
        assert not app.screen.has_class("-drawer")  # there is nothing to compare yet
        burst(app, *"e0 7\r")
        await until(pilot, lambda: "moe› force_expert_selection 0 7 --layers 3" in shown(app))
        await pilot.press("escape")
        session.branches.append(Branch(1, 0, "two", 0, 4, session.timeline.snapshot().end))
        await calm(app, pilot)
        await pilot.press("C")
        await until(pilot, lambda: "moe› compare" in shown(app))
        assert app.query_one(ConsoleInput).value == ""


async def test_ctrl_c_closes_a_dialog_and_twice_leaves() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        await opened(app, pilot)
        await pilot.press("ctrl+c")
        assert len(app.screen_stack) == 1
        assert not app._exit
        await pilot.press("ctrl+c")
        assert app._exit


async def test_ctrl_c_in_a_dialog_pauses_a_run() -> None:
    session = Debugged()
    async with running(session) as (app, pilot):
        session.generate(PROMPT)
        await opened(app, pilot)
        await pilot.press("ctrl+c")
        assert session.state is RunState.PAUSED
        assert len(app.screen_stack) == 2


async def test_what_is_dim_elsewhere_is_read_on_the_coloured_ground_of_a_stop() -> None:
    async with running(Debugged(), (120, 40)) as (app, _):
        plain = app.query_one("#title").get_component_rich_style("line--dim", partial=True).color
        on_ground = app.query_one("#state-keys").get_component_rich_style("line--dim", partial=True).color
        assert plain is not None
        assert on_ground is not None
        assert min(on_ground.get_truecolor()) > max(plain.get_truecolor())


class Treed(ScriptedSession):
    """A scripted session that stands on one of its branches."""

    current = 0

    @property
    def tree(self) -> BranchTree:
        return BranchTree(tuple(self.branches), current=self.current)

    def stand_on(self, branch: int) -> None:
        self.current = branch
        self._mail.put(BranchChanged(branch, "switched"))


async def test_the_title_counts_towards_the_length_of_the_branch_that_is_stood_on() -> None:
    session = Treed()
    async with running(session, (120, 40)) as (app, pilot):
        for number, length in ((0, 24), (1, 99)):
            session.current = number
            session.generate("Once there was", GenerationSettings(max_new_tokens=length))
            session.advance(4)
            session.set_state(RunState.FINISHED)
            await until(pilot, lambda length=length: f"token 5/{length}" in line(app, "#title"))
        session.stand_on(0)
        await until(pilot, lambda: "token 5/24" in line(app, "#title"))
        session.stand_on(1)
        await until(pilot, lambda: "token 5/99" in line(app, "#title"))
