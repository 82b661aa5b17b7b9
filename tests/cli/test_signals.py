"""Signals that end a command: the status says which, and nothing half written stays."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.trace import open_trace

LAYER = {"layer": 0, "router_logits_shape": [1, 4], "selected_experts": [[1]], "expert_weights": [[1.0]]}
LOG = {
    "num_experts": 4,
    "top_k": 1,
    "samples": [{"sample_id": 0, "num_tokens": 1, "tokens": ["a"], "token_ids": [5], "layers": [LAYER]}],
}

# Whatever runs the tests may ignore them.
HEARD = "for each in (signal.SIGTERM, signal.SIGHUP): signal.signal(each, signal.SIG_DFL)"
IMPORT = """
import signal, sys
{before}
import moetui.trace.importers.router_json as log
from moetui.cli import main
read = log.read
def held(path, partial, overwrite):
    partial.write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()  # until the test goes on
    return read(path, partial, overwrite)
log.read = held
main(["import", "log.json", "-o", "x.msgpack", "--force"])
"""


def importing(folder: Path, before: str = HEARD) -> subprocess.Popen[str]:
    """``moetui import`` with half of what it writes written."""
    (folder / "log.json").write_text(json.dumps(LOG))
    pipe = subprocess.PIPE
    code = IMPORT.format(before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_import_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "x.msgpack").write_bytes(b"precious")
    process = importing(tmp_path)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert process.communicate()[1] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.json", "x.msgpack"]
    assert (tmp_path / "x.msgpack").read_bytes() == b"precious"


IMPORTING = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = ["moetui", "config"]
from moetui.cli import entry
entry()
"""


@pytest.mark.parametrize("module", ["click", "moetui.cli.app", "moetui.cli.config"])
def test_an_interruption_while_it_is_imported_is_no_traceback(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(module=module)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("number", "output"), [(signal.SIGTERM, "x.msgpack"), (signal.SIGINT, "-")])
def test_a_recording_that_is_ended_says_where_it_is(tmp_path: Path, number: signal.Signals, output: str) -> None:
    (tmp_path / "x.moe").write_text("log_when position == 40\n")  # its line comes when the run is on its way
    code = f"import signal\n{HEARD}\nfrom moetui.cli import entry\nentry()"
    arguments = ["record", "random:mixtral", "-p", "some words", "-n", "480", "-o", output, "--exec", "x.moe"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"at token" in line:
            break
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number
    name, data = ("standard output", out) if output == "-" else (output, (tmp_path / output).read_bytes())
    (tmp_path / "kept").write_bytes(data)
    with open_trace(tmp_path / "kept") as trace:
        assert (40 < trace.num_tokens < 480, trace.complete) == (True, True)
    (told,) = err.decode().splitlines()
    assert re.fullmatch(rf"interrupted: {name}: [\d,]+ tokens, {len(data):,} bytes", told)


@pytest.mark.parametrize("how", ["terminal", "pipe"])
def test_a_recording_outlives_the_line_that_its_progress_goes_to(tmp_path: Path, how: str) -> None:
    """As where SSH breaks off, and the recording was told to stay (``nohup``, ``disown``)."""
    (tmp_path / "x.moe").write_text("log_when position > 40\n")
    ours, theirs = pty.openpty() if how == "terminal" else os.pipe()
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom moetui.cli import entry\nentry()"
    call = ["record", "random:mixtral", "-p", "some words", "-n", "200", "-o", "x.msgpack", "--exec", "x.moe"]
    process = subprocess.Popen([sys.executable, "-c", code, *call], cwd=tmp_path, stderr=theirs, start_new_session=True)
    os.close(theirs)
    heard = b""
    while b"at token" not in heard:
        heard += os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(200) == 0
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert (trace.num_tokens > 200, trace.complete) == (True, True)


def test_a_hangup_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    """As under ``nohup``, on which whoever leaves a long recording alone on a machine far away relies."""
    process = importing(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.num_tokens == 1
