"""The debugger's story in a real terminal: stop on a condition, look, fork, force, go on, compare, save, replay."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.busy import takes_less
from tests.tui.pty_terminal import Terminal, leave_prompt, terminal

MOETUI = [sys.executable, "-m", "moetui"]
PLAY = [sys.executable, "-m", "tests.tui.play"]
PATIENCE = 90.0  # s: torch on a busy machine
LEFT = b"\x1b[?1049l"  # the alternate screen was left
CTRL_C, CTRL_Q, F1 = "\x03", "\x11", "\x1bOP"


@pytest.fixture
def quiet_home(tmp_path: Path) -> dict[str, str]:
    """No settings, breakpoints or history of whoever runs the tests."""
    return {name: str(tmp_path) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}


def typed(opened: Terminal, text: str, *answers: str) -> None:
    """Type a line into the console and wait for what it says."""
    opened.send(f"{text}\r")
    opened.sees(f"moe› {text}", PATIENCE)
    for answer in answers:
        opened.until(lambda answer=answer: re.search(answer, opened.text()), PATIENCE)


def test_stop_look_fork_force_compare_save_replay(tmp_path: Path, quiet_home: dict[str, str]) -> None:
    trace = tmp_path / "story.msgpack"
    with terminal([*MOETUI, "run", "demo", "-n", "24"], columns=120, rows=50, environ=quiet_home) as opened:
        opened.sees("○ ready", PATIENCE)
        leave_prompt(opened)
        opened.send("3")
        opened.sees("moe›")
        typed(opened, "break_when entropy < 0.4 and layer == 5", "1: stops when entropy < 0.4 and layer:5")
        opened.send("\x1b[5;5~" * 2)  # ctrl+page up: letters would be typed
        opened.sees("filter layer")
        opened.send("pOnce there was a\r")
        opened.sees("‖ paused", PATIENCE)
        opened.sees("entropy < 0.4 and layer:5")
        opened.until(lambda: re.search(r"token (\d+) · L5 .* entropy = 0\.[0-3]", opened.text()))
        opened.sees("c continue  n token  s layer  F fork  x stop")
        found = re.search(r"token (\d+) · L5", opened.text())
        assert found is not None
        token = int(found[1])
        opened.send("3")
        typed(opened, "why", r"L5 +E\d 0\.\d+")
        typed(opened, "fork", f"forked before token {token}")
        typed(opened, "force_expert_selection 0 3 7", "forced experts 0, 3, 7 everywhere")
        typed(opened, "breakpoints --disable 1", r"stops \(off\)")
        typed(opened, "continue")
        opened.sees("✓ finished", PATIENCE)
        typed(opened, "compare", rf"run 0 and run 0 @{token}", r"choices? differ")
        typed(opened, "undo", "undone: no interventions")
        typed(opened, f"save {trace}", r"[\d,]+ bytes")
        opened.send(CTRL_Q)
        assert opened.wait(20)[0] == 0
    with terminal([*MOETUI, "replay", str(trace)], columns=120, rows=50, environ=quiet_home) as opened:
        opened.sees("following", PATIENCE)
        opened.send("3")
        opened.sees("moe›")
        typed(opened, "speed 64")
        opened.sees("✓ finished", PATIENCE)
        marks = [rf"{token} +breakpoint +entropy < 0\.4 and layer:5", rf"branch +run 0 @{token}"]
        typed(opened, "marks", *marks, r"interventions +force", r"interventions +none any more")
        typed(opened, "branches", rf"run 0 @{token} +here +[1-9]")
        typed(opened, "compare", rf"run 0 and run 0 @{token}", r"choices? differ")
        opened.send(CTRL_Q)
        assert opened.wait(20)[0] == 0


def leave(opened: Terminal, keys: str) -> float:
    """Seconds from these keys to the moment at which the shell has its screen back."""
    started = time.monotonic()
    opened.send(keys)
    opened.until(lambda: LEFT in opened.received, 10.0)
    seconds = time.monotonic() - started
    assert opened.wait()[0] == 0
    assert b"Traceback" not in opened.received
    return seconds


STATES = {
    "loading": (["--never-loads"], "importing torch", ""),
    "ready": ([], "○ ready", ""),
    "running": ([], "● running", "once there was\r"),
    "paused": ([], "‖ paused", "once there was\r "),
    "finished": (["--tokens", "3", "--rate", "200"], "✓ finished", "once there was\r"),
    "helped": ([], "The prompt before", F1),
    "in a drawer": ([], "moe›", "once there was\r:"),
    "at a line": ([], "ctrl+c gives it up", "once there was\r3while 1: __import__('time').sleep(.01)\r\r"),
    "searching": ([], "find›", "once there was\r3\x12"),
    "filtering": ([], "token:", "once there was\r/token:"),
}


@pytest.mark.parametrize("keys", [CTRL_Q, CTRL_C + CTRL_C], ids=["ctrl+q", "ctrl+c twice"])
@pytest.mark.parametrize("state", STATES)
def test_leaving_takes_less_than_a_second_in_every_state(
    state: str, keys: str, tmp_path: Path, quiet_home: dict[str, str]
) -> None:
    arguments, sign, before = STATES[state]

    def attempt() -> float:
        with terminal([*PLAY, *arguments], columns=100, rows=30, environ=quiet_home) as opened:
            if before:
                opened.sees("○ ready")
                opened.send(before)
            opened.sees(sign)
            return leave(opened, keys)

    takes_less(1.0, attempt)


STORY = "generate Once there was a garden -n 60"
# What is typed, and what is waited for before the next is.
MODEL_STATES = {
    "python in the model's thread": [("while True: pass\r", r"ctrl\+c gives it up")],
    "python that cannot be interrupted": [("import time; time.sleep(99)", r"ctrl\+c gives it up")],
    "at a breakpoint": [(f"break_when position == 9\r{STORY}", "‖ paused")],
    "inside a layer": [(f"break_when position == 9\r{STORY}", "‖ paused"), ("step_layer", "before L0")],
    "at an analysis": [
        (STORY, "✓ finished"),
        ("analyze_token_impact garden", r"analyze_token_impact[\s\S]*ctrl\+c gives it up"),
    ],
}


@pytest.mark.parametrize("state", MODEL_STATES)
def test_leaving_takes_less_than_a_second_whatever_the_model_does(state: str, quiet_home: dict[str, str]) -> None:

    def attempt() -> float:
        with terminal([*MOETUI, "run", "demo"], columns=100, rows=40, environ=quiet_home) as opened:
            opened.sees("○ ready", PATIENCE)
            leave_prompt(opened)
            opened.send("3")
            opened.sees("moe›")
            for line, sign in MODEL_STATES[state]:
                opened.send(f"{line}\r")
                opened.until(lambda sign=sign: re.search(sign, opened.text()), PATIENCE)
            return leave(opened, CTRL_Q)

    takes_less(1.0, attempt)


def test_a_line_that_runs_forever_on_the_model_is_given_up_and_the_next_one_runs(quiet_home: dict[str, str]) -> None:
    with terminal([*MOETUI, "run", "demo"], columns=100, rows=40, environ=quiet_home) as opened:
        opened.sees("○ ready", PATIENCE)
        leave_prompt(opened)
        opened.send("3")
        opened.sees("moe›")

        def attempt() -> float:
            # Of a line before this one nothing may run any more, or it is that one which is given up.
            opened.until(lambda: "ctrl+c gives it up" not in opened.text(), PATIENCE)
            before = opened.text().count("error: interrupted")
            opened.send("while True: pass\r\r")
            opened.sees("ctrl+c gives it up", PATIENCE)
            started = time.monotonic()
            opened.send(CTRL_C)
            opened.until(lambda: opened.text().count("error: interrupted") > before)
            return time.monotonic() - started

        takes_less(1.0, attempt)
        typed(opened, "model.config.num_local_experts * 5", "40")
        leave(opened, CTRL_Q)


def test_a_prompt_of_the_command_line_that_is_refused_is_an_error_after_leaving(quiet_home: dict[str, str]) -> None:
    command = [*MOETUI, "run", "demo", "-p", "word " * 600]
    with terminal(command, columns=120, rows=40, environ=quiet_home) as opened:
        opened.sees("the model's context is 512", PATIENCE)
        opened.send(CTRL_Q)
        assert opened.wait()[0] == 2
        after = opened.received.split(LEFT)[-1].decode()
        assert re.search(
            r"error: prompt is \d+ tokens, the model's context is 512\r\nhint: shorten the prompt\r\n", after
        )


def test_a_recording_that_broke_off_is_an_error_after_leaving(tmp_path: Path, quiet_home: dict[str, str]) -> None:
    trace = tmp_path / "x.msgpack"
    limited = ["sh", "-c", 'ulimit -f 4; exec "$0" "$@"', *MOETUI, "run", "demo", "-n", "40", "-p", "Once there was"]
    with terminal([*limited, "--record", str(trace)], columns=120, rows=40, environ=quiet_home) as opened:
        opened.sees("the recording stopped", PATIENCE)
        opened.sees("✓ finished", PATIENCE)
        opened.send(CTRL_Q)
        assert opened.wait()[0] == 1
        after = opened.received.split(LEFT)[-1].decode()
        assert "error: the recording is incomplete: cannot write x.msgpack: file too large\r\nhint: what was" in after
