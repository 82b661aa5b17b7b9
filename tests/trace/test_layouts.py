"""Columns stored as what differs from what one expects: exact for any numbers, small for a router with a plain rule."""

import math
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.routing import Timeline
from moetui.trace import TraceWriter, layouts, open_trace
from moetui.trace.arrays import pack_array
from moetui.trace.frames import PREFIX, Compressor, DamagedError, pack_frame
from moetui.trace.layouts import against_logits, counted, differences, restored, top_k
from tests.trace.test_damage import header, kinds_of, record
from tests.trace.trace_cases import assert_same_view, make_info, make_step, make_steps, same_array


def layouts_of(path, kind="routing"):
    """The layouts of each chunk's columns."""
    out = []
    for _, each, codec, *_, body in msgpack.Unpacker(path.open("rb")):
        if each == kind:
            body = msgpack.unpackb(zstandard.decompress(body) if codec else body)
            out.append({name: packed.get("layout", "") for name, packed in body.items()})
    return out


@st.composite
def chunks(draw):
    """Logits of any bits, or of few values so that there are ties; routing that follows them, mostly or not at all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 3)), draw(st.integers(1, 40))
    if draw(st.booleans()):
        logits = rng.integers(0, 1 << 16, shape).astype(np.uint16).view(np.float16)
    else:
        logits = (rng.integers(-3, 4, shape) / 2 * rng.choice([-1.0, 1.0], shape)).astype(np.float16)
    k = draw(st.integers(1, shape[2] + 1))
    indices = np.argsort(-logits.astype(np.float32), axis=-1, kind="stable")[..., :k].astype(np.uint16)
    if k > shape[2]:
        indices = np.concatenate([indices, indices[..., :1]], axis=-1)
    other = rng.random(indices.shape) < draw(st.sampled_from([0.0, 0.05, 1.0]))
    indices[other] = rng.integers(0, draw(st.sampled_from([shape[2], 1 << 16])), indices.shape)[other]
    with np.errstate(all="ignore"):
        shares = np.exp(np.take_along_axis(logits, indices % shape[2], -1).astype(np.float32))
        weights = (shares / shares.sum(-1, keepdims=True)).astype(np.float16)
    other = rng.random(indices.shape) < draw(st.sampled_from([0.0, 0.05, 1.0]))
    weights[other] = rng.integers(0, 1 << 16, indices.shape).astype(np.uint16).view(np.float16)[other]
    return logits, indices, weights


@given(chunks())
@settings(deadline=None)
def test_any_routing_comes_back_bit_for_bit(chunk):
    logits, indices, weights = chunk
    flags = np.ones(indices.shape[:2], np.uint8)
    stored = against_logits({"indices": indices, "weights": weights, "flags": flags}, logits)
    assert [array.dtype for array, _ in stored.values()] == [np.uint16, np.float16, np.uint8]
    got = restored(*stored["indices"], logits)
    assert got.tobytes() == indices.tobytes()
    assert restored(*stored["weights"], logits, got).tobytes() == weights.tobytes()
    assert stored["flags"] == (flags, "")


@given(chunks())
@settings(deadline=None)
def test_the_largest_are_those_of_a_stable_sort(chunk):
    logits = chunk[0]
    want = np.argsort(-logits.astype(np.float32), axis=-1, kind="stable")
    for k in {1, logits.shape[2]}:
        assert top_k(logits, k).tolist() == want[..., :k].tolist()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=30))
def test_differences_wrap_around(numbers):
    array = np.array(numbers, np.int32)
    stored = differences(array)
    assert stored.dtype == np.int32
    assert restored(stored, "differences").tolist() == numbers


@given(st.lists(st.integers(-(2**33), 2**33), max_size=30), st.booleans())
def test_whole_microseconds_come_back_bit_for_bit(numbers, long):
    layout, kind, parts = ("millionths", np.float64, 1e6) if long else ("thousandths", np.float32, 1e3)
    times = (np.array(numbers, np.int64) / parts).astype(kind)
    for array in (times, np.stack([times, times[::-1]]), times[:0]):
        stored = counted(array, layout)
        assert stored is None or restored(stored, layout).tobytes() == array.tobytes()
        if long or np.abs(array).max(initial=0) < 1e6:  # the steps between them fit into 32 bits
            assert stored is not None


@pytest.mark.parametrize("odd", [math.nan, math.inf, -0.0, 1e-4, 3e9, 1e300])
def test_times_that_are_no_whole_microseconds_are_stored_as_they_are(odd):
    with np.errstate(over="ignore"):
        assert counted(np.array([1.5, odd], np.float32), "thousandths") is None
    assert counted(np.array([1.5, odd if odd != 1e-4 else 1e-7]), "millionths") is None or odd == 3e9


def test_what_steps_tell_of_tokens_is_not_said_twice(tmp_path, info, monkeypatch):
    monkeypatch.setattr("moetui.trace.chunks.CHUNK_TOKENS", 10)
    rng = np.random.default_rng(0)
    live, position = Timeline(info), 0
    with TraceWriter(tmp_path / "x", info, flush_seconds=math.inf) as writer:
        for index, count in enumerate((4, 6, 15, 5, 5, 5)):  # the third goes over three chunks
            step = make_step(info, rng, index, count, 0, position, 0.1 * index)
            step = replace(step, pad=np.arange(count) == 1, duration=math.nan if index == 5 else 10.25 * index)
            position += count
            writer.write_step(step)
            live.append(step)
    names = layouts_of(tmp_path / "x", "tokens")
    assert [{"started", "ms"} <= each.keys() for each in names] == [False, True, True, False]
    with open_trace(tmp_path / "x") as trace:
        assert_same_view(trace.timeline, live.snapshot())


def write_damaged(path, info, steps, kind):
    """A trace of one chunk whose record of that kind does not fit its checksum."""
    with TraceWriter(path, info, compression=None, flush_seconds=math.inf) as writer:
        for step in steps:
            writer.write_step(step)
    data = bytearray(path.read_bytes())
    data[data.index(PREFIX + msgpack.packb(kind)) + 60] ^= 1
    path.write_bytes(data)


def test_times_of_tokens_whose_steps_are_lost_are_unknown_and_nothing_else(tmp_path, info, steps):
    write_damaged(tmp_path / "x", info, steps, "steps")
    with open_trace(tmp_path / "x") as trace:
        tokens = trace.timeline.tokens(0, 12)
        assert np.isnan(tokens.started).all()
        assert np.isnan(tokens.ms).all()
        assert tokens.token_id.tolist()[:7] == steps[0].token_id.tolist()
        assert np.isfinite(tokens.entropy).all()
        assert "trace_damaged" in kinds_of(trace.findings)


def test_only_what_the_logits_let_expect_is_stored_against_them(tmp_path):
    info = make_info(experts=16)
    steps = make_steps(info, prefill=500)
    rng = np.random.default_rng(1)
    biased = replace(steps[0], indices=rng.integers(0, 16, steps[0].indices.shape).astype(np.uint16))
    dropped = rng.random(steps[0].indices.shape) < 0.1
    capped = replace(steps[0], indices=np.where(dropped, 0xFFFF, steps[0].indices).astype(np.uint16))
    cases = {
        "plain": (steps[0], {"indices": "top_k", "weights": "softmax", "flags": ""}),
        "other experts": (biased, {"indices": "", "weights": "", "flags": ""}),
        "dropped": (capped, {"indices": "top_k", "weights": "", "flags": ""}),
        "halved": (replace(steps[0], weights=steps[0].weights / 2), {"indices": "top_k", "weights": "", "flags": ""}),
    }
    for name, (step, want) in cases.items():
        with TraceWriter(tmp_path / name, info, flush_seconds=math.inf) as writer:
            writer.write_step(step)
        assert layouts_of(tmp_path / name) == [want], name
        with open_trace(tmp_path / name) as trace:
            block = trace.timeline.routing(0, 500)
            same_array(block.indices, step.indices, name)
            same_array(block.weights, step.weights, name)
    sizes = [(tmp_path / name).stat().st_size for name in ("plain", "other experts")]
    assert sizes[1] - sizes[0] > 3000  # of 500 tokens at two sites, two experts each


def test_what_another_machine_might_round_otherwise_is_stored_as_it_is(tmp_path, info, monkeypatch):
    monkeypatch.setattr(layouts, "_DOUBT", 2.0**-13)
    with TraceWriter(tmp_path / "x", info) as writer:
        writer.write_step(make_steps(info, prefill=100)[0])
    assert layouts_of(tmp_path / "x")[0]["weights"] == ""


def test_logits_that_grow_wider_later_leave_what_was_before_them(tmp_path):
    narrow, wide = make_info(experts=6), make_info(experts=9, top_k=3)
    rng = np.random.default_rng(0)
    steps = [make_step(info, rng, i, 50, 0, 50 * i, 0.1 * i) for i, info in enumerate((narrow, wide, wide))]
    steps[0].logits[3, 0] = np.nan  # more NaN behind it, once it is as wide as the others, must not count
    steps[0].logits.view(np.uint16)[4, 0] = 0xFE00
    with TraceWriter(tmp_path / "x", narrow) as writer:
        for step in steps:
            writer.write_step(step)
    assert layouts_of(tmp_path / "x")[0]["indices"] == "top_k"
    with open_trace(tmp_path / "x") as trace:
        view = trace.timeline
        whole = view.routing(0, 150)
        assert whole.indices[:50, :, :2].tobytes() == steps[0].indices.tobytes()
        assert (whole.indices[:50, :, 2] == 0xFFFF).all()
        assert np.isnan(whole.logits[:50, :, 6:]).all()
        assert whole.indices[50:].tobytes() == np.concatenate([step.indices for step in steps[1:]]).tobytes()
        assert view.routing(10, 20).weights.shape == (10, 2, 3)


def test_a_column_of_an_unknown_layout_is_left_out_and_counted(tmp_path):
    logits, indices = np.zeros((2, 1, 4), np.float16), np.ones((2, 1, 2), np.uint16)
    routing = {"indices": pack_array(indices, "holographic"), "weights": pack_array(np.ones((2, 1, 2), np.float16))}
    tokens = {"step": pack_array(np.zeros(2, np.int32)), "position": pack_array(np.array([5, 1], np.int32), ["no"])}
    (tmp_path / "x").write_bytes(
        record("header", header())
        + record("logits", {"logits": pack_array(logits)}, 0, 2)
        + record("routing", routing, 0, 2)
        + record("tokens", tokens, 0, 2)
    )
    with open_trace(tmp_path / "x") as trace:
        block = trace.timeline.routing(0, 2)
        assert (block.indices == 0xFFFF).all()
        assert (block.weights == 1).all()
        assert trace.timeline.tokens(0, 2).position.tolist() == [-1, -1]
        assert trace.unknown_records == 2
        assert "trace_newer" in kinds_of(trace.findings)
        assert "trace_damaged" not in kinds_of(trace.findings)


@pytest.mark.parametrize(
    ("array", "layout"),
    [
        (np.ones((2, 1, 5), np.uint16), "top_k"),
        (np.ones((2, 1, 0), np.uint16), "top_k"),
        (np.ones((3, 1, 2), np.uint16), "top_k"),
        (np.ones((2, 2), np.uint16), "top_k"),
        (np.ones((2, 1, 2), np.float16), "top_k"),
        (np.ones((2, 1, 2), np.uint16), "softmax"),
        (np.ones((2, 1, 2), np.float16), "differences"),
        (np.ones((), np.int32), "differences"),
        (np.ones((), np.int32), "thousandths"),
        (np.ones(2, np.int64), "thousandths"),
        (np.ones(2, np.float64), "millionths"),
    ],
)
def test_a_layout_that_does_not_fit_its_column_is_damage(array, layout):
    logits, indices = np.zeros((2, 1, 4), np.float16), np.ones((2, 1, 2), np.uint16)
    with pytest.raises(DamagedError):
        restored(array, layout, logits, indices)


def test_weights_of_experts_that_have_no_logits_are_damage():
    logits, weights = np.zeros((2, 1, 4), np.float16), np.zeros((2, 1, 2), np.float16)
    for indices in (None, np.full((2, 1, 2), 4, np.uint16), np.ones((2, 1, 1), np.uint16)):
        with pytest.raises(DamagedError):
            restored(weights, "softmax", logits, indices)


def test_routing_against_logits_that_are_lost_is_lost_and_said_to_be(tmp_path, info, steps):
    write_damaged(tmp_path / "x", info, steps, "logits")
    with open_trace(tmp_path / "x") as trace:
        assert (trace.timeline.routing(0, 12).indices == 0xFFFF).all()
        assert trace.timeline.tokens(0, 12).token_id.tolist()[:7] == steps[0].token_id.tolist()
        assert "trace_damaged" in kinds_of(trace.findings)


def test_light_columns_of_which_nothing_is_known_take_no_room(tmp_path, info, steps):
    nothing = np.full(7, np.nan, np.float32)
    bare = replace(steps[0], logprob=nothing, candidate_ids=np.empty((7, 0), np.int32), started=math.nan)
    bare = replace(bare, candidate_logprobs=np.empty((7, 0), np.float16), duration=math.nan, site_ms=nothing[:2])
    with TraceWriter(tmp_path / "x", info) as writer:
        writer.write_step(bare)
    (names,) = layouts_of(tmp_path / "x", "tokens")
    assert {"logprob", "candidate_ids", "candidate_logprobs", "started", "ms"}.isdisjoint(names)
    assert names["position"] == "differences"
    live = Timeline(info)
    live.append(bare)
    with open_trace(tmp_path / "x") as trace:
        assert_same_view(trace.timeline, live.snapshot())


def test_a_frame_of_several_blocks_states_its_size_and_unpacks_at_once():
    pieces = [b"head", bytes(5000), np.random.default_rng(0).bytes(5000), b"", b"tail"]
    frame = pack_frame("x", 0, 0, pieces, Compressor())
    body = msgpack.unpackb(frame)[6]
    assert zstandard.frame_content_size(body) == 10_008
    assert zstandard.decompress(body) == b"".join(pieces)
