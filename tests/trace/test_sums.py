"""Sums that a trace holds: what they give is what counting gives, and where they cannot be trusted it is counted."""

from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.console.window import Window
from moetui.routing.branches import BranchTree
from moetui.routing.events import Branch, BranchAdded, BranchChanged
from moetui.routing.kept import without_deleted
from moetui.routing.step import NO_EXPERT, SiteFlag
from moetui.routing.totals import RoutingTotals
from moetui.trace import TraceWriter, open_trace, sums
from moetui.trace.arrays import pack_array
from moetui.trace.frames import pack_frame, read_frame
from tests.trace.fuzz import Unsummed
from tests.trace.trace_cases import make_info, make_steps

EVERY = 20  # tokens of a record of sums here
WHOLE = ("tokens", "routed", "loads", "dropped", "forced", "non_finite")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(sums, "SUMS_TOKENS", EVERY)


def write(path, info, steps, *, flush_every=5, **options):
    with TraceWriter(path, info, flush_seconds=1e9, **options) as writer:
        for number, step in enumerate(steps):
            writer.write_step(step)
            if number % flush_every == 0:
                writer.flush()
    return path


def counted(view, sites=None, **options):
    totals = RoutingTotals(view.sites if sites is None else sites)
    while not totals.update(view, **options):
        pass
    return totals


def assert_same(mine, other):
    for name in WHOLE:
        assert np.array_equal(getattr(mine, name), getattr(other, name)), name
    assert mine.stack_tokens == other.stack_tokens
    assert (mine.has_logits, mine.has_weights) == (other.has_logits, other.has_weights)
    np.testing.assert_allclose(mine.gate_mass, other.gate_mass, rtol=1e-12)
    np.testing.assert_allclose(mine.mean_entropy, other.mean_entropy, rtol=1e-6)


def unpacked(trace):
    """The kinds of tables that were unpacked of any chunk."""
    return {kind for cache in (trace._store._light, trace._store._heavy) for _, kind in cache._tables}


def records(path):
    """Kind, start and stop of all records."""
    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        frame = read_frame(Bytes(data), at)
        out.append((frame.kind, at, frame.stop))
        at = frame.stop
    return out


class Bytes:
    def __init__(self, data):
        self._data = data
        self.size = len(data)

    def read(self, start, length):
        return self._data[start : start + length]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_sums_are_what_counting_gives(tmp_path_factory, data):
    info = make_info(sites=data.draw(st.integers(1, 3)), experts=5, top_k=2)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    steps = [mixed(step, rng) for step in make_steps(info, prefill=data.draw(st.integers(1, 50)), decode=30)]
    has = {name: data.draw(st.booleans()) for name in ("has_logits", "has_weights")}
    path = write(tmp_path_factory.mktemp("sums") / "x.msgpack", info, steps, **has)
    with open_trace(path) as trace:
        view = trace.timeline
        assert view.summed(0, view.end)[0] == 0
        assert_same(counted(view), counted(Unsummed(view)))
        assert_same(counted(view, limit=data.draw(st.integers(1, 60))), counted(Unsummed(view)))


def mixed(step, rng):
    """Padding, tokens of another stack, sites that were passed by or dropped theirs, and numbers that are none."""
    shape = step.flags.shape
    indices, weights, logits = step.indices.copy(), step.weights.copy(), step.logits.copy()
    indices[rng.random(indices.shape) < 0.2] = NO_EXPERT
    weights[rng.random(weights.shape) < 0.2] = np.nan
    logits[rng.random(logits.shape) < 0.02] = np.inf
    flags = rng.choice([0, 0, SiteFlag.FORCED, SiteFlag.DROPPED, SiteFlag.NON_FINITE], shape).astype(np.uint8)
    stack = str(rng.choice(["decoder", "encoder"]))
    pad = rng.random(shape[0]) < 0.2
    return replace(step, indices=indices, weights=weights, logits=logits, flags=flags, pad=pad, stack=stack)


def test_no_chunk_under_sums_is_unpacked(tmp_path, info):
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=40, decode=0))
    with open_trace(path) as trace:
        assert counted(trace.timeline).tokens.sum() == 40
        assert unpacked(trace) == set()


def test_tokens_behind_the_last_sums_are_counted(tmp_path, info):
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=24, decode=7))
    with open_trace(path) as trace:
        view = trace.timeline
        assert view.summed(0, 31) == (0, 24)
        assert view.summed(1, 31) == (31, 31)
        assert_same(counted(view.clip(23)), counted(Unsummed(view.clip(23))))
        assert_same(counted(view), counted(Unsummed(view)))


@pytest.mark.parametrize(
    ("start", "stop", "first"), [(0, None, 0), (0, 50, 0), (3, 64, 24), (24, None, 24), (25, 30, 30)]
)
def test_a_window_takes_the_sums_that_lie_in_it_alone(tmp_path, info, start, stop, first):
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=24, decode=45))
    with open_trace(path) as trace:
        window = Window(trace.timeline, start, stop)
        assert window.summed(0, 69)[0] == first
        assert_same(counted(window), counted(Window(Unsummed(trace.timeline), start, stop)))


@pytest.mark.parametrize("kind", ["logits", "routing", "tokens"])
def test_a_damaged_chunk_is_counted_without_what_damage_took(tmp_path, info, kind):
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=24, decode=0))
    data = bytearray(path.read_bytes())
    _, _, stop = next(record for record in records(path) if record[0] == kind)
    data[stop - 3] ^= 1
    path.write_bytes(data)
    with open_trace(path) as trace:
        totals = counted(trace.timeline)
        assert not trace.complete
        assert_same(totals, counted(Unsummed(trace.timeline)))
        assert np.isnan(totals.mean_entropy).all() if kind == "logits" else True
        assert totals.loads.sum() == (0 if kind in ("logits", "routing") else 24 * 2 * 2)


def test_damaged_sums_are_found_and_made_good(tmp_path, info):
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=24, decode=0))
    whole = counted(open_trace(path).timeline)
    data = bytearray(path.read_bytes())
    _, _, stop = next(record for record in records(path) if record[0] == "sums")
    data[stop - 3] ^= 1
    path.write_bytes(data)
    with open_trace(path) as trace:
        assert [finding.kind for finding in trace.verify()] == ["trace_damaged"]
        assert_same(counted(trace.timeline), whole)


def test_sums_of_other_tokens_are_not_taken(tmp_path, info):
    paths = [tmp_path / f"{seed}.msgpack" for seed in (1, 2)]
    for seed, path in enumerate(paths):
        write(path, info, make_steps(info, prefill=24, decode=0, seed=seed), compression=None)
    mine, other = ([path.read_bytes()[a:b] for _, a, b in records(path)] for path in paths)
    at = next(number for number, (kind, _, _) in enumerate(records(paths[0])) if kind == "sums")
    mine[at] = other[at]
    with open_trace(paths[0]) as trace:
        whole = counted(trace.timeline)
    paths[0].write_bytes(b"".join(mine))
    with open_trace(paths[0]) as trace:
        assert trace.timeline.summed(0, 24) == (0, 24)
        assert trace.timeline.counts(0, 24) is None
        assert_same(counted(trace.timeline), whole)


def test_sums_by_another_rule_are_not_taken(tmp_path, info):
    steps = make_steps(info, prefill=24, decode=24)
    other = tuple(replace(site, scoring="sigmoid") for site in info.sites)
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, flush_seconds=1e9) as writer:
        writer.write_step(steps[0])
        writer.flush()
        for step in steps[1:10]:  # fewer than sums are of
            writer.write_step(step)
        writer.flush()
        writer.update_info(replace(info, sites=other))
        for step in steps[10:]:
            writer.write_step(step)
        writer.flush()
        writer.write_step(make_steps(info, prefill=24, decode=0)[0])
    for index in (True, False):
        if not index:
            data = path.read_bytes()
            path.write_bytes(data[: data.rfind(b"\x97\xa6moetui\xa5index")])
        with open_trace(path) as trace:
            view = trace.timeline
            assert view.summed(0, view.end) == (33, 72)
            assert_same(counted(view), counted(Unsummed(view)))


def test_a_recording_that_is_followed_is_counted_as_it_grows(tmp_path, info):
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, flush_seconds=1e9) as writer:
        writer.flush()
        with open_trace(path) as trace:
            totals, late = RoutingTotals(info.sites), RoutingTotals(info.sites)
            for number, step in enumerate(make_steps(info, prefill=3, decode=60)):
                writer.write_step(step)
                writer.flush()
                trace.refresh()
                totals.update(trace.timeline)
                if number % 25 == 24:  # by then sums are there
                    late.update(trace.timeline)
            late.update(trace.timeline)
            assert trace.timeline.summed(0, 63)[0] == 0
            for each in (totals, late):
                assert_same(each, counted(Unsummed(trace.timeline)))


def test_a_deleted_branch_is_not_counted(tmp_path, info):
    steps = make_steps(info, prefill=24, decode=24)
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, flush_seconds=1e9) as writer:
        writer.write_event(BranchAdded(Branch(0, 0, "main")))
        writer.write_step(steps[0])
        writer.write_event(BranchAdded(Branch(1, 0, "fork", parent=0, fork_position=24, first_token=24)))
        for step in steps[1:]:
            writer.write_step(replace(step, branch=1))
        writer.flush()
        writer.write_event(BranchChanged(1, "deleted"))
    with open_trace(path) as trace:
        assert trace.timeline.summed(0, 48)[0] == 0
        tree = BranchTree.of(item.event for item in trace.events)
        assert counted(without_deleted(trace.timeline, tree)).tokens.sum() == 24
        assert trace.stats()["tokens"] == 24


def test_sums_that_cannot_be_are_damage(tmp_path):
    """A program that writes traces of its own may write anything."""
    info = make_info()
    path = write(tmp_path / "x.msgpack", info, make_steps(info, prefill=24, decode=0), compression=None)
    data = path.read_bytes()
    _, start, stop = next(record for record in records(path) if record[0] == "sums")
    honest = msgpack.unpackb(msgpack.unpackb(data[start:stop])[6])

    def but(**arrays):
        return msgpack.packb({**honest, **{name: pack_array(array) for name, array in arrays.items()}})

    lies = {
        "no map": b"\x93\x01\x02\x03",
        "nothing": b"\x80",
        "bomb": b"\xdf\x7f\xff\xff\xff",
        "negative": but(loads=np.full((2, 4), -1, np.int32)),
        "infinite": but(mass=np.full((2, 4), np.inf)),
        "wider": but(loads=np.zeros((2, 5), np.int32)),
        "of another type": but(routed=np.zeros(2, np.float64)),
        "of a million stacks": but(stacks=np.zeros(1_000_000, np.int32)),
    }
    for name, body in lies.items():
        lying = pack_frame("sums", 0, 24, [body], None)
        path.write_bytes(data[:start] + lying)
        with open_trace(path) as trace:
            assert counted(trace.timeline).tokens.sum() == 24, name
            assert "trace_damaged" in [finding.kind for finding in trace.findings], name
