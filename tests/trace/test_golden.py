"""The golden files are kept forever: whatever becomes of the format, these are read, and version 1 is written so."""

from pathlib import Path

import numpy as np
import pytest

from moetui.routing import Timeline
from moetui.routing.events import BranchAdded, ModelChanged
from moetui.trace import open_trace
from tests.trace.golden_cases import EVENTS, SETTINGS, golden_info, golden_scores, golden_step, write_golden
from tests.trace.trace_cases import same_array

GOLDEN = Path(__file__).parent / "golden"


def test_the_writer_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("moetui.trace.writer.__version__", "golden")
    write_golden(tmp_path / "v1.msgpack", None)
    assert (tmp_path / "v1.msgpack").read_bytes() == (GOLDEN / "v1.msgpack").read_bytes()


@pytest.mark.parametrize("name", ["v1.msgpack", "v1.zstd.msgpack"])
def test_the_golden_files_are_read(name):
    with open_trace(GOLDEN / name) as trace:
        assert trace.complete
        assert trace.writer == "moetui golden"
        assert trace.info == golden_info("sigmoid")
        assert trace.settings == SETTINGS
        assert trace.prompt == "Once"
        expected = [event for events in EVENTS.values() for event in events if not isinstance(event, ModelChanged)]
        branch = trace.events[0].event
        assert isinstance(branch, BranchAdded)
        assert branch.branch.prompt == "Once \ufffd"
        assert [item.event for item in trace.events[1:]] == expected[1:]
        assert [item.token for item in trace.events] == [0, 0, 5, 6, 6, 7]
        view = trace.timeline
        assert view.end == 7
        assert [view.text(number) for number in range(6)] == ["Once", " caf\udcc3", "\udca9\x1b[0m", "", "日本", "‹5›"]
        steps = [golden_step(index, count, place) for index, count, place in ((0, 5, 0), (1, 1, 5), (2, 1, 6))]
        block, tokens = view.routing(0, 7), view.tokens(0, 7)
        for field in ("indices", "weights", "logits", "flags"):
            same_array(getattr(block, field), np.concatenate([getattr(step, field) for step in steps]), field)
        for field in ("sequence", "position", "token_id", "pad", "logprob"):
            same_array(getattr(tokens, field), np.concatenate([getattr(step, field) for step in steps]), field)
        same_array(tokens.margin, np.concatenate([golden_scores(step).margin for step in steps]))
        assert tokens.candidate_ids.tolist() == [[-1, -1]] * 5 + [[3, -1], [3, 3]]
        assert view.steps().duration.tolist() == [125.0] * 3
        assert view.steps().num_tokens.tolist() == [5, 1, 1]
        assert view.steps().site_ms[:, 0].tolist() == [40.0] * 3


def test_the_golden_recording_is_that_of_a_timeline():
    timeline = Timeline(golden_info())
    timeline.append(golden_step(0, 5, 0))
    with open_trace(GOLDEN / "v1.msgpack") as trace:
        same_array(trace.timeline.tokens(0, 5).ms, timeline.snapshot().tokens(0, 5).ms)
