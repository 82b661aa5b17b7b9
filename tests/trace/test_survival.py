"""What is left of a recording when the process, the disk or the folder goes away."""

import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from moetui.routing import Phase, TraceError
from moetui.routing.errors import incomplete_recording
from moetui.routing.events import BreakpointHit, Finding, FindingRaised, RunState, RunStateChanged
from moetui.trace import TraceWriter, open_trace
from moetui.trace import writer as writer_module
from moetui.trace.target import being_written
from tests.trace.trace_cases import make_info, make_step, make_steps

ROOT = Path(__file__).parents[2]

RECORD = """
import sys, time
import numpy as np
from moetui.routing import Phase
from moetui.trace import TraceWriter
from tests.trace.trace_cases import make_info, make_step

info, rng = make_info(), np.random.default_rng(0)
writer = TraceWriter(sys.argv[1], info, overwrite=len(sys.argv) > 2)
for index in range(10**9):
    writer.write_step(make_step(info, rng, index, 1, Phase.DECODE, index, time.monotonic()))
    print(index, time.monotonic(), flush=True)
    time.sleep(0.001)
"""


def start_recording(path, *options):
    return subprocess.Popen(
        [sys.executable, "-c", RECORD, str(path), *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_recording_lacks_its_last_second_at_most(tmp_path):
    rng = random.Random(0)
    paths = [tmp_path / f"{number}.msgpack" for number in range(20)]
    for number in range(0, 20, 10):
        running = [start_recording(path) for path in paths[number : number + 10]]
        readers = []
        for process in running:
            process.stdout.readline()  # it has begun
            killer = threading.Timer(rng.uniform(0.0, 2.0), process.send_signal, (signal.SIGKILL,))
            killer.start()
            readers.append((process, killer))
        for (process, killer), path in zip(readers, paths[number : number + 10]):
            lines = process.stdout.read().splitlines()
            process.wait()
            killer.join()
            process.stdout.close()
            written = [line.split() for line in lines if len(line.split()) == 2]
            last_index, last_time = (int(written[-1][0]), float(written[-1][1])) if written else (0, 0.0)
            with open_trace(path) as trace:
                assert [finding.kind for finding in trace.verify()] == ["trace_incomplete"]
                assert trace.num_tokens <= last_index + 2
                view = trace.timeline
                assert view.tokens(0, view.end).step.tolist() == list(range(trace.num_tokens))
                lacking = [float(when) for index, when in written if int(index) >= trace.num_tokens]
                # One second, and what a busy machine adds to it.
                assert not lacking or last_time - lacking[0] < 1.0 + 1.5


def test_a_killed_replacement_stands_where_it_was_asked_for(tmp_path):
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"the old one")
    process = start_recording(path, "overwrite")
    for _ in range(3):
        process.stdout.readline()
    deadline = time.monotonic() + 20
    while path.read_bytes() == b"the old one" and time.monotonic() < deadline:
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    with open_trace(path) as trace:
        assert trace.num_tokens > 0
    assert [each.name for each in tmp_path.iterdir()] == ["x.msgpack"]


def test_what_waits_is_written_within_a_second_though_nothing_follows(tmp_path, info, steps):
    writer = TraceWriter(tmp_path / "x.msgpack", info, flush_seconds=0.2)
    writer.write_step(steps[0])
    with open_trace(tmp_path / "x.msgpack") as trace:
        deadline = time.monotonic() + 20
        while not trace.num_tokens and time.monotonic() < deadline:
            threading.Event().wait(0.01)
            trace.refresh()
        assert trace.num_tokens == 7
    writer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "moetui-trace-flush"]


def test_writing_has_a_part_of_the_second_that_a_kill_may_cost(tmp_path, info, monkeypatch):
    waits = []

    class Wound(writer_module.Ticker):
        def __init__(self, function, seconds):
            waits.append(seconds)
            super().__init__(function, seconds)

    monkeypatch.setattr(writer_module, "Ticker", Wound)
    TraceWriter(tmp_path / "x.msgpack", info).close()
    assert len(waits) == 1
    assert waits[0] <= 0.95


def test_pauses_and_breakpoints_are_flushed_at_once(tmp_path, info, steps):
    writer = TraceWriter(tmp_path / "x.msgpack", info, flush_seconds=math.inf)
    with open_trace(tmp_path / "x.msgpack") as trace:
        for step, event, events in (
            (steps[0], BreakpointHit(1, "x", 6, 0, "", 1), 1),
            (steps[1], BreakpointHit(1, "x", 7, 0, "", 2, log_only=True), 1),
            (steps[2], RunStateChanged(RunState.PAUSED, "by hand"), 3),
        ):
            writer.write_step(step)
            writer.write_event(event)
            trace.refresh()
            assert len(trace.events) == events
        assert trace.num_tokens == 9
    writer.close()


FULL = """
import math, resource, sys
from moetui.trace import TraceWriter
from tests.trace.trace_cases import make_info, make_steps

info = make_info()
writer = TraceWriter(sys.argv[1], info, flush_seconds=math.inf)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
for step in make_steps(info, decode=200):
    writer.write_step(step)
    writer.flush()
writer.close()
print(writer.problem, writer.nbytes, sep="|")
"""


@pytest.mark.parametrize("room", [2000, 5000, 5037, 20_000])
def test_a_full_disk_ends_the_recording_with_all_that_was_flushed(tmp_path, room):
    path = tmp_path / "x.msgpack"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    problem, nbytes = done.stdout.strip().split("|")
    assert problem == "cannot write x.msgpack: file too large"
    assert int(nbytes) == path.stat().st_size <= room  # nothing torn stays
    assert_whole_but_cut_short(path)


ALONE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]


def namespaces() -> bool:
    """Whether a file system can be mounted here, out of everybody else's sight."""
    mount = [*ALONE, "mount -t tmpfs -o size=16k none /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(
    not namespaces(), reason="mounting a small file system takes user namespaces; limits stand in above"
)
def test_a_file_system_without_room_ends_the_recording_with_all_that_was_flushed(tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept.msgpack"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=16k none "$0" && "$1" -c "$2" "$0/x.msgpack" 1000000 && cp "$0/x.msgpack" "$3"'
    done = subprocess.run(
        [*ALONE, script, str(disk), sys.executable, FULL, str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    problem, nbytes = done.stdout.strip().split("|")
    assert problem == "cannot write x.msgpack: no space left on device"
    assert int(nbytes) == kept.stat().st_size <= 16 * 1024
    assert_whole_but_cut_short(kept)


def assert_whole_but_cut_short(path: Path) -> None:
    with open_trace(path) as trace:
        assert [finding.kind for finding in trace.verify()] == ["trace_incomplete"]
        whole = make_steps(make_info(), decode=200)[: len(trace.timeline.steps().index)]
        assert trace.num_tokens == sum(step.num_tokens for step in whole)
        if whole:
            wanted = np.concatenate([step.logits for step in whole])
            assert trace.timeline.routing(0, trace.num_tokens).logits.tobytes() == wanted.tobytes()


def test_a_disk_that_is_full_from_the_start_is_an_error_and_leaves_nothing(tmp_path, info):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(TraceError, match=r"cannot write x\.msgpack"):
            TraceWriter(tmp_path / "x.msgpack", info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_full_for_the_replacement_leaves_the_old_file(tmp_path, info, steps):
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"the old one")
    writer = TraceWriter(path, info, overwrite=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.nbytes + 10, limits[1]))
    try:
        writer.write_step(steps[0])
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert writer.problem
    assert path.read_bytes() == b"the old one"
    assert [each.name for each in tmp_path.iterdir()] == ["x.msgpack"]


def test_a_removed_folder_is_a_problem_not_an_exception(tmp_path, info, steps):
    folder = tmp_path / "sub"
    folder.mkdir()
    writer = TraceWriter(folder / "x.msgpack", info, flush_seconds=math.inf)
    writer.write_step(steps[0])
    writer.flush()
    (folder / "x.msgpack").unlink()
    folder.rmdir()
    for step in steps[1:]:
        writer.write_step(step)
        writer.flush()
    assert writer.problem == "x.msgpack was removed while it was written"
    assert incomplete_recording(writer.problem).hint == "nothing of it is left"
    assert "can be read" in incomplete_recording("cannot write x.msgpack: no space left on device").hint
    writer.close()


def test_an_old_file_that_cannot_be_replaced_is_kept_and_the_new_one_named(tmp_path, info, steps, monkeypatch):
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"the old one")
    with TraceWriter(path, info, overwrite=True, flush_seconds=math.inf) as writer:
        writer.write_step(steps[0])
        with monkeypatch.context() as patch:  # permissions mean nothing to root, so the call itself is refused
            patch.setattr(os, "replace", refuse)
            writer.flush()
        writer.write_step(steps[1])
    assert "cannot replace x.msgpack: permission denied; the recording is .x.msgpack." in writer.problem
    assert path.read_bytes() == b"the old one"
    (partial,) = [each for each in tmp_path.iterdir() if each != path]
    with open_trace(partial) as trace:
        assert trace.num_tokens == 7


def refuse(*_):
    raise PermissionError(13, "Permission denied")


def test_existing_files_are_kept_unless_told_otherwise(tmp_path, info, steps):
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"the old one")
    with pytest.raises(TraceError, match="exists already"):
        TraceWriter(path, info)
    writer = TraceWriter(path, info, overwrite=True, flush_seconds=math.inf)
    assert path.read_bytes() == b"the old one"  # nothing worth it was recorded yet
    writer.write_step(steps[0])
    writer.flush()
    with open_trace(path) as trace:
        assert trace.num_tokens == 7
    writer.close()
    assert [each.name for each in tmp_path.iterdir()] == ["x.msgpack"]


@pytest.mark.parametrize("before", [None, b"the old one"])
def test_a_second_recording_into_one_file_is_refused_and_the_first_goes_on(tmp_path, info, steps, before):
    path = tmp_path / "x.msgpack"
    if before is not None:
        path.write_bytes(before)
    writer = TraceWriter(path, info, overwrite=True, flush_seconds=math.inf)
    for step in (steps[0], steps[1]):  # before it has replaced the old one, and after
        assert being_written(path)
        with pytest.raises(TraceError, match=r"x\.msgpack is being written by another recording"):
            TraceWriter(path, info, overwrite=True)
        writer.write_step(step)
        writer.flush()
    writer.close()
    assert not writer.problem
    assert not being_written(path)
    with TraceWriter(path, info, overwrite=True) as other:
        other.write_step(steps[0])
    with open_trace(path) as trace:
        assert (trace.num_tokens, trace.complete) == (7, True)
    assert [each.name for each in tmp_path.iterdir()] == ["x.msgpack"]


def test_a_recording_that_was_killed_can_be_replaced_at_once(tmp_path, info):
    process = start_recording(tmp_path / "x.msgpack")
    process.stdout.readline()
    assert being_written(tmp_path / "x.msgpack")
    process.kill()
    process.communicate()
    TraceWriter(tmp_path / "x.msgpack", info, overwrite=True).close()


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_file(tmp_path, info):
    writer = TraceWriter(tmp_path / "x.msgpack", info)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(theirs)
        os.read(ours, 1)  # until it may go
        os._exit(0)
    writer.close()
    assert not being_written(tmp_path / "x.msgpack")
    os.close(theirs)
    os.waitpid(child, 0)
    os.close(ours)


def test_a_linked_file_is_replaced_where_it_is(tmp_path, info, steps):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.msgpack").write_bytes(b"the old one")
    (tmp_path / "x.msgpack").symlink_to(tmp_path / "real" / "x.msgpack")
    with TraceWriter(tmp_path / "x.msgpack", info, overwrite=True) as writer:
        writer.write_step(steps[0])
    assert (tmp_path / "x.msgpack").is_symlink()
    with open_trace(tmp_path / "real" / "x.msgpack") as trace:
        assert trace.num_tokens == 7


@pytest.mark.parametrize("name", ["no/x.msgpack", "folder", "x\0y"])
def test_places_that_cannot_be_written_are_one_clear_error(tmp_path, info, name):
    (tmp_path / "folder").mkdir()
    for overwrite in (False, True):
        with pytest.raises(TraceError):
            TraceWriter(tmp_path / name, info, overwrite=overwrite)
    with pytest.raises(TraceError, match="regular"):
        TraceWriter("/dev/full", info, overwrite=True)


def test_an_exception_while_recording_marks_the_file_as_incomplete(tmp_path, info, steps):
    with suppress(RuntimeError), TraceWriter(tmp_path / "x.msgpack", info) as writer:
        writer.write_step(steps[0])
        raise RuntimeError
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.num_tokens == 7
        assert "marked as incomplete" in trace.findings[0].message


def test_closed_writers_take_nothing_more(tmp_path, info, steps):
    writer = TraceWriter(tmp_path / "x.msgpack", info)
    writer.write_step(steps[0])
    writer.close()
    size = (tmp_path / "x.msgpack").stat().st_size
    writer.write_step(steps[1])
    writer.write_event(RunStateChanged(RunState.PAUSED))
    writer.flush()
    writer.close()
    assert (tmp_path / "x.msgpack").stat().st_size == size == writer.nbytes


def test_read_while_it_is_written(tmp_path):
    """What a reader has seen stays as it is, and in the end it has seen all."""
    info, rng = make_info(), np.random.default_rng(0)
    path = tmp_path / "x.msgpack"
    steps = [make_step(info, rng, index, 1 + 40 * (index % 7), Phase.DECODE, 0, index) for index in range(300)]
    writer = TraceWriter(path, info, flush_seconds=0.01)

    def record():
        for step in steps:
            writer.write_step(step)
        writer.close()

    thread = threading.Thread(target=record)
    seen = []
    with open_trace(path) as trace:
        thread.start()
        while not trace.ended:
            written = not thread.is_alive()
            trace.refresh()
            end = trace.num_tokens
            if not seen or seen[-1][0] != end:
                seen.append((end, trace.timeline.tokens(0, end).token_id.copy()))
            assert trace.timeline.steps().num_tokens.sum() == end
            assert trace.ended or not written, "all was written before this refresh, and yet it has not ended"
        thread.join()
        whole = np.concatenate([step.token_id for step in steps])
        assert trace.num_tokens == len(whole)
        for end, ids in seen:
            assert ids.tolist() == whole[:end].tolist()
        assert trace.verify() == ()
    assert len({end for end, _ in seen}) > 2


def test_many_threads_may_write_events_beside_the_recorder(tmp_path, info):
    writer = TraceWriter(tmp_path / "x.msgpack", info, flush_seconds=0.01)
    hit = BreakpointHit(1, "x", 0, 0, "", 1, log_only=True)

    def log():
        for _ in range(300):
            writer.write_event(hit)

    threads = [threading.Thread(target=log) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in make_steps(info, decode=100):
        writer.write_step(step)
    for thread in threads:
        thread.join()
    writer.close()
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert len(trace.events) == 900
        assert trace.num_tokens == 107
        assert trace.verify() == ()


@pytest.mark.parametrize(("kind", "complete"), [("step_lost", False), ("capture_failed", False), ("dead_expert", True)])
def test_a_recording_that_lacks_steps_says_so(tmp_path, info, steps, kind, complete):
    with TraceWriter(tmp_path / "x", info) as writer:
        writer.write_step(steps[0])
        writer.write_event(FindingRaised(Finding(kind, "error", "step 1 was not recorded")))
        writer.write_step(steps[2])
    with open_trace(tmp_path / "x") as trace:
        assert trace.complete == complete
        assert trace.stats()["complete"] == complete
        assert [finding.kind for finding in trace.findings] == (
            ["dead_expert"] if complete else ["trace_incomplete", kind]
        )
