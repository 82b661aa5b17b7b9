"""What users' inspectors say, on the Elements tab."""

from __future__ import annotations

import re
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from moetui.routing import UsageError
from moetui.session import Capability
from moetui.tui.messages import Stop
from moetui.tui.panels.outline_view import OutlineView
from tests.tui.scripted import LIVE, ScriptedSession
from tests.tui.test_app_shell import running, shown, until


async def test_what_inspectors_say_of_the_selected_module_is_asked_one_at_a_time_and_at_each_stop() -> None:
    asked: list[tuple[Any, Future[Any]]] = []

    class Plugged(ScriptedSession):
        plugins = SimpleNamespace(inspectors=[lambda module, path: {"rank of all of it": 7, "\x1b[2Jname": path}])

        def call(self, function: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if function.__module__ == "moetui.console.inspecting":  # and not for the weights
                asked.append((function, future))
            return future

    class Model:
        def get_submodule(self, path: str) -> object:
            return self

    def answer() -> None:
        function, future = asked[-1]
        future.set_result(function(Model(), None))

    session = Plugged(capabilities=LIVE | Capability.INSPECT)
    async with running(session, (120, 40)) as (app, pilot):
        await app.action_tab("elements")
        await until(pilot, lambda: "being asked" in shown(app))
        answer()
        await until(pilot, lambda: re.search(r"rank of all … 7", shown(app)))
        assert "\x1b" not in shown(app)
        app.query_one(OutlineView).focus()
        for _ in range(3):  # the first is asked about, the others are while that is under way
            await pilot.press("down")
        await until(pilot, lambda: len(asked) == 2 and "being asked" in shown(app))
        answer()
        await until(pilot, lambda: len(asked) == 3)
        answer()
        path = app.query_one(OutlineView).entry.path  # type: ignore[union-attr]
        await until(pilot, lambda: re.search(rf"name +{re.escape(path)} ", shown(app)))
        panel: Any = app.query_one("#elements")
        panel.show_stop(Stop(3))
        panel._show()
        assert re.search(r"rank of all … 7", shown(app)), "what was said before stays until there is an answer"
        assert len(asked) == 4
        asked[-1][1].set_exception(UsageError("look does not work: KeyError: 'x'"))
        await until(pilot, lambda: "look does not work: KeyError: 'x'" in shown(app))
