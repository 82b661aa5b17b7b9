"""A window on a timeline is itself one, and is read in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.console import Console, window
from moetui.console.window import Window, gather
from moetui.routing.stats import compute_stats
from moetui.session import LiveOptions, LiveSession, ReplaySession


def test_a_window_counts_what_lies_in_it_alone(replay: ReplaySession) -> None:
    view = replay.snapshot()
    part = Window(view, 5, 12)
    assert (part.first, part.end) == (5, 12)
    assert part.tokens(0, 99).token_id.tolist() == view.tokens(5, 12).token_id.tolist()
    assert part.routing(8, 99).indices.tolist() == view.routing(8, 12).indices.tolist()
    assert part.steps().index.tolist() == [0, 1, 2, 3, 4, 5]
    assert compute_stats(part, replay.info)["tokens"] == 7
    assert (Window(view, 20, 3).first, Window(view, 20, 3).end) == (20, 20)
    assert (Window(view, -5, 999).first, Window(view, -5, 999).end) == (0, 30)


@pytest.mark.parametrize("size", [1, 7, 30, 31])
def test_pieces_make_up_the_whole(replay: ReplaySession, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(window, "chunk_tokens", lambda sites: size)
    view = Window(replay.snapshot(), 2)
    keep = np.arange(28) % 3 > 0
    found = gather(view, keep, lambda block: block.indices[:, 1])
    assert found.tolist() == view.routing(2, 30).indices[keep][:, 1].tolist()
    assert gather(view, keep, lambda block: None) is None


def test_pieces_of_other_widths_are_filled_up(replay: ReplaySession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "chunk_tokens", lambda sites: 20)
    view = replay.snapshot()
    found = gather(view, np.ones(30, np.bool_), lambda block: block.indices[:, 1, : 1 + (block.indices.shape[0] > 10)])
    assert found.shape == (30, 2)
    assert (found[20:, 1] == 0xFFFF).all()


def test_commands_on_a_model_that_is_not_there_yet_say_so() -> None:
    from moetui.console.commands import registry
    from moetui.engine.models import LoadRequest

    session = LiveSession(LiveOptions(LoadRequest("random:mixtral")))
    console = Console(session)
    try:
        for line in [*registry().names, "1 + 1", "ban_experts 1", "generate x", "expert L0 1", "why 1", "find layer:1"]:
            result = console.run(line)
            assert not result.error.startswith("internal error"), (line, result.error)
        assert console.run("model").error == "the model is not loaded yet"
        assert console.run("ban_experts 1").error == "experts: the model is not loaded yet"
        assert console.complete("ban_experts ", 12).words == ()
    finally:
        session.close()
