"""The screen in a real pseudo-terminal: how fast it leaves, what it leaves behind, what it asks of a poor terminal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.busy import takes_less
from tests.tui.pty_terminal import Terminal, leave_prompt, terminal

PLAY = [sys.executable, "-m", "tests.tui.play"]
LEFT = b"\x1b[?1049l"  # the alternate screen was left
CURSOR_SHOWN = b"\x1b[?25h"
COLOR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|38;[25]|48;[25])[0-9;]*m")


def start_run(opened: Terminal, prompt: str = "once there was") -> None:
    opened.until(lambda: re.search("[○o] ready", opened.text()))
    opened.send(f"{prompt}\r")
    opened.sees("running")


def flags(opened: Terminal) -> int:
    return int(termios.tcgetattr(opened.fd)[3])


def restored(opened: Terminal) -> bool:
    return LEFT in opened.received and CURSOR_SHOWN in opened.received.split(LEFT)[-1]


@pytest.mark.parametrize("keys", ["\x1bq", "\x11", "\x03"])
def test_quitting_when_ready(keys: str) -> None:
    def attempt() -> float:
        with terminal(PLAY) as opened:
            before = flags(opened)
            opened.sees("○ ready")
            if keys.startswith("\x1b"):
                leave_prompt(opened)
            opened.send(keys[-1])
            status, seconds = opened.wait()
            assert status == 0
            assert restored(opened)
            assert flags(opened) == before
            assert b"closed" in opened.received.split(LEFT)[-1]
            return seconds

    takes_less(1.5, attempt)


def test_quitting_while_it_runs() -> None:
    def attempt() -> float:
        with terminal(PLAY) as opened:
            start_run(opened)
            opened.send("\x11")
            status, seconds = opened.wait()
            assert (status, restored(opened)) == (0, True)
            return seconds

    takes_less(1.5, attempt)


def test_quitting_while_it_loads() -> None:
    def attempt() -> float:
        with terminal([*PLAY, "--never-loads"]) as opened:
            opened.sees("importing torch")
            opened.send("\x11")
            status, seconds = opened.wait()
            assert (status, restored(opened)) == (0, True)
            return seconds

    takes_less(1.5, attempt)


def test_ctrl_c_pauses_then_quits() -> None:
    with terminal(PLAY) as opened:
        start_run(opened)
        opened.send("\x03")
        opened.sees("paused")
        opened.send("\x03")
        assert opened.wait()[0] == 0


def test_a_failure_is_told_after_leaving() -> None:
    with terminal([*PLAY, "--fail"]) as opened:
        opened.sees("no such model: nothing")
        opened.send("\x11")
        assert opened.wait()[0] == 1
        after = opened.received.split(LEFT)[-1].decode()
        assert "error: no such model: nothing\r\nhint: 'moetui models' lists names" in after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_close_the_session_and_restore_the_terminal(number: int) -> None:
    def attempt() -> float:
        with terminal(PLAY) as opened:
            start_run(opened)
            opened.signal(number)
            status, seconds = opened.wait()
            assert status == 128 + number
            assert restored(opened)
            assert b"closed" in opened.received.split(LEFT)[-1]
            return seconds

    takes_less(1.5, attempt)


def test_a_lost_terminal_ends_it() -> None:
    def attempt() -> float:
        with terminal(PLAY) as opened:
            start_run(opened)
            opened.hang_up()
            status, seconds = opened.wait()
            assert status != 0
            return seconds

    takes_less(3.0, attempt)


def test_a_terminal_that_stopped_reading_does_not_keep_it() -> None:
    def attempt() -> float:
        with terminal([*PLAY, "--rate", "200"], columns=200, rows=60, answers=False) as opened:
            start_run(opened)
            time.sleep(1.5)  # nothing is read meanwhile: the terminal's buffer fills
            opened.signal(signal.SIGTERM)
            started = time.monotonic()
            status = None
            while status is None and time.monotonic() - started < 10.0:
                status = opened.ended()
                time.sleep(0.02)
            assert status == 128 + signal.SIGTERM
            return time.monotonic() - started

    takes_less(2.0, attempt)


def test_suspending_and_coming_back() -> None:
    shell = ["bash", "--norc", "-i", "-c", f"set -m; {' '.join(PLAY)}; fg >/dev/null; echo back"]
    with terminal(shell) as opened:
        opened.sees("○ ready")
        leave_prompt(opened)
        opened.send("\x1a")
        # The shell's next command is ``fg``: the screen comes back whole.
        opened.until(lambda: opened.received.count(b"\x1b[?1049h") == 2)
        opened.until(lambda: "Network" in opened.text() and "○ ready" in opened.text() and "quit" in opened.text())
        opened.send("\x11")
        opened.until(lambda: b"back" in opened.received)


def picture(opened: Terminal) -> tuple[list[str], str]:
    """What of the title stays whatever the line carries, which painting anew changes; and the rest."""
    title, *rest = opened.screen.display
    return re.findall(r"\bdemo\b|\d+×\d+ top-\d+|‖ paused|token \d+/\d+", title), "\n".join(rest)


def test_resizing_leaves_no_ghosts() -> None:
    with terminal(PLAY, columns=120, rows=40) as opened:
        start_run(opened)
        for columns, rows in ((80, 24), (132, 43), (40, 12), (100, 30)):
            opened.resize(columns, rows)
            opened.until(lambda: opened.screen.display[0].startswith((" moetui", " demo")))
            opened.pump(0.6)
        opened.send(" ")
        opened.sees("paused")
        opened.rest(1.2)  # longer than the slowest screen waits for a frame
        before = picture(opened)
        assert len(before[0]) == 4
        opened.send("\x0c")  # ctrl+l: all anew
        opened.rest()
        assert picture(opened) == before


@pytest.mark.parametrize(
    ("keys", "sign"),
    [("?", "─ keys"), ("!", "─ findings"), (":stats\r", "experts a token"), ("3", "moe›")],
    ids=["help", "findings", "drawer", "console"],
)
def test_a_terminal_too_small_for_anything_and_back_again(keys: str, sign: str) -> None:
    with terminal(PLAY, columns=100, rows=30) as opened:
        start_run(opened)
        opened.send(keys)
        opened.sees(sign)
        for columns, rows in ((40, 12), (20, 5), (40, 12), (100, 30)):
            opened.resize(columns, rows)
            opened.pump(0.5)
        opened.until(lambda: "demo" in opened.screen.display[0] and "help" in opened.screen.display[-1])
        opened.until(lambda: "needed" not in opened.text())
        if keys not in "?!":
            opened.sees("moe›")
        opened.until(lambda: opened.text().count("Mixtral") == 1)
        opened.send("\x11")
        assert opened.wait()[0] == 0
        assert b"Traceback" not in opened.received


def test_no_color_means_none() -> None:
    for arguments, environ in (([], {"NO_COLOR": "1"}), (["--color", "none"], {})):
        with terminal([*PLAY, *arguments], environ=environ) as opened:
            start_run(opened)
            opened.sees("token 1")
            opened.until(lambda: b"\x1b[0;7m" in opened.received)  # a cursor is still seen
            opened.pump(0.5)
            assert not COLOR.search(bytes(opened.received))


def test_sixteen_and_256_colors_are_kept_to() -> None:
    with terminal([*PLAY, "--color", "16"]) as opened:
        start_run(opened)
        opened.sees("token 1")
        opened.pump(0.5)
        assert not re.search(rb"[34]8;[25];", bytes(opened.received))
    with terminal([*PLAY, "--low-bandwidth"]) as opened:
        start_run(opened)
        opened.sees("token 1")
        opened.until(lambda: re.search(rb"[34]8;5;", bytes(opened.received)))
        opened.pump(0.5)
        assert not re.search(rb"[34]8;2;", bytes(opened.received))
        assert b"\x1b[?1003h" not in opened.received


def test_ascii_means_ascii() -> None:
    with terminal([*PLAY, "--ascii"], columns=120, rows=40) as opened:
        start_run(opened)
        for key in "1243":
            opened.send(key)
            opened.pump(0.7)
            strange = {char for char in opened.text() if not char.isascii()}
            assert not strange, (key, strange, opened.text())


def test_a_dumb_terminal_is_refused_with_a_way_out() -> None:
    with terminal(PLAY, environ={"TERM": "dumb"}) as opened:
        assert opened.wait()[0] == 2
        assert b"record" in opened.received
        assert b"\x1b[?1049h" not in opened.received


def test_no_terminal_at_all_is_refused() -> None:
    done = subprocess.run(PLAY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


@pytest.mark.parametrize("told", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_where_python_writes_no_utf8_the_screen_is_drawn_in_ascii(told: dict[str, str]) -> None:
    with terminal(PLAY, environ=told) as opened:
        start_run(opened)
        assert "\\" not in opened.text()  # as Python escapes what its encoding lacks
