"""The golden files are kept forever: whatever becomes of the format, these are read.

Version 2 is written as ``v2.times``; ``v2.schema`` is from before times were whole microseconds, ``v2`` from before
headers had a ``schema_version``.
"""

from pathlib import Path

import msgpack
import numpy as np
import pytest

from moetui.routing import Timeline
from moetui.routing.events import BranchAdded, ModelChanged
from moetui.trace import open_trace
from moetui.trace.layouts import LAYOUTS
from tests.trace.golden_cases import EVENTS, SETTINGS, STEPS, golden_info, golden_scores, golden_step, write_golden
from tests.trace.trace_cases import same_array

GOLDEN = Path(__file__).parent / "golden"


def test_the_writer_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("moetui.trace.writer.__version__", "golden")
    write_golden(tmp_path / "x.msgpack", None)
    assert (tmp_path / "x.msgpack").read_bytes() == (GOLDEN / "v2.times.msgpack").read_bytes()


def test_a_header_says_its_schema_version_and_those_without_it_are_read():
    headers = {name: _header(GOLDEN / name) for name in ("v1.msgpack", "v2.msgpack", "v2.schema.msgpack")}
    assert [header["version"] for header in headers.values()] == [1, 2, 2]
    assert [header.get("schema_version") for header in headers.values()] == [None, None, 2]
    assert headers["v2.schema.msgpack"] == {**headers["v2.msgpack"], "schema_version": 2}


def _header(path):
    return msgpack.unpackb(next(iter(msgpack.Unpacker(path.open("rb"))))[6])


def test_the_golden_file_has_every_layout():
    layouts = set()
    for _, kind, _, _, _, _, body in msgpack.Unpacker((GOLDEN / "v2.times.msgpack").open("rb")):
        if kind in ("logits", "routing", "steps", "tokens"):
            layouts |= {packed.get("layout", "") for packed in msgpack.unpackb(body).values()}
    assert layouts == set(LAYOUTS)


@pytest.mark.parametrize("packed", ["msgpack", "zstd.msgpack"])
@pytest.mark.parametrize("version", ["v1", "v2", "v2.schema", "v2.times"])
def test_the_golden_files_are_read(version, packed):
    name = f"{version}.{packed}"
    steps = [golden_step(index, count, place) for index, count, place in STEPS[int(name[1])]]
    end = sum(step.num_tokens for step in steps)
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
        assert view.end == end
        assert [view.text(number) for number in range(6)] == ["Once", " caf\udcc3", "\udca9\x1b[0m", "", "日本", "‹5›"]
        block, tokens = view.routing(0, end), view.tokens(0, end)
        for field in ("indices", "weights", "logits", "flags"):
            same_array(getattr(block, field), np.concatenate([getattr(step, field) for step in steps]), field)
        for field in ("sequence", "position", "token_id", "pad", "logprob"):
            same_array(getattr(tokens, field), np.concatenate([getattr(step, field) for step in steps]), field)
        same_array(tokens.margin, np.concatenate([golden_scores(step).margin for step in steps]))
        assert tokens.candidate_ids[:7, :2].tolist() == [[-1, -1]] * 5 + [[3, -1], [3, 3]]
        assert (tokens.candidate_ids[7:] == 3).all()
        assert view.steps().duration.tolist() == [125.0] * len(steps)
        assert view.steps().num_tokens.tolist() == [5, 1, 1, 6][: len(steps)]
        assert view.steps().site_ms[:, 0].tolist() == [40.0] * len(steps)


def test_the_golden_recording_is_that_of_a_timeline():
    timeline = Timeline(golden_info())
    timeline.append(golden_step(0, 5, 0))
    with open_trace(GOLDEN / "v1.msgpack") as trace:
        same_array(trace.timeline.tokens(0, 5).ms, timeline.snapshot().tokens(0, 5).ms)
