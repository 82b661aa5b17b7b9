import asyncio
import threading

from moetui.routing.events import (
    BreakpointHit,
    Finding,
    FindingRaised,
    LoadProgress,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.session.mailbox import Mailbox


async def drain(mailbox):
    return [event async for event in mailbox.events()]


def finding(number):
    return FindingRaised(Finding("x", "info", str(number)))


async def test_keeps_order_and_merges_steps_to_the_newest():
    mailbox = Mailbox()
    for event in (StepCaptured(1), finding(0), StepCaptured(2), finding(1), StepCaptured(3)):
        mailbox.put(event)
    mailbox.close()
    assert await drain(mailbox) == [finding(0), finding(1), StepCaptured(3)]


async def test_a_finished_run_is_never_merged_away():
    mailbox = Mailbox()
    running, paused = RunStateChanged(RunState.RUNNING), RunStateChanged(RunState.PAUSED, "stepped")
    done = RunStateChanged(RunState.FINISHED)
    for event in (running, paused, running, paused, done, running):
        mailbox.put(event)
    mailbox.close()
    assert await drain(mailbox) == [done, running]


async def test_overflow_drops_log_lines_first_and_says_so():
    mailbox = Mailbox(capacity=10)
    log = BreakpointHit(0, "entropy < 1", 1, 0, "", 1, log_only=True)
    mailbox.put(log)
    for number in range(10):
        mailbox.put(finding(number))
    mailbox.put(finding(10))
    mailbox.close()
    events = await drain(mailbox)
    assert isinstance(events[0], Notice)
    assert events[0].message.startswith("2 events")
    assert events[1:] == [finding(number) for number in range(1, 11)]


async def test_wakes_a_waiting_reader_from_another_thread():
    mailbox = Mailbox()
    seen = []

    async def read():
        async for event in mailbox.events():
            seen.append(event)  # noqa: PERF401

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)

    def send():
        for end in range(1, 20_001):
            mailbox.put(StepCaptured(end))
        mailbox.put(finding(0))
        mailbox.close()

    thread = threading.Thread(target=send)
    thread.start()
    await asyncio.wait_for(reader, 60)
    thread.join()
    assert seen[-1] == finding(0)
    ends = [event.end for event in seen[:-1]]
    assert ends == sorted(set(ends))
    assert ends[-1] == 20_000


async def test_close_ends_a_reader_that_waits():
    mailbox = Mailbox()
    reader = asyncio.create_task(drain(mailbox))
    await asyncio.sleep(0)
    mailbox.close()
    mailbox.put(finding(0))
    assert await asyncio.wait_for(reader, 60) == []
    assert await drain(mailbox) == []


def test_serves_one_event_loop_after_another_and_outlives_them():
    mailbox = Mailbox()

    async def first():
        return await anext(mailbox.events())

    mailbox.put(LoadProgress("a", 0.1))
    assert asyncio.run(first()) == LoadProgress("a", 0.1)
    mailbox.put(LoadProgress("b", 0.2))  # no loop runs now
    mailbox.put(LoadProgress("b", 0.3))
    assert asyncio.run(first()) == LoadProgress("b", 0.3)
    mailbox.close()
    assert asyncio.run(drain(mailbox)) == []
