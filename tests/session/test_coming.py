"""A session that is still to be made says what the one in its place will say, and does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.engine.models import LoadRequest
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings, RunState
from moetui.session import ComingSession, LiveOptions, LiveSession, Playback, ReplaySession, Session

GOLDEN = Path(__file__).parent.parent / "trace" / "golden" / "v1.msgpack"


def live() -> Session:
    return LiveSession(LiveOptions(LoadRequest("demo"), settings=GenerationSettings(max_new_tokens=7)))


def replay() -> Session:
    return ReplaySession(GOLDEN, speed=4.0)


COMING = [
    ComingSession("demo", live, settings=GenerationSettings(max_new_tokens=7)),
    ComingSession(str(GOLDEN), replay, playback=Playback(0, 0, 4.0)),
]


@pytest.mark.parametrize("coming", COMING, ids=["live", "replay"])
def test_it_stands_for_what_will_be_made(coming: Session) -> None:
    assert isinstance(coming, ComingSession)
    made = coming.make()
    try:
        assert (coming.name, coming.capabilities) == (made.name, made.capabilities)
        assert coming.state is made.state is RunState.LOADING
        assert (coming.playback is None) == (made.playback is None)
        if coming.playback is not None and made.playback is not None:
            assert coming.playback.speed == made.playback.speed
        else:
            assert coming.settings == made.settings
            for name in ("info", "reason", "branches", "findings", "interventions", "costs"):
                assert getattr(coming, name) == getattr(made, name), name
    finally:
        made.close()


@pytest.mark.parametrize("coming", COMING, ids=["live", "replay"])
def test_what_is_asked_of_it_too_early_is_refused_and_closing_it_closes_nothing(coming: Session) -> None:
    for ask in (coming.open, coming.events, lambda: coming.generate("once"), lambda: coming.seek(3)):
        with pytest.raises(UsageError, match="not"):
            ask()
    coming.pause()
    coming.close()
