import asyncio
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from moetui.routing import Phase, TraceError, UnsupportedError, UsageError
from moetui.routing.events import (
    Branch,
    BranchAdded,
    BreakpointHit,
    Finding,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    ModelChanged,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import BanExperts, SetTopK
from moetui.session import Capability, Filing, Playable, ReplaySession, Waitable
from moetui.session.places import read_place
from moetui.trace import TraceWriter, open_trace
from moetui.trace.view import LazyBlock
from tests.trace.trace_cases import assert_same_view, make_info, make_step, make_steps

PATIENCE = 30.0  # s
MAIN = BranchAdded(Branch(0, 0, "main", prompt="Once"), GenerationSettings(max_new_tokens=9))
FORK = BranchAdded(Branch(1, 0, "fork", 0, 8, 10), GenerationSettings(temperature=0.5))
BAN = InterventionsChanged((BanExperts((1,)),), 8)
NONE = InterventionsChanged((), 11)
HIT = BreakpointHit(1, "entropy < 1", 9, 0, "entropy = 0.9", 1)
OWN = FindingRaised(Finding("spiky", "warning", "expert 3 is spiky", "", "L1"))


@pytest.fixture
def path(tmp_path):
    """Seven prompt tokens, then five single ones, 50 ms apart, with something happening before most of them."""
    info = make_info()
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        happened = {0: [MAIN], 7: [], 8: [BAN], 10: [HIT, FORK], 11: [NONE, OWN]}
        tokens = 0
        for step in make_steps(info):
            for event in happened.get(tokens, []):
                writer.write_event(event)
            writer.write_step(step)
            tokens += step.num_tokens
        writer.write_event(RunStateChanged(RunState.FINISHED, "9 tokens"))
    return tmp_path / "x.msgpack"


@pytest.fixture
def opened(path):
    sessions = []

    def open_(path=path, **options):
        session = ReplaySession(path, **options)
        sessions.append(session)
        session.open()
        return session

    yield open_
    for session in sessions:
        session.close()


async def rest(session):
    session.close()
    return [event async for event in session.events()]


async def test_playing_tells_what_happened_in_order(opened):
    session = opened(speed=64)
    assert await asyncio.to_thread(session.wait, 30)
    assert session.state is RunState.FINISHED
    assert session.reason == "the end of the recording"
    assert session.playback.position == session.playback.end == 12
    events = await rest(session)
    assert isinstance(events[0], ModelChanged)
    told = [event for event in events if not isinstance(event, (ModelChanged, StepCaptured, RunStateChanged))]
    assert told == [MAIN, BAN, HIT, FORK, NONE, OWN, Notice("recorded: finished: 9 tokens")]
    ends = [event.end for event in events if isinstance(event, StepCaptured)]
    assert ends == sorted(ends)
    assert ends[-1] == 12
    assert RunStateChanged(RunState.FINISHED, "the end of the recording") in events


def test_the_picture_is_that_of_the_trace_up_to_the_cursor(opened, path):
    session = opened(start="end")
    with open_trace(path) as trace:
        assert_same_view(session.timeline.snapshot(), trace.timeline)
        session.seek(4)
        assert_same_view(session.timeline.snapshot(), trace.timeline.clip(5))
        assert session.info == trace.info


def test_what_is_so_is_derived_from_the_cursor_in_both_directions(opened):
    session = opened(paused=True)
    assert session.state is RunState.PAUSED
    assert session.branches == (MAIN.branch,)
    session.seek(9)
    assert session.interventions == BAN.interventions
    assert [branch.name for branch in session.branches] == ["main", "fork"]
    assert session.settings.temperature == 0.5
    assert session.findings == ()
    session.seek(11)
    assert session.interventions == ()
    assert session.findings == (OWN.finding,)
    session.seek(7)
    assert session.interventions == BAN.interventions
    assert session.settings == MAIN.settings
    session.seek(3)
    assert session.interventions == ()
    assert session.branches == (MAIN.branch,)
    assert session.findings == ()


@pytest.fixture
def dead_for_a_while(tmp_path):
    """No token of the first 60 goes to expert 0 of L1, of those after it half; the finding is recorded behind them."""
    info = make_info()
    step = make_step(info, np.random.default_rng(0), 0, 120, Phase.PREFILL, 0, 0.0)
    indices = step.indices.copy()
    indices[:60, 1] = (1, 2)
    indices[60:90, 1], indices[90:, 1] = (0, 3), (2, 1)
    with TraceWriter(tmp_path / "dead.msgpack", info) as writer:
        writer.write_step(cut(replace(step, indices=indices), 0, 60))
        writer.write_event(FindingRaised(Finding("dead_expert", "warning", "experts 0, 3 got none of 60", "", "L1")))
        writer.write_event(OWN)
        writer.write_step(cut(replace(step, indices=indices), 60, 120))
    return tmp_path / "dead.msgpack"


def cut(step, start, stop):
    """Some of a step's tokens as a step."""
    tokens = ("sequence", "position", "token_id", "pad", "logprob", "indices", "weights", "logits", "flags")
    tokens += ("candidate_ids", "candidate_logprobs")
    return replace(step, index=start, **{name: getattr(step, name)[start:stop] for name in tokens})


def test_what_the_diagnostics_found_is_there_for_as_long_as_they_find_it(opened, dead_for_a_while):
    session = opened(dead_for_a_while, paused=True)

    def dead():
        assert session.diagnosed(PATIENCE)
        return [finding for finding in session.findings if finding.kind == "dead_expert"]

    assert dead() == []
    session.seek(59)
    (first,) = dead()
    assert "of 60 tokens" in first.message
    assert OWN.finding in session.findings
    session.seek(119)
    assert dead() == []
    assert OWN.finding in session.findings, "what is not found by counting stays"
    session.seek(59)
    assert dead() == [first]


async def test_that_findings_are_others_is_told(opened, dead_for_a_while):
    session = opened(dead_for_a_while, speed=64)
    async for event in session.events():
        if isinstance(event, StepCaptured) and event.end == 120 and OWN.finding in session.findings:
            break
    assert await asyncio.to_thread(session.diagnosed, PATIENCE)
    assert [finding.kind for finding in session.findings] == ["spiky"]


async def test_seeking_tells_what_is_so_not_all_that_passed(opened):
    session = opened(paused=True)
    session.seek(11)
    session.seek(0)
    events = await rest(session)
    assert HIT not in events
    assert FORK in events
    assert OWN in events
    assert [e.interventions for e in events if isinstance(e, InterventionsChanged)] == []  # none at 0, none at the end
    assert [e.end for e in events if isinstance(e, StepCaptured)][-1] == 1


def test_stepping_goes_by_steps_and_pauses(opened):
    session = opened(paused=True)
    session.step()
    assert session.playback.position == 7
    session.step(3)
    assert session.playback.position == 10
    assert (session.state, session.reason) == (RunState.PAUSED, "stepped")
    session.step(-2)
    assert session.playback.position == 8
    session.step(-99)
    assert session.playback.position == 0
    session.step(99)
    assert session.state is RunState.FINISHED


async def test_stepping_forward_tells_of_breakpoints(opened):
    session = opened(paused=True)
    session.seek(8)
    session.step()
    assert HIT in await rest(session)


def test_playing_again_from_the_end_begins_anew(opened):
    session = opened(start="end", speed=0.25)
    assert session.state is RunState.FINISHED
    session.resume()
    assert session.state is RunState.RUNNING
    session.pause()
    assert session.playback.position < 12


def test_marks_can_be_jumped_to(opened):
    session = opened(paused=True)
    assert isinstance(session, Playable)
    assert [(mark.token, mark.kind) for mark in session.marks] == [
        (0, "branch"), (8, "interventions"), (9, "breakpoint"), (10, "branch"), (10, "finding"), (11, "interventions")
    ]  # fmt: skip
    assert session.jump(1, "breakpoint").token == 9
    assert session.playback.position == 10
    assert session.state is RunState.PAUSED
    assert session.jump(1, "breakpoint") is None
    assert session.jump(-1).kind == "interventions"
    assert session.playback.position == 9
    assert session.jump(1, "finding", "branch").token == 10


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("31", 31),
        ("0", 0),
        (" 12.5s", 12.5),
        ("250ms", 0.25),
        ("2m", 120.0),
        ("1:05", 65.0),
        ("0:00.5", 0.5),
        ("3 ", 3),
    ],
)
def test_a_place_is_a_token_or_a_time(text, place):
    assert read_place(text) == place
    assert type(read_place(text)) is type(place)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1:60", "1:", "5h", "1e3s", "٣", "9" * 30, "1:2:3", "nan s"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(UsageError, match="no place"):
        read_place(text)


def test_a_time_is_the_step_that_ran_then(opened, tmp_path):
    session = opened(paused=True)  # a step every 50 ms, seven tokens in the first
    assert [session.token_at(seconds) for seconds in (0.0, 0.049, 0.05, 0.16, 99.0)] == [6, 6, 7, 9, 11]
    session.seek(session.token_at(0.1))
    assert session.playback.position == 9
    info = make_info()
    with TraceWriter(tmp_path / "timeless.msgpack", info, has_timings=False) as writer:
        writer.write_step(replace(make_steps(info)[0], started=math.nan))
    with pytest.raises(UsageError, match="no times"):
        opened(tmp_path / "timeless.msgpack", paused=True).token_at(1.0)


def test_where_a_branch_parts_from_its_parent_can_be_jumped_to(opened, tmp_path):
    info = make_info()

    def one(index, position, branch, token_id):
        step = make_step(info, np.random.default_rng(position), index, 1, Phase.DECODE, position, 0.05 * index)
        return replace(step, branch=branch, token_id=np.array([token_id], np.int32), vocabulary={})

    with TraceWriter(tmp_path / "fork.msgpack", info) as writer:
        writer.write_event(MAIN)
        for number in range(6):
            writer.write_step(one(number, number, 0, number))
        writer.write_event(BranchAdded(Branch(1, 0, "fork", 0, 2, 6), GenerationSettings()))
        for number, token_id in ((6, 2), (7, 3), (8, 99), (9, 98)):
            writer.write_step(one(number, number - 4, 1, token_id))
        writer.write_event(BranchAdded(Branch(2, 0, "same", 0, 5, 10), GenerationSettings()))
        writer.write_step(one(10, 5, 2, 5))
    session = opened(tmp_path / "fork.msgpack", paused=True)
    parted = [mark for mark in session.marks if mark.kind == "divergence"]
    assert [(mark.token, mark.text) for mark in parted] == [(8, "fork '‹99›', main '‹4›'")]
    assert session.jump(1, "divergence") == parted[0]
    assert session.playback.position == 9


def test_where_a_branch_is_routed_otherwise_though_its_text_is_the_same_can_be_jumped_to(opened, tmp_path, monkeypatch):
    info = make_info()
    names = [site.name for site in info.sites]

    def one(index, position, branch, token_id, turned=()):
        step = make_step(info, np.random.default_rng(position), index, 1, Phase.DECODE, position, 0.05 * index)
        indices = step.indices.copy()
        for site in turned:
            indices[0, site] = (indices[0, site] + 1) % info.sites[site].num_experts
        return replace(step, branch=branch, token_id=np.array([token_id], np.int32), indices=indices, vocabulary={})

    with TraceWriter(tmp_path / "fork.msgpack", info) as writer:
        writer.write_event(MAIN)
        for number in range(6):
            writer.write_step(one(number, number, 0, number))
        writer.write_event(BranchAdded(Branch(1, 0, "forced", 0, 2, 6), GenerationSettings()))
        for number, token_id, turned in ((6, 2, ()), (7, 3, (1,)), (8, 4, (0, 1)), (9, 99, (0,))):
            writer.write_step(one(number, number - 4, 1, token_id, turned))
        writer.write_event(BranchAdded(Branch(2, 0, "other", 0, 4, 10), GenerationSettings()))
        for number, token_id in ((10, 77), (11, 5)):
            writer.write_step(one(number, number - 6, 2, token_id, (0, 1)))
    session = opened(tmp_path / "fork.msgpack", paused=True)
    logits = LazyBlock.logits

    def read(block):
        assert threading.current_thread() is not threading.main_thread(), "logits were read"
        return logits.fget(block)

    monkeypatch.setattr(LazyBlock, "logits", property(read))
    parted = [(mark.token, mark.text) for mark in session.marks if mark.kind == "divergence"]
    assert parted == [
        (7, f"routing: forced unlike main at {names[1]}"),
        (9, "forced '‹99›', main '‹5›'"),
        (10, "other '‹77›', main '‹4›'"),  # of another token other experts are no news
    ]
    assert [session.jump(1, "divergence").token for _ in range(3)] == [7, 9, 10]


async def test_another_speed_and_the_end_of_a_loop_are_told(opened):
    session = opened(paused=True)
    seen = session.events()

    async def told():
        return await asyncio.wait_for(anext(seen), 30)

    while not isinstance(await told(), StepCaptured):
        pass
    for change in (lambda: session.set_speed(4.0), lambda: session.set_loop(None)):
        change()
        while not isinstance(await told(), StepCaptured):
            pass


def test_a_loop_plays_on_and_must_lie_in_the_recording(opened):
    session = opened(paused=True, speed=64)
    session.set_loop((8, 10))
    assert session.state is RunState.RUNNING
    assert session.playback.loop == (8, 10)
    assert not session.wait(0.3)
    assert 8 <= session.playback.position <= 10
    session.set_loop(None)
    assert session.wait(30)
    assert session.playback.position == 12
    for tokens in ((5, 5), (-1, 3), (3, 99)):
        with pytest.raises(UsageError, match="no tokens"):
            session.set_loop(tokens)


def test_speeds_are_checked(opened, path):
    session = opened(paused=True)
    session.set_speed(64)
    assert session.playback.speed == 64
    for speed in (0.1, 65, math.nan):
        with pytest.raises(UsageError, match="speed"):
            session.set_speed(speed)
        with pytest.raises(UsageError, match="speed"):
            ReplaySession(path, speed=speed)


def test_what_a_recording_cannot_do_says_why(opened):
    session = opened(paused=True)
    assert Capability.SEEK in session.capabilities
    assert Capability.GENERATE not in session.capabilities
    for ask in (
        lambda: session.generate("x"),
        session.step_layer,
        lambda: session.set_interventions((SetTopK(1),)),
        lambda: session.call(lambda model, tokenizer: None),
    ):
        with pytest.raises(UnsupportedError, match="recording"):
            ask()


def test_a_cut_off_file_is_told_of(path):
    path.write_bytes(path.read_bytes()[:-40])
    session = ReplaySession(path, start="end")
    session.open()
    assert [finding.kind for finding in session.findings] == ["trace_incomplete", "spiky"]
    session.close()


def test_no_such_file_is_said_at_once(tmp_path):
    with pytest.raises(TraceError, match="cannot open"):
        ReplaySession(tmp_path / "no.msgpack")


def test_an_empty_recording_is_finished(tmp_path):
    with TraceWriter(tmp_path / "x.msgpack", make_info()):
        pass
    session = ReplaySession(tmp_path / "x.msgpack")
    session.open()
    assert (session.state, session.reason) == (RunState.FINISHED, "the recording holds no tokens")
    session.step()
    session.resume()
    assert session.wait(30)
    session.close()


def test_closing_is_quick_and_final(opened):
    session = opened()
    session.close()
    session.close()
    session.resume()
    assert not any(thread.name == "moetui-replay" for thread in threading.enumerate())


@pytest.mark.parametrize("fate", ["replaced", "removed", "cut short"])
async def test_follows_a_file_no_further_when_nothing_more_can_come_of_it(tmp_path, fate):
    path, info = tmp_path / "x.msgpack", make_info()
    steps = make_steps(info, decode=9)
    writer = TraceWriter(path, info, flush_seconds=math.inf)
    for step in steps:
        writer.write_step(step)
    writer.flush()
    session = ReplaySession(path, follow=True, speed=64)
    session.open()
    assert not session.wait(0.6)
    if fate == "replaced":
        with TraceWriter(tmp_path / "other.msgpack", info) as other:
            other.write_step(steps[0])
        (tmp_path / "other.msgpack").replace(path)
    elif fate == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 100)
    assert await asyncio.to_thread(session.wait, 30)
    assert session.state is RunState.FINISHED
    assert "trace_incomplete" in {finding.kind for finding in session.findings}
    session.close()
    told = [event.message async for event in session.events() if isinstance(event, Notice)]
    assert len(told) == 1
    assert fate in told[0]
    writer.close()


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED, None])
async def test_says_when_nothing_comes_of_a_run_that_was_not_said_to_stand(tmp_path, monkeypatch, state):
    monkeypatch.setattr("moetui.session.replay.QUIET_SECONDS", 0.5)
    steps = make_steps(make_info(), decode=9)
    with TraceWriter(tmp_path / "x.msgpack", make_info(), flush_seconds=math.inf) as writer:
        writer.write_step(steps[0])
        if state is not None:
            writer.write_event(RunStateChanged(state, ""))
        writer.flush()
        session = ReplaySession(tmp_path / "x.msgpack", follow=True, speed=64)
        session.open()
        seen = session.events()

        async def until(kind):
            async for event in seen:
                if isinstance(event, kind):
                    return event
            raise AssertionError(f"the session ended without {kind}")

        if state is RunState.PAUSED:
            assert not session.wait(1.5)
            assert not session.playback.quiet
        else:
            notice = await asyncio.wait_for(until(Notice), 30)
            assert "nothing came" in notice.message
            assert session.playback.quiet
        monkeypatch.setattr("moetui.session.replay.QUIET_SECONDS", math.inf)
        writer.write_step(steps[1])
        writer.flush()
        await asyncio.wait_for(until(StepCaptured), 30)
        assert not session.playback.quiet
        session.close()


async def test_follows_a_file_that_is_being_written(tmp_path):
    info = make_info()
    steps = make_steps(info, decode=30)
    writer = TraceWriter(tmp_path / "x.msgpack", info, flush_seconds=math.inf)
    writer.write_step(steps[0])
    writer.flush()
    session = ReplaySession(tmp_path / "x.msgpack", follow=True, speed=64)
    session.open()
    assert session.playback.position == 7
    assert session.state is RunState.RUNNING
    assert session.findings == (), "it was not cut off: it is being written"
    seen = session.events()

    async def until(end):
        async for event in seen:
            if isinstance(event, StepCaptured) and event.end >= end:
                return

    for step in steps[1:20]:
        writer.write_step(step)
    writer.write_event(BAN)
    writer.flush()
    await asyncio.wait_for(until(26), 30)
    assert session.interventions == BAN.interventions
    for step in steps[20:]:
        writer.write_step(step)
    writer.close()
    await asyncio.wait_for(until(37), 30)
    assert await asyncio.to_thread(session.wait, 30)
    assert session.state is RunState.FINISHED
    assert session.findings == ()
    session.close()


def test_files_are_copied_and_loaded(opened, path, tmp_path):
    session = opened(paused=True)
    assert isinstance(session, Filing)
    assert isinstance(session, Waitable)
    assert session.save(str(tmp_path / "copy.msgpack")) == path.stat().st_size
    assert (tmp_path / "copy.msgpack").read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        session.save(str(tmp_path / "copy.msgpack"))
    with pytest.raises(UsageError, match="no such folder"):
        session.save(str(tmp_path / "no" / "copy.msgpack"))
    with pytest.raises(UsageError, match="format"):
        session.export(str(tmp_path / "x.bin"), "nonsense")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy.msgpack", "x.msgpack"]
    assert session.export(str(tmp_path / "x.csv"), "csv") == (tmp_path / "x.csv").stat().st_size
    beside = session.load(str(tmp_path / "copy.msgpack"))
    assert beside.timeline.snapshot().end == 12
    assert [branch.name for branch in beside.tree.branches] == ["main", "fork"]


def test_recordings_without_times_play(tmp_path):
    info = make_info()
    rng = np.random.default_rng(0)
    with TraceWriter(tmp_path / "x.msgpack", info, has_timings=False) as writer:
        for index in range(4):
            step = make_step(info, rng, index, 1, Phase.DECODE, index, math.nan)
            writer.write_step(replace(step, duration=math.nan))
    session = ReplaySession(tmp_path / "x.msgpack", speed=16)
    session.open()
    assert session.wait(30)
    assert session.playback.position == 4
    session.close()


def test_needs_no_torch_and_no_screen(path):
    code = (
        "import sys; from moetui.session import ReplaySession; s = ReplaySession(sys.argv[1], start='end'); s.open(); "
        "s.timeline.snapshot().routing(0, 5).logits; s.close(); "
        "print([m for m in ('torch', 'transformers', 'textual', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
