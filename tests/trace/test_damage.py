"""Whatever stands in a file: one clear error, or what is left of it with a finding that says what is missing."""

import errno
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard

from moetui.routing import TraceError
from moetui.trace import TraceWriter, open_trace, trace_stats
from moetui.trace.arrays import pack_array
from moetui.trace.frames import PREFIX, checksum, pack_frame
from moetui.trace.importers.base import Opening
from moetui.trace.layout import MAX_META
from tests.trace.fuzz import look
from tests.trace.trace_cases import make_info, make_steps, same_array

ROOT = Path(__file__).parents[2]


@pytest.fixture
def chunks(tmp_path, info):
    """A plain trace of six chunks; its bytes, its records' positions and kinds."""
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, compression=None, flush_seconds=math.inf) as writer:
        for step in make_steps(info):
            writer.write_step(step)
            writer.flush()
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(PREFIX, at)]
    kinds = [msgpack.unpackb(data[start:stop])[1] for start, stop in zip(starts, [*starts[1:], len(data)])]
    return path, data, starts, kinds


def kinds_of(findings):
    return [finding.kind for finding in findings]


def test_thousands_of_damaged_files_within_bounds():
    done = subprocess.run(
        [sys.executable, "-m", "tests.trace.fuzz", "8"], cwd=ROOT, capture_output=True, text=True, timeout=270
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["cases"] >= 5000
    assert result["slowest"] < 5
    assert result["peak"] < 400 << 20


def test_truncated_at_every_record_and_beside_it(chunks):
    path, data, starts, kinds = chunks
    ends = [start for start, kind in zip(starts, kinds) if kind == "tokens"]
    for start in starts[2:]:
        for cut in (start - 1, start, start + 1, start + 9):
            path.write_bytes(data[:cut])
            with open_trace(path) as trace:
                # All chunks whose tokens record is whole are there.
                whole = [at for at in ends if next((s for s in starts if s > at), len(data)) <= cut]
                assert trace.num_tokens == (0 if not whole else 6 + len(whole))
                assert not trace.complete
                assert kinds_of(trace.findings)[0] == "trace_incomplete"
                assert f"{trace.num_tokens} tokens are here" in trace.findings[0].message


def test_a_lost_index_costs_nothing(chunks):
    path, data, starts, kinds = chunks
    with open_trace(path) as trace:
        want = trace.timeline.routing(0, 12).logits
    spoiled = bytearray(data)
    spoiled[starts[kinds.index("index")] + 40] ^= 1
    path.write_bytes(spoiled)
    with open_trace(path) as trace:
        same_array(trace.timeline.routing(0, 12).logits, want)
        assert trace.complete


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("kind", ["logits", "routing", "steps", "tokens"])
def test_a_damaged_record_is_unknown_and_its_neighbours_are_not(chunks, kind, with_index):
    path, data, starts, kinds = chunks
    with open_trace(path) as trace:
        view = trace.timeline
        whole = {name: getattr(view.routing(0, 12), name) for name in ("indices", "weights", "logits")}
        entropy = view.tokens(0, 12).entropy
    hit = [start for start, each in zip(starts, kinds) if each == kind][2]  # the chunk of token 8
    spoiled = bytearray(data if with_index else data[: starts[kinds.index("index")]])
    spoiled[hit + 60] ^= 0x10
    path.write_bytes(spoiled)
    with open_trace(path) as trace:
        assert trace.num_tokens == 12
        view = trace.timeline
        block, tokens = view.routing(0, 12), view.tokens(0, 12)
        others = [token for token in range(12) if token != 8]
        for name, array in whole.items():
            assert getattr(block, name)[others].tobytes() == array[others].tobytes()
        assert tokens.entropy[others].tobytes() == entropy[others].tobytes()
        if kind == "logits":
            assert np.isnan(block.logits[8]).all()
        elif kind == "routing":
            assert (block.indices[8] == 0xFFFF).all()
            assert np.isnan(block.weights[8]).all()
        elif kind == "tokens":
            assert (tokens.step[8], tokens.token_id[8]) == (-1, -1)
            assert np.isnan(tokens.entropy[8])
        assert len(view.steps().index) == (5 if kind == "steps" else 6)
        assert "trace_damaged" in kinds_of(trace.verify())
        assert not trace.complete


def test_a_torn_middle_is_a_gap_of_known_size(chunks):
    path, data, starts, kinds = chunks
    tokens = [start for start, kind in zip(starts, kinds) if kind == "tokens"]
    path.write_bytes(data[: tokens[1] - 5] + data[tokens[3] + 3 :])
    with open_trace(path) as trace:
        assert trace.num_tokens == 12
        assert trace.timeline.tokens(0, 12).step.tolist() == [0] * 7 + [-1] * 3 + [4, 5]
        assert (trace.timeline.routing(7, 8).indices != 0xFFFF).all()  # its routing stood before the hole
        assert (trace.timeline.routing(8, 10).indices == 0xFFFF).all()
        assert "trace_damaged" in kinds_of(trace.findings)


def test_two_traces_in_one_file_are_told_apart(chunks, tmp_path):
    path, data, *_ = chunks
    info = make_info(sites=3)
    with TraceWriter(tmp_path / "y.msgpack", info) as writer:
        for step in make_steps(info):
            writer.write_step(step)
    path.write_bytes(data + (tmp_path / "y.msgpack").read_bytes())
    with open_trace(path) as trace:
        assert trace.num_tokens == 12
        assert len(trace.info.sites) == 2
        assert "trace_spliced" in kinds_of(trace.findings)


@pytest.mark.parametrize("opened", [open_trace, Opening.of])
def test_who_may_not_read_a_file_is_told_so(tmp_path, monkeypatch, opened):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "x.msgpack").touch()
    monkeypatch.setattr("moetui.trace.reader.FileSource", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TraceError, match="permission denied") as caught:
        opened(tmp_path / "x.msgpack")
    assert caught.value.hint == "you may not read it, or a folder above it"


def test_kinds_keys_and_events_of_a_newer_version_are_skipped_and_counted(tmp_path, info, steps):
    path = tmp_path / "x.msgpack"
    writer = TraceWriter(path, info, flush_seconds=math.inf)
    writer.write_step(steps[0])
    writer.flush()
    event = {"at": 7, "event": "telepathy", "strength": 3}
    writer._add("events", {"events": [event, {"at": 7, "event": "run_state", "state": "paused", "mood": "calm"}]})
    writer._add("thoughts", {"x": 1})
    writer._add("model", {"model": {"name": "new", "architecture": "", "model_type": "", "soul": 1}, "sites": []})
    writer.write_step(steps[1])
    writer.close()
    with open_trace(path) as trace:
        assert trace.num_tokens == 8
        assert [item.event.state.value for item in trace.events] == ["paused"]
        assert trace.unknown_records == 4  # telepathy, a mood, thoughts, and a soul
        assert set(kinds_of(trace.findings)) == {"trace_newer", "trace_damaged"}  # the model has no sites


def test_keys_of_a_newer_header_are_counted_once(tmp_path):
    model = {"name": "x", "architecture": "", "model_type": "", "soul": 1}
    settings = {"max_new_tokens": 3, "mood": "calm"}
    (tmp_path / "x").write_bytes(record("header", header(model=model, settings=settings, weather="fine")))
    with open_trace(tmp_path / "x") as trace:
        assert trace.unknown_records == 3
        assert trace.settings.max_new_tokens == 3


def header(**changes):
    site = {"index": 0, "name": "L0", "layer": 0, "path": "", "router_path": ""}
    site |= {"num_experts": 4, "num_classes": 4, "top_k": 2}
    value = {
        "format": "moetui-trace",
        "version": 1,
        "model": {"name": "x", "architecture": "", "model_type": ""},
        "sites": [site],
        "present": ["weights", "logits"],
    }
    if "sites" in changes:
        changes["sites"] = [{**site, **change} for change in changes["sites"]]
    return {**value, **changes}


def record(kind, value, first=0, count=0):
    body = value if isinstance(value, bytes) else msgpack.packb(value)
    return pack_frame(kind, first, count, [body], None)


def raw(kind, codec, first, count, body, length=None):
    """A record whose checksum fits, whatever it says."""
    head = msgpack.packb(["moetui", kind, codec, first, count, checksum(kind, codec, first, count, body)])
    size = len(body) if length is None else length
    return b"\x97" + head[1:] + b"\xc6" + size.to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip", "no moetui trace"),
        (b"\x97\xa6moetu", "no moetui trace"),
        (PREFIX, "header cannot be read"),
        (record("tokens", {}), "no moetui trace"),
        (record("header", {"format": "other", "version": 1}), "no moetui trace"),
        (record("header", header(version=3)), "trace version 3, and this moetui knows 2"),
        (record("header", header(version="1")), "no moetui trace"),
        (record("header", header(schema_version=3)), "trace version 3, and this moetui knows 2"),
        (record("header", header(schema_version=None)), "no moetui trace"),
        (record("header", header(schema_version=1 << 63)), "this moetui knows 2"),
        (record("header", {**header(), "sites": 5}), "makes no sense"),
        (record("header", {**header(), "model": []}), "makes no sense"),
        (record("header", header(sites=[{"index": 3}])), "makes no sense"),
        (record("header", header(sites=[{"top_k": -1}])), "makes no sense"),
        (record("header", header(sites=[{"num_classes": 1 << 19}, {"index": 1}, {"index": 2}])), "impossibly large"),
        (record("header", header(sites=[{"num_experts": 1 << 40}])), "makes no sense"),
        (record("header", {**header(), "prompt": 5}), "makes no sense"),
        (record("header", b"\x80"), "no moetui trace"),
        (record("header", b"\xc1"), "header cannot be read"),
        (record("header", b"\x91" * 100_000), "header cannot be read"),
        (record("header", b"\xdd\x7f\xff\xff\xff"), "header cannot be read"),
        (record("header", b"\xdf\x7f\xff\xff\xff"), "header cannot be read"),
        (raw("header", "", 0, 0, b"\x80", length=1 << 31), "header cannot be read"),
        (raw("header", "lzma", 0, 0, b"\x80"), "header cannot be read"),
        (raw("header", "zstd", 0, 0, b"\x80"), "header cannot be read"),
        (raw("header", "zstd", 0, 0, bytes.fromhex("28b52ffde0ffffffffffffff7f") + b"\1\0\0"), "header cannot be read"),
    ],
)  # fmt: skip
def test_foreign_and_lying_headers_are_one_clear_error(tmp_path, data, message):
    (tmp_path / "x.msgpack").write_bytes(data)
    with pytest.raises(TraceError, match=message) as caught:
        open_trace(tmp_path / "x.msgpack")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_places_that_are_no_file_are_one_clear_error(tmp_path):
    for path, message in (
        (tmp_path, "folder"),
        (tmp_path / "no", "cannot open"),
        (Path("/dev/zero"), "regular"),
        ("x\0y", "no file name"),
    ):
        with pytest.raises(TraceError, match=message):
            open_trace(path)


def packed(body, kind="tokens", count=5):
    """A record with a sound checksum whose few bytes unpack to many."""
    return raw(kind, "zstd", 0, count, zstandard.ZstdCompressor().compress(body))


def tokens_record(count, first=0, step=None):
    array = pack_array(np.zeros(1, np.int32)) if step is None else step
    return record("tokens", {"step": array}, first, count)


def packed_as(dtype, shape, data=b""):
    return tokens_record(1, step={"dtype": dtype, "shape": shape, "data": data})


def widths(slots, candidates):
    return record("widths", {"sites": 1, "slots": slots, "classes": 4, "candidates": candidates})


def routing_bomb():
    """Few bytes that unpack to sixty megabytes of logits and as much routing, to be sorted and weighed."""
    array = np.zeros((500, 1, 30_000), np.uint16)
    column, logits = pack_array(array, "top_k"), pack_array(array.view(np.float16))
    weights = pack_array(array.view(np.float16), "softmax")
    return b"".join(
        packed(msgpack.packb({name: each}), kind, 500)
        for kind, name, each in (("logits", "logits", logits), ("routing", "indices", column), ("tokens", "x", 0))
    ) + packed(msgpack.packb({"indices": column, "weights": weights}), "routing", 500)


BOMBS = {
    "zeros": packed(bytes(60 << 20)),
    "more zeros than a body may have": packed(bytes(500 << 20)),
    "empty lists": packed(b"\xdd\x03\xff\xff\xff" + b"\x90" * (60 << 20)),
    "a column of lists": packed(b"\x81\xa1a\xdd\x01\x00\x00\x00" + b"\x90" * (1 << 24)),
    "events": packed(b"\x81\xa6events\xdd\x00\xff\xff\xff" + b"\x90" * MAX_META, "events", 0),
    "numbers": packed(b"\x81\xa6events\xdd\x00\x0f\x42\x40" + b"\xcd\xff\xff" * 1_000_000, "events", 0),
    "nested lists": packed(b"\x92" * (8 << 20), "vocabulary", 0),
    "thrice the same": packed(msgpack.packb({"step": pack_array(np.zeros(4096, np.int32))}), count=4096) * 3,
    "fewer rows than said": tokens_record(4096),
    "a chunk of a trillion": tokens_record(1 << 40),
    "tokens far away": tokens_record(1, 1 << 30),
    "tokens farther away": tokens_record(1, 1 << 61),
    "routing against much": routing_bomb(),
    "objects": packed_as("|O8", [1], b"12345678"),
    "a shape": packed_as("<i4", [1 << 60]),
    "no rows": packed_as("<i4", [0, 1 << 62]),
    "less than none": packed_as("<i4", [-1]),
    "a type": packed_as("<f8", [1], bytes(8)),
    "slots": widths(1 << 60, 0),
    "candidates": widths(2, 1 << 40),
    "beginnings": b"".join(PREFIX + bytes([0xA3 + number % 3]) for number in range(200_000)),
    "chunks that never end": b"".join(raw("logits", "", number, 1, b"\x80") for number in range(50_000)),
    "lengths into nothing": b"".join(raw("x", "", 0, 0, b"", length=1 << 24) for _ in range(50_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_lies_are_harmless(tmp_path, name):
    path = tmp_path / "x.msgpack"
    path.write_bytes(record("header", header()) + BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    look(path)
    assert time.monotonic() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10


def test_steps_that_are_not_where_they_say_are_left_out(tmp_path):
    def steps(first):
        return record("steps", {"first_token": pack_array(np.array(first, np.int32))}, 0, 2)

    for first, left in (([0, 1], 2), ([1, 0], 0), ([0, 5], 0), ([-1, 0], 0), ([0, 0], 0)):
        path = tmp_path / "x.msgpack"
        path.write_bytes(
            record("header", header()) + steps(first) + tokens_record(2, step=pack_array(np.zeros(2, np.int32)))
        )
        with open_trace(path) as trace:
            assert len(trace.timeline.steps().index) == left


def test_a_file_that_shrinks_while_it_is_read_is_damage_not_a_crash(tmp_path, info):
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, flush_seconds=math.inf) as writer:
        for step in make_steps(info, prefill=20_000):
            writer.write_step(step)
    with open_trace(path) as trace:
        with path.open("r+b") as stream:
            stream.truncate(2000)
        block = trace.timeline.routing(0, trace.num_tokens)
        assert np.isnan(block.logits[-1]).all()
        assert "trace_damaged" in kinds_of(trace.findings)


def test_without_the_names_of_stacks_tokens_still_have_one(chunks):
    path, data, starts, kinds = chunks
    where = starts[kinds.index("stacks")]
    out = bytearray(data)
    out[where + 20] ^= 1
    path.write_bytes(out)
    with open_trace(path) as trace:
        view = trace.timeline
        assert view.tokens(0, view.end).stack.max() < len(view.stacks)
        assert trace_stats(path)["tokens"] == view.end > 0
