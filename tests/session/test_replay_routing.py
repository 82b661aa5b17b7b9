"""Runs with the routing of a recording, opened by its path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moetui.routing import ModelInfo, Site, TraceError, UsageError
from moetui.routing.events import GenerationSettings
from moetui.routing.interventions import RandomRouting, ReplayRouting, SetTopK
from moetui.trace import TraceWriter
from tests.session.live_sessions import Live, Make

PROMPT = "some words to begin with"
SETTINGS = GenerationSettings(max_new_tokens=8)


def routing(session: Live) -> tuple[list[int], list[list[list[int]]]]:
    """Token ids of the branch stood on, from its start, and the experts of each."""
    view = session.timeline.snapshot()
    line = session.tree.line(session.branches[-1].id)
    tokens = view.tokens(0, view.end)
    rows = [
        row
        for branch, stop in line
        for row in np.flatnonzero(tokens.branch == branch).tolist()
        if stop is None or tokens.position[row] < stop
    ]
    return tokens.token_id[rows].tolist(), np.sort(view.routing(0, view.end).indices[rows], -1).tolist()


def test_a_run_follows_the_branch_that_a_recording_ends_on(live: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    session = live(PROMPT, settings=SETTINGS)
    plain = routing(session)
    session.set_interventions([RandomRouting(3)])
    session.fork(session.timeline.snapshot().end - 4, name="other")
    session.settle()
    other = routing(session)
    assert other[1] != plain[1]
    session.save(str(path))
    session.set_interventions([ReplayRouting(str(path))])
    session.generate(PROMPT, SETTINGS)
    session.settle()
    assert routing(session) == other
    path.unlink()  # what is in force stays so, and comes back by undo
    session.set_interventions([])
    session.set_interventions([ReplayRouting(str(path)), SetTopK(1)])
    assert len(session.interventions) == 2


def test_what_cannot_be_read_or_is_of_another_model_changes_nothing(live: Make, tmp_path: Path) -> None:
    here = live(PROMPT, settings=SETTINGS)
    (tmp_path / "text.msgpack").write_text("no trace")
    for name, message in (("nothing.msgpack", "no such file"), ("text.msgpack", "is no moetui trace")):
        with pytest.raises(TraceError, match=message):
            here.set_interventions([ReplayRouting(str(tmp_path / name))])
    site = Site(0, "L0", 0, "layers.0.experts", "layers.0.gate", 4, 4, 2)
    TraceWriter(tmp_path / "other.msgpack", ModelInfo("toy", "ToyForCausalLM", "toy", (site,))).close()
    with pytest.raises(UsageError, match="of another model"):
        here.set_interventions([ReplayRouting(str(tmp_path / "other.msgpack"))])
    assert not here.interventions
