import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.routing import Phase, Selection, Step, Timeline, TraceError
from moetui.routing.events import (
    Branch,
    BranchAdded,
    BreakpointHit,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    LoadProgress,
    ModelChanged,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import BanExperts, ReplayRouting, Scope, SetTopK
from moetui.routing.metrics import router_margin
from moetui.trace import TraceWriter, open_trace
from moetui.trace.plain import MisfitError
from moetui.trace.values import info_from_plain, info_to_plain
from tests.trace.trace_cases import assert_same_view, joined, make_info, make_site, make_step, make_steps


def record(path, info, steps, **options):
    timeline = Timeline(info)
    with TraceWriter(path, info, **options) as writer:
        for step in steps:
            writer.write_step(step)
            timeline.append(step)
    return timeline.snapshot()


@pytest.mark.parametrize("compression", ["zstd", None])
def test_a_recording_shows_what_the_live_timeline_showed(tmp_path, info, steps, compression):
    live = record(tmp_path / "x.msgpack", info, steps, compression=compression, prompt="Once", flush_seconds=math.inf)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert_same_view(trace.timeline, live)
        assert trace.info == info
        assert trace.prompt == "Once"
        assert trace.complete
        assert trace.findings == ()


@pytest.mark.parametrize("tokens", [1, 3])
def test_steps_at_one_go_are_the_same_as_one_by_one(tmp_path, info, tokens, monkeypatch):
    # Chunks end within steps, and within what comes at once.
    monkeypatch.setattr("moetui.trace.chunks.CHUNK_TOKENS", 10)
    rng = np.random.default_rng(tokens)
    steps = []
    for index in range(23):
        step = make_step(info, rng, 2 * index, tokens, Phase.DECODE, tokens * index, 0.1 * index)
        pad = rng.random(tokens) < 0.3
        steps.append(replace(step, branch=index // 9, duration=10.0 + index, pad=pad, memory=80.0))
    one_by_one = record(tmp_path / "a.msgpack", info, steps, flush_seconds=math.inf)
    timeline = Timeline(info)
    with TraceWriter(tmp_path / "b.msgpack", info, flush_seconds=math.inf) as writer:
        for start, stop in ((0, 1), (1, 8), (8, 23)):
            writer.write_steps(joined(steps[start:stop]))
            timeline.extend(joined(steps[start:stop]))
    assert_same_view(timeline.snapshot(), one_by_one)
    with open_trace(tmp_path / "a.msgpack") as one, open_trace(tmp_path / "b.msgpack") as other:
        assert_same_view(other.timeline, one.timeline)
        assert_same_view(one.timeline, one_by_one)
    again = [step for start, stop in ((0, 1), (1, 23)) for step in joined(steps[start:stop])]
    for step, was in zip(again, steps):
        for field in fields(Step):
            got, want = getattr(step, field.name), getattr(was, field.name)
            if field.name != "vocabulary":
                assert np.array_equal(got, want) if isinstance(want, np.ndarray) else got == want, field.name


def test_tokens_that_are_not_those_of_whole_steps_are_refused(tmp_path, info):
    uneven = replace(joined(make_steps(info, 1, 3)[1:]), index=np.arange(2, dtype=np.int32))
    with TraceWriter(tmp_path / "a.msgpack", info) as writer, pytest.raises(ValueError, match="not those of 2 steps"):
        writer.write_steps(uneven)


def test_what_decides_a_choice_comes_back_and_is_left_out_where_nothing_is_known(tmp_path, info, steps):
    bias = tuple(float(value) for value in np.random.default_rng(3).normal(size=info.num_experts).astype(np.float32))
    rules = [Selection("sigmoid", bias, 2, 1, "top2"), Selection(), *[None] * (len(info.sites) - 2)]
    sites = tuple(replace(site, selection=rule) for site, rule in zip(info.sites, rules, strict=True))
    told = replace(info, sites=sites)
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_event(ModelChanged(told))
        for step in steps:
            writer.write_step(step)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.info == told
        assert trace.findings == ()
    assert all("selection" not in site for site in info_to_plain(info)["sites"])
    plain = info_to_plain(told)
    assert ["selection" in site for site in plain["sites"]] == [rule is not None for rule in rules]
    plain["sites"][0]["selection"] |= {"group_score": "median", "more": 1}  # of a later version
    read = info_from_plain(plain).sites[0]
    assert read.selection == replace(rules[0], group_score="unknown")
    assert np.isnan(router_margin(np.arange(info.num_experts, dtype=np.float32), read))
    plain["sites"][0]["selection"]["bias"] = ["0.1"]
    with pytest.raises(MisfitError):
        info_from_plain(plain)


@st.composite
def recordings(draw):
    sites, experts = draw(st.integers(0, 4)), draw(st.integers(1, 9))
    info = make_info(sites, experts, draw(st.integers(1, experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, position = [], 0
    for index in range(draw(st.integers(1, 6))):
        count = draw(st.sampled_from([1, 1, 2, 5, 300]))
        step = make_step(info, rng, index * 3, count, draw(st.sampled_from(list(Phase))), position, index * 0.1)
        position += count
        texts = st.text(max_size=5).filter(lambda text: text.isprintable())
        broken = st.binary(max_size=3).map(lambda data: data.decode("utf-8", "surrogateescape"))
        steps.append(
            replace(
                step,
                branch=draw(st.integers(0, 3)),
                stack=draw(st.sampled_from(["decoder", "encoder", "vision"])),
                pad=rng.random(count) < 0.1,
                logits=special(step.logits, rng),
                weights=special(step.weights, rng),
                flags=rng.integers(0, 8, step.flags.shape).astype(np.uint8),
                vocabulary=draw(st.dictionaries(st.integers(0, 99), texts | broken, max_size=3)),
            )
        )
    return info, steps


def special(array, rng):
    out = array.copy()
    for value in (np.nan, np.inf, -np.inf, -0.0, 6e-8):
        out[rng.random(out.shape) < 0.02] = value
    return out


@given(recordings(), st.booleans(), st.booleans(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_recording_comes_back_bit_for_bit(tmp_path_factory, recording, has_logits, has_weights, flush_every):
    info, steps = recording
    path = tmp_path_factory.mktemp("trace") / "x.msgpack"
    kept = [
        replace(s, logits=s.logits if has_logits else None, weights=s.weights if has_weights else None) for s in steps
    ]
    timeline = Timeline(info)
    with TraceWriter(
        path, info, has_logits=has_logits, has_weights=has_weights, flush_seconds=math.inf, overwrite=path.exists()
    ) as writer:
        for number, step in enumerate(kept):
            writer.write_step(step)
            if info.sites:
                timeline.append(step)
            if flush_every and number % flush_every == 0:
                writer.flush()
    with open_trace(path) as trace:
        assert trace.num_tokens == sum(step.num_tokens for step in steps)
        if info.sites:
            assert_same_view(trace.timeline, timeline.snapshot())
        assert trace.verify() == ()


def test_slices_over_chunks_are_what_the_whole_is(tmp_path, info):
    steps = make_steps(info, prefill=9000, decode=3)
    live = record(tmp_path / "x.msgpack", info, steps)
    with open_trace(tmp_path / "x.msgpack") as trace:
        view = trace.timeline
        for start, stop in ((0, 1), (4095, 4097), (4096, 8192), (8999, 9003), (-5, 2), (9003, 9003), (5, 2)):
            got, want = view.routing(start, stop), live.routing(start, stop)
            for name in ("indices", "weights", "logits", "flags"):
                assert getattr(got, name).tobytes() == getattr(want, name).tobytes()
                assert getattr(got, name).shape == getattr(want, name).shape
            assert view.tokens(start, stop).entropy.tobytes() == live.tokens(start, stop).entropy.tobytes()
        clipped = view.clip(9000 - 10)
        assert clipped.end == 8990
        assert clipped.steps().num_tokens.tolist() == [8990]
        assert clipped.tokens(8980, 9003).step.shape == (10,)


def test_threads_that_read_the_same_places_see_the_same(tmp_path, info, monkeypatch):
    monkeypatch.setattr("moetui.trace.store._HEAVY_BYTES", 1)  # nothing stays: every look unpacks
    monkeypatch.setattr("moetui.trace.store._LIGHT_BYTES", 1)
    timeline = Timeline(info)
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for number, step in enumerate(make_steps(info, prefill=100, decode=400)):
            writer.write_step(step)
            timeline.append(step)
            if number % 20 == 0:
                writer.flush()  # ends a chunk
    live = timeline.snapshot()
    with open_trace(tmp_path / "x.msgpack") as trace:
        view = trace.timeline

        def differs(start):
            rows = (start, start + 90)
            got, want = view.routing(*rows), live.routing(*rows)
            same = all(
                getattr(got, name).tobytes() == getattr(want, name).tobytes()
                for name in ("logits", "weights", "indices", "flags")
            )
            return not same or view.tokens(*rows).ms.tobytes() != live.tokens(*rows).ms.tobytes()

        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(differs, 4 * list(range(0, 500, 15))))
        assert trace.complete
        assert not trace.findings


def test_scores_are_there_without_logits(tmp_path, info, steps):
    live = record(tmp_path / "x.msgpack", info, steps, has_logits=False)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.timeline.routing(0, 5).logits is None
        want = live.tokens(0, 5)
        assert trace.timeline.tokens(0, 5).entropy.tobytes() == want.entropy.tobytes()
        assert np.isfinite(want.entropy).all()


def test_a_step_with_more_slots_and_candidates_widens_all(tmp_path, info, steps):
    wide = make_step(make_info(top_k=4), np.random.default_rng(3), 9, 2, Phase.DECODE, 12, 1.0, candidates=5)
    record_path = tmp_path / "x.msgpack"
    with TraceWriter(record_path, info) as writer:
        for step in (*steps, wide):
            writer.write_step(step)
    with open_trace(record_path) as trace:
        block = trace.timeline.routing(0, 14)
        assert block.indices.shape == (14, 2, 4)
        assert (block.indices[:12, :, 2:] == 0xFFFF).all()
        assert np.isnan(block.weights[:12, :, 2:]).all()
        assert (block.indices[12:] == wide.indices).all()
        assert (trace.timeline.tokens(0, 14).candidate_ids[:12, 3:] == -1).all()


EVENTS = [
    BranchAdded(Branch(0, 0, "main", prompt="Once"), GenerationSettings(temperature=0.7, seed=3)),
    RunStateChanged(RunState.RUNNING),
    InterventionsChanged(
        (BanExperts((1, 2), Scope(layers=(3,), positions=(4, None), phase=Phase.DECODE)), SetTopK(1)), 4, {"L0": "keep"}
    ),
    BreakpointHit(1, "entropy < 0.3", 11, 1, "entropy = 0.2", 1),
    FindingRaised(Finding("dead_expert", "warning", "expert 3 is dead", "look", "L1")),
    RunStateChanged(RunState.FINISHED, "4 tokens", last_text="\udca9 \x1b[0m"),
]


def test_events_come_back_in_order_at_their_tokens(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step, event in zip(steps, EVENTS):
            writer.write_event(event)
            writer.write_step(step)
        for passing in (LoadProgress("x"), StepCaptured(3), Notice("hello"), RunStateChanged(RunState.LOADING)):
            writer.write_event(passing)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert [item.event for item in trace.events] == EVENTS
        assert [item.token for item in trace.events] == [0, 7, 8, 9, 10, 11]
        assert trace.findings == (EVENTS[4].finding,)


def test_what_becomes_known_of_the_model_replaces_the_header(tmp_path, info, steps):
    rough = replace(info, sites=tuple(replace(site, scoring="unknown") for site in info.sites))
    with TraceWriter(tmp_path / "x.msgpack", rough) as writer:
        writer.write_step(steps[0])
        writer.write_event(ModelChanged(info))
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.info == info
        assert trace.timeline.sites == info.sites


def test_nothing_of_the_machine_is_told(tmp_path, info, steps):
    named = replace(info, name="/home/someone/models/tiny-moe/")
    with TraceWriter(tmp_path / "x.msgpack", named, compression=None) as writer:
        writer.write_step(steps[0])
        writer.write_event(InterventionsChanged((ReplayRouting("/home/someone/a.msgpack"),)))
        writer.write_event(RunStateChanged(RunState.FAILED, "cannot read /home/someone/x/y.bin: gone", "see ~/a/b"))
        writer.write_event(FindingRaised(Finding("x", "error", "no /home/someone/y.so", "file:///home/someone/z")))
        writer.write_event(
            RunStateChanged(RunState.FAILED, "cannot enter '/home/someone': gone", "C:\\Users\\someone.")
        )
    data = (tmp_path / "x.msgpack").read_bytes()
    assert b"someone" not in data
    assert str(tmp_path).encode() not in data
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.info.name == "tiny-moe"
        assert trace.events[0].event.interventions == (ReplayRouting("a.msgpack"),)
        assert trace.events[1].event.reason == "cannot read y.bin: gone"
        assert (trace.events[2].event.finding.message, trace.events[2].event.finding.suggestion) == ("no y.so", "z")
        assert trace.events[3].event.reason == "cannot enter '~': gone"


@pytest.mark.parametrize("name", ["demo", "mistralai/Mixtral-8x7B-v0.1", "random:qwen3_moe"])
def test_names_of_models_stay(tmp_path, info, name):
    with TraceWriter(tmp_path / "x.msgpack", replace(info, name=name)):
        pass
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.info.name == name
        assert trace.num_tokens == 0


def test_arrays_that_do_not_fit_are_a_value_error_and_harm_nothing(tmp_path, info, steps):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(steps[0])
        with pytest.raises(ValueError, match="indices"):
            writer.write_step(replace(steps[1], indices=steps[1].indices[:, :1]))
        with pytest.raises(ValueError, match="sites"):
            writer.update_info(make_info(sites=3))
        writer.write_step(steps[1])
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.num_tokens == 8


def test_wider_dtypes_are_narrowed(tmp_path, info, steps):
    step = replace(steps[0], indices=steps[0].indices.astype(np.int64), logits=steps[0].logits.astype(np.float64))
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(step)
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert (trace.timeline.routing(0, 7).indices == steps[0].indices).all()
        assert trace.timeline.routing(0, 7).logits.tobytes() == steps[0].logits.tobytes()


def test_a_model_larger_than_the_format_is_refused(tmp_path):
    info = replace(make_info(1), sites=tuple(make_site(i, 1 << 15, 2) for i in range(64)))
    with pytest.raises(ValueError, match="larger than the format"):
        TraceWriter(tmp_path / "x.msgpack", info)
    assert not (tmp_path / "x.msgpack").exists()


def test_a_closed_trace_says_so(tmp_path, info, steps):
    record(tmp_path / "x.msgpack", info, steps)
    trace = open_trace(tmp_path / "x.msgpack")
    view = trace.timeline
    trace.close()
    trace.close()
    with pytest.raises(TraceError, match="closed"):
        view.tokens(0, 3)
