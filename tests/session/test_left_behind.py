"""A session that ends leaves its model as it was, whatever was done and however its last run broke off."""

from __future__ import annotations

from typing import Any

import pytest

from moetui.engine.zoo import build
from moetui.routing.events import RunState
from moetui.routing.interventions import BanExperts
from tests.engine.interception import hook_state
from tests.session.live_sessions import PATIENCE, PROMPT, Make, begin_paused

KINDS = ("mixtral", "dbrx", "ernie4_5_vl_moe", "llama4", "jetmoe", "switch_transformers", "doge")


class StopError(Exception):
    pass


@pytest.mark.parametrize("error", [None, StopError, KeyboardInterrupt])
@pytest.mark.parametrize("name", KINDS)
def test_a_session_leaves_its_model_as_it_was(live: Make, name: str, error: type[BaseException] | None) -> None:
    session = live(model=f"random:{name}")
    model: Any = session.call(lambda model, _: model).result(PATIENCE)
    assert hook_state(model) != hook_state(build(name).model), "it is watched"
    begin_paused(session, lambda: session.generate(PROMPT))
    session.set_interventions([BanExperts((0,))])
    session.add_breakpoint("position == 30")
    session.step_layer()
    session.step()
    session.settle()
    position = len(session.ids()) - 2
    if name != "switch_transformers":
        session.analyze("ablation", branch=0, site=0, expert=1).result(PATIENCE)
    session.rewind(position)
    session.settle()
    if error is not None:

        def break_off(*_: Any) -> None:
            raise error

        broken = model.get_output_embeddings().register_forward_hook(break_off)
        session.resume()
        session.settle()
        assert session.state is RunState.FAILED
        broken.remove()
    else:
        session.step()
        session.settle()
    session.close(PATIENCE)
    assert hook_state(model) == hook_state(build(name).model)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_code_that_leaves_while_the_model_is_loaded_ends_that_alone(
    live: Make, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def leave(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("moetui.engine.loading.load", leave)
    session = live()
    assert session.state is RunState.FAILED
    assert "ended its loading" in session.reason
