"""The bytes of a file: mapped, and safe all the same when the file is cut short under the reader."""

import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moetui.routing import TraceError
from moetui.trace import TraceWriter, open_trace
from moetui.trace import source as source_module
from moetui.trace.frames import DamagedError
from moetui.trace.source import FileSource
from tests.trace.trace_cases import make_steps, same_array

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path, info):
    with TraceWriter(tmp_path / "x.msgpack", info) as writer:
        for step in make_steps(info, prefill=20_000):
            writer.write_step(step)
    return tmp_path / "x.msgpack"


CUT = """
import os, sys
from moetui.routing import TraceError
from moetui.trace import open_trace

path, size = sys.argv[1], int(sys.argv[2])
with open_trace(path) as trace:
    assert trace._source.mapped == os.path.getsize(path)
    view = trace.timeline
    view.tokens(0, 10)
    os.truncate(path, size)
    for start in range(0, view.end, 1000):
        view.tokens(start, start + 1000)
        view.routing(start, start + 1000).logits
    trace.refresh()
    findings = [finding.kind for finding in trace.verify()]
    assert "trace_damaged" in findings, findings
    assert not trace.complete
try:
    open_trace(path)
except TraceError as error:
    print(error.message)
"""


@pytest.mark.parametrize("size", [0, 1, 3000, 4096, 65_536, 100_001])
def test_a_file_cut_short_under_its_reader_is_damage_and_kills_nobody(path, size):
    # In a process of its own: a mapped page that is gone would end it.
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(path), str(size)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert ("empty" in done.stdout) == (size == 0)


def test_a_piece_ends_where_the_file_does(tmp_path):
    whole = np.random.default_rng(0).bytes(600_000)
    (tmp_path / "x").write_bytes(whole)
    source = FileSource(tmp_path / "x")
    assert source.mapped == source.size == 600_000
    for start, length in ((0, 96), (599_990, 96), (0, 600_000), (300_000, 1 << 18), (599_999, 1 << 20), (700_000, 5)):
        assert source.read(start, length) == whole[start : start + length]
    os.truncate(tmp_path / "x", 5000)
    for start, length in ((0, 96), (4990, 96), (4096, 2000), (5000, 1), (8192, 96), (0, 600_000)):
        assert source.read(start, length) == whole[:5000][start : start + length]
    source.close()
    with pytest.raises(TraceError, match="closed"):
        source.read(0, 1)


def test_what_was_appended_is_seen_after_a_look_and_mapped(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a" * 5000)
    source = FileSource(path)
    with path.open("ab") as stream:
        stream.write(b"b" * 5000)
    assert source.read(4999, 100) == b"a"
    assert source.look() == source.mapped == 10_000
    assert source.read(4999, 100) == b"a" + b"b" * 99
    os.truncate(path, 100)
    assert source.look() == source.mapped == 100
    os.truncate(path, 0)
    assert (source.look(), source.mapped, source.read(0, 10)) == (0, 0, b"")
    path.write_bytes(b"again")
    source.look()
    assert source.read(0, 10) == b"again"
    source.close()


def test_a_file_that_cannot_be_mapped_is_read(path, monkeypatch):
    with open_trace(path) as trace:
        want = trace.timeline.routing(0, 20_005).logits
        steps = trace.timeline.steps().first_token

    def refuse(*args, **options):
        raise OSError(errno.ENODEV, "not here")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with open_trace(path) as trace:
        assert trace._source.mapped == 0
        same_array(trace.timeline.routing(0, 20_005).logits, want)
        assert trace.timeline.steps().first_token.tolist() == steps.tolist()
        assert trace.complete


def test_an_error_of_the_disk_is_damage(path, monkeypatch):
    with open_trace(path) as trace:

        def fail(*args):
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "pread", fail)
        monkeypatch.setattr(source_module, "_MAPPED", 0)
        with pytest.raises(DamagedError, match="Input/output error"):
            trace._source.read(0, 10)
        assert np.isnan(trace.timeline.routing(0, 10).logits).all()
        assert "trace_damaged" in [finding.kind for finding in trace.findings]


RESIDENT = """
import sys
from pathlib import Path
from moetui.trace.source import FileSource

def megabytes(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) >> 10

source = FileSource(Path(sys.argv[1]))
for start in range(0, source.size, 1 << 20):  # into the page cache, from where the system maps freely
    source.read(start, 1 << 20)
before = megabytes("VmHWM")
for start in range(0, source.size, 4096):
    source.read(start, 96)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what is resident is asked of /proc")
def test_what_was_looked_at_does_not_stay_in_memory(tmp_path):
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(128 << 20)
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(tmp_path / "x")], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64
