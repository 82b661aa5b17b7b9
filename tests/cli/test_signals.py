"""Signals that end a command: the status says which, and nothing half written stays."""

from __future__ import annotations

import json
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
    assert process.communicate()[1] == "\n"  # what a terminal wrote as ^C stands by itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.json", "x.msgpack"]
    assert (tmp_path / "x.msgpack").read_bytes() == b"precious"


def test_a_hangup_that_is_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    """As under ``nohup``, on which whoever leaves a long recording alone on a machine far away relies."""
    process = importing(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    with open_trace(tmp_path / "x.msgpack") as trace:
        assert trace.num_tokens == 1
