import csv
import io
import json
import math
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest

from moetui.routing import Phase, Timeline, UnsupportedError, UsageError
from moetui.routing.events import Branch, BranchAdded, BreakpointHit, Finding, FindingRaised, InterventionsChanged
from moetui.routing.interventions import BanExperts
from moetui.trace import FORMATS, Held, RecordedEvent, TraceWriter, export, open_trace, save_recorded
from moetui.trace.exporters import json_log
from tests.trace.trace_cases import assert_same_view, make_info, make_step, make_steps

HOSTILE = [
    '=cmd|"/c calc"!A1',
    "+1",
    "-2",
    "@SUM(1)",
    "\x1b]0;owned\x07",
    'a,b\n"c"',
    "</script><script>alert(1)",
    "\udce2\udc80",
]


def written(recorded, format_):
    stream = io.BytesIO()
    export(recorded, format_, stream)
    return stream.getvalue()


@pytest.fixture
def trace(tmp_path):
    """Two branches; the first step has a padded row; a token that passed no site; hostile texts."""
    info = make_info()
    steps = make_steps(info, decode=6)
    pad = np.zeros(7, np.bool_)
    pad[0] = True
    steps[0] = replace(steps[0], pad=pad)
    steps[3] = replace(steps[3], indices=np.full_like(steps[3].indices, 0xFFFF))
    steps[4] = replace(steps[4], branch=1)
    steps[5] = replace(steps[5], branch=1, logprob=np.array([np.nan], np.float32))
    texts = dict(zip(range(100), HOSTILE * 13))
    with TraceWriter(tmp_path / "x.msgpack", info, prompt="Once") as writer:
        writer.write_event(BranchAdded(Branch(0, 3, "main", prompt="Once")))
        for number, step in enumerate(steps):
            if number == 4:
                writer.write_event(BranchAdded(Branch(1, 3, "fork", 0, 9, 10)))
                writer.write_event(InterventionsChanged((BanExperts((1,)),), 10))
                writer.write_event(BreakpointHit(1, "entropy < 1", 9, 0, "entropy = 0.9", 1))
            writer.write_step(replace(step, vocabulary=texts))
        writer.write_event(FindingRaised(Finding("dead_expert", "warning", "<b>expert</b> 3 is dead", "look")))
    with open_trace(tmp_path / "x.msgpack") as opened:
        yield opened


def test_the_router_log_has_the_contract_s_keys_and_the_captured_numbers(trace):
    log = json.loads(written(trace, "json"))
    assert list(log) == ["config", "strategy", "num_experts", "top_k", "dataset", "num_layers", "samples"]
    assert (log["config"], log["strategy"], log["num_experts"], log["top_k"], log["num_layers"]) == (
        "tiny",
        "ban",
        4,
        2,
        2,
    )
    first, second = log["samples"]
    assert list(first) == ["sample_id", "num_tokens", "loss", "tokens", "token_ids", "layers"]
    layer = first["layers"][1]
    assert list(layer) == [
        "layer", "router_logits_shape", "router_logits_sample", "selected_experts", "expert_weights"
    ]  # fmt: skip
    view = trace.timeline
    rows = [row for row in range(12) if not view.tokens(0, 13).pad[row] and view.tokens(0, 13).branch[row] == 0]
    rows.append(12)
    block = view.routing(0, 13)
    assert first["num_tokens"] == len(rows) == 10
    assert first["token_ids"] == view.tokens(0, 13).token_id[rows].tolist()
    assert layer["router_logits_shape"] == [10, 4]
    np.testing.assert_array_equal(np.array(layer["router_logits_sample"], np.float16), block.logits[rows, 1])
    np.testing.assert_array_equal(np.array(layer["expert_weights"], np.float16), block.weights[rows, 1])
    expected = block.indices[rows, 1].astype(int)
    np.testing.assert_array_equal(layer["selected_experts"], np.where(expected == 0xFFFF, -1, expected))
    assert first["loss"] == pytest.approx(float(-view.tokens(0, 13).logprob[rows].mean()))
    assert second["num_tokens"] == 2


def test_a_large_sample_is_written_as_a_small_one_is(trace, monkeypatch):
    whole = written(trace, "json")
    for memory in (0, 200):
        monkeypatch.setattr("moetui.trace.exporters.json_log._MEMORY", memory)
        assert written(trace, "json") == whole


def test_layers_that_are_written_are_let_go_of_before_others_are_read(trace, monkeypatch):
    earlier, groups, held = [], [], json_log._held

    def watched(*args):
        assert not any(part() is not None for part in earlier)
        found = held(*args)
        groups.append(len(found))
        earlier.extend(weakref.ref(part[1]) for parts in found.values() for part in parts)
        return found

    monkeypatch.setattr(json_log, "_held", watched)
    monkeypatch.setattr(json_log, "_MEMORY", 200)
    written(trace, "json")
    assert groups
    assert 1 in groups


def test_what_json_cannot_say_is_null(tmp_path, info, steps):
    logits = steps[0].logits.copy()
    logits[0, 0, :3] = np.nan, np.inf, -np.inf
    with TraceWriter(tmp_path / "x.msgpack", info, has_weights=False) as writer:
        writer.write_step(replace(steps[0], logits=logits, logprob=np.full(7, np.nan, np.float32)))
    with open_trace(tmp_path / "x.msgpack") as trace:
        sample = json.loads(written(trace, "json"), parse_constant=pytest.fail)["samples"][0]
    assert sample["layers"][0]["router_logits_sample"][0][:3] == [None] * 3
    assert sample["layers"][0]["expert_weights"] is None
    assert sample["loss"] is None


def test_csv_has_a_row_a_slot_and_no_formulas(trace):
    text = written(trace, "csv").decode()
    assert "\x1b" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = "run,branch,step,phase,position,token_id,token,site,layer,slot,expert,weight"
    assert ",".join(rows[0]) == columns
    view = trace.timeline
    assert len(rows) == (13 - 1 - 1) * 2 * 2  # without padding and the token that got no expert
    assert {row["run"] for row in rows} == {"3"}
    assert not any(row["token"].lstrip()[:1] in "=+-@" for row in rows if row["token"])
    first = rows[0]
    assert (first["phase"], first["position"], first["site"], first["slot"]) == ("prefill", "1", "L0", "0")
    assert int(first["expert"]) == view.routing(1, 2).indices[0, 0, 0]
    assert np.float16(first["weight"]) == view.routing(1, 2).weights[0, 0, 0]


def test_csv_leaves_unknown_weights_empty(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info, has_weights=False) as writer:
        writer.write_step(replace(steps[0], token_id=np.full(7, -1, np.int32)))
    with open_trace(tmp_path / "x.msgpack") as trace:
        row = next(csv.DictReader(io.StringIO(written(trace, "csv").decode())))
    assert (row["weight"], row["token_id"], row["token"]) == ("", "", "")


def test_parquet_has_the_rows_of_the_csv(trace):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra moetui[parquet] is not installed")
    rows = parquet.read_table(io.BytesIO(written(trace, "parquet"))).to_pylist()
    lines = list(csv.DictReader(io.StringIO(written(trace, "csv").decode())))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines):
        assert list(row) == list(line)
        for name in ("run", "branch", "step", "phase", "position", "token_id", "site", "layer", "slot", "expert"):
            assert str(row[name]) == line[name]
        assert row["weight"] == pytest.approx(float(line["weight"]), rel=1e-6)
    assert "\x1b]0;owned\x07" in {row["token"] for row in rows}


def test_parquet_without_pyarrow_says_what_to_install(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedError, match="needs pyarrow") as caught:
        written(trace, "parquet")
    assert "moetui[parquet]" in caught.value.hint


def test_chrome_slices_nest_and_counters_count(trace):
    document = json.loads(written(trace, "chrome"), parse_constant=pytest.fail)
    assert document["displayTimeUnit"] == "ms"
    events = document["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    steps = [event for event in slices if event["cat"] == "step"]
    assert len(steps) == 7
    assert sum(event["args"]["tokens"] for event in steps) == 13
    assert steps[0]["dur"] == pytest.approx(40_000)
    for outer, following in zip(steps, [*steps[1:], None]):
        assert following is None or outer["ts"] + outer["dur"] <= following["ts"] + 1e-6
        inner = [s for s in slices if s["cat"] == "part" and outer["ts"] <= s["ts"] < outer["ts"] + outer["dur"]]
        assert [s["name"] for s in inner] == ["to L0", "to L1", "after the last site"]
        assert sum(s["dur"] for s in inner) == pytest.approx(outer["dur"], abs=1)
        layers = [s for s in slices if s["cat"] == "layer" and outer["ts"] <= s["ts"] < outer["ts"] + outer["dur"]]
        assert [(s["name"], s["ts"], s["dur"]) for s in layers] == [
            (f"layer {number}", part["ts"], part["dur"]) for number, part in enumerate(inner[:-1])
        ]
    assert {event["name"] for event in events if event["ph"] == "C"} == {"tokens/s", "router entropy"}
    assert {event["name"] for event in events if event["ph"] == "i"} >= {"breakpoint 1", "interventions", "dead_expert"}
    assert {event["name"] for event in events if event["ph"] == "M"} == {"process_name", "thread_name"}


def test_chrome_slices_nest_to_the_nanosecond(tmp_path, info, steps):
    rng, started = np.random.default_rng(0), 0.1
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for number in range(300):
            site_ms = np.cumsum(rng.uniform(0.1, 3, 2)).astype(np.float32)
            duration = float(site_ms[-1]) + rng.uniform(0.1, 3)
            writer.write_step(replace(steps[1], index=number, started=started, duration=duration, site_ms=site_ms))
            started += duration / 1000 + rng.choice([0.0, 0.0123456])
    with open_trace(tmp_path / "x.msgpack") as trace:
        events = json.loads(written(trace, "chrome"))["traceEvents"]
    slices = [(round(e["ts"] * 1000), round(e["dur"] * 1000)) for e in events if e["ph"] == "X"]  # as Perfetto counts
    assert len(slices) == 300 * 6
    open_until = []
    for at, takes in slices:
        while open_until and open_until[-1] <= at:
            open_until.pop()
        assert not open_until or at + takes <= open_until[-1]
        open_until.append(at + takes)


def test_chrome_counts_memory_where_it_was_recorded(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step, memory in zip(steps, (512.5, math.nan, 600.25)):
            writer.write_step(replace(step, memory=memory))
    with open_trace(tmp_path / "x.msgpack") as trace:
        save_recorded(trace, tmp_path / "again.msgpack")
    with open_trace(tmp_path / "again.msgpack") as trace:
        events = json.loads(written(trace, "chrome"))["traceEvents"]
    ends = [event["ts"] + event["dur"] for event in events if event.get("cat") == "step"]
    held = [(event["ts"], event["args"]["MB"]) for event in events if event["name"] == "memory"]
    assert held == [(pytest.approx(ends[0]), 512.5), (pytest.approx(ends[2]), 600.25)]


def test_chrome_of_a_recording_without_times_is_refused(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info, has_timings=False) as writer:
        writer.write_step(replace(steps[0], started=math.nan, duration=math.nan))
    with open_trace(tmp_path / "x.msgpack") as trace, pytest.raises(UnsupportedError, match="no times") as caught:
        written(trace, "chrome")
    assert "measured" in caught.value.hint


def test_chrome_of_a_recording_whose_times_are_damaged_says_so(tmp_path, info, steps):
    path = tmp_path / "x.msgpack"
    with TraceWriter(path, info, compression=None) as writer:
        writer.write_step(steps[0])
    data = bytearray(path.read_bytes())
    data[data.index(b"site_ms") + 40] ^= 1
    path.write_bytes(data)
    with open_trace(path) as trace, pytest.raises(UnsupportedError, match="no times") as caught:
        written(trace, "chrome")
    assert "damage" in caught.value.hint


@pytest.mark.parametrize("format_", sorted(FORMATS))
def test_every_format_takes_an_empty_recording(tmp_path, info, format_):
    if format_ == "parquet":
        pytest.importorskip("pyarrow", reason="the extra moetui[parquet] is not installed")
    with TraceWriter(tmp_path / "x.msgpack", info):
        pass
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert written(trace, format_)


@pytest.mark.parametrize("format_", sorted(set(FORMATS) - {"parquet"}))  # whose writer orders words as it likes
def test_a_live_session_s_tokens_are_written_like_a_file_s(trace, format_):
    held = Held(trace.info, trace.timeline, trace.events, trace.settings, trace.prompt, trace.findings)
    assert written(held, format_) == written(trace, format_)


def test_unknown_formats_name_the_known_ones(trace):
    with pytest.raises(UsageError, match="'docx'") as caught:
        export(trace, "docx", io.BytesIO())
    assert "json" in caught.value.hint


def test_two_stacks_and_two_sequences_are_samples_of_their_own(tmp_path):
    info = make_info(sites=2)
    info = replace(info, sites=(replace(info.sites[0], stack="encoder", name="encoder.L0"), info.sites[1]))
    rng = np.random.default_rng(0)
    encoder = replace(make_step(info, rng, 0, 3, Phase.PREFILL, 0, 0.0), stack="encoder")
    decoder = replace(make_step(info, rng, 1, 4, Phase.PREFILL, 0, 0.1), sequence=np.array([0, 0, 1, 1], np.int16))
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(encoder)
        writer.write_step(decoder)
    with open_trace(tmp_path / "x.msgpack") as trace:
        samples = json.loads(written(trace, "json"))["samples"]
    assert [(sample["num_tokens"], len(sample["layers"])) for sample in samples] == [(3, 1), (2, 1), (2, 1)]


def test_what_a_session_holds_becomes_a_trace(tmp_path, info, steps):
    timeline = Timeline(info, max_tokens=4)
    for step in steps:
        timeline.append(step)
    view = timeline.snapshot()
    assert view.first == 8
    events = (RecordedEvent(0, BranchAdded(Branch(0, 0, "main"))), RecordedEvent(10, InterventionsChanged((), 10)))
    size = save_recorded(Held(info, view, events, prompt="Once"), tmp_path / "x.msgpack")
    assert size == (tmp_path / "x.msgpack").stat().st_size
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.num_tokens == 4
        assert trace.prompt == "Once"
        assert [(item.token, type(item.event)) for item in trace.events] == [
            (0, BranchAdded),
            (2, InterventionsChanged),
        ]
        assert trace.events[1].event.token == 2
        assert trace.timeline.routing(0, 4).logits.tobytes() == view.routing(8, 12).logits.tobytes()
        assert trace.timeline.steps().first_token.tolist() == [0, 1, 2, 3]
    save_recorded(Held(info, Timeline(info).snapshot()), tmp_path / "empty.msgpack")
    whole = Timeline(info)
    for step in steps:
        whole.append(step)
    save_recorded(Held(info, whole.snapshot()), tmp_path / "x.msgpack", overwrite=True)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert_same_view(trace.timeline, whole.snapshot())
