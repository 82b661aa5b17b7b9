from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings
from moetui.session.options import LiveOptions
from tests.session.live_sessions import Live, Log, Make

MODEL = "random:mixtral"


@pytest.fixture
def live() -> Iterator[Make]:
    """Makes sessions on a small random model; all are closed in the end, and no thread is left."""
    threads = set(threading.enumerate())
    made: list[Live] = []

    def make(prompt: str = "", n: int = 12, *, opened: bool = True, model: str = MODEL, **options: Any) -> Live:
        settings = options.pop("settings", GenerationSettings(max_new_tokens=n))
        log = Log()
        session = Live(LiveOptions(LoadRequest(model), prompt=prompt, settings=settings, **options), on_event=log)
        session.log = log
        made.append(session)
        if opened:
            session.open()
            if not options.get("paused"):
                session.settle()
        return session

    yield make
    for session in made:
        session.close(5.0)
    for thread in set(threading.enumerate()) - threads:
        if thread.name.startswith("moetui"):
            thread.join(5.0)
            assert not thread.is_alive(), thread
