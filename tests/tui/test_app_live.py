"""The command itself, on the model that ships inside the package: from its first picture to what it leaves behind."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.tui.pty_terminal import terminal

MOETUI = [sys.executable, "-m", "moetui"]
PATIENCE = 90.0  # s: torch on a busy machine


@pytest.fixture
def quiet_home(tmp_path: Path) -> dict[str, str]:
    """No settings and no history of whoever runs the tests."""
    return {name: str(tmp_path) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}


def test_run_record_replay(tmp_path: Path, quiet_home: dict[str, str]) -> None:
    trace = tmp_path / "x.msgpack"
    with terminal(
        [*MOETUI, "run", "demo", "-n", "24", "--record", str(trace)], columns=120, rows=40, environ=quiet_home
    ) as opened:
        opened.sees("loading", PATIENCE)
        opened.send("Once there was\r")  # typed while it loads: it runs when the model is there
        opened.sees("✓ finished", PATIENCE)
        opened.sees("token 24/24")
        opened.send("2")
        opened.sees("MixtralForCausalLM")
        opened.sees("parameters by part")
        opened.send("4")
        opened.sees("host time by layer")
        opened.send("3")
        opened.sees("moe›")
        opened.sees("run 0 · 27 tokens · finished")
        assert re.search(r"Once there was( \w+)+", opened.text()), "what it wrote can be read as text"
        opened.send("1 + model.config.num_local_experts\r")
        opened.until(lambda: re.search(r"^\s+\d+\s*$", opened.text(), re.MULTILINE))
        opened.send("\x11")
        status, seconds = opened.wait(20)
        assert status == 0
        assert seconds < 2.5  # of which the interpreter's own end, with torch in it, is most
    assert trace.stat().st_size > 1000
    with terminal([*MOETUI, "replay", str(trace)], columns=100, rows=30, environ=quiet_home) as opened:
        opened.sees("x.msgpack", PATIENCE)
        opened.sees("27/27", PATIENCE)  # played to its end: sought in before, it would play on
        opened.send("g")
        opened.sees("go to token", PATIENCE)
        opened.pump(0.3)
        opened.send("5\r")
        opened.sees("6/27", PATIENCE)
        opened.send("2")
        opened.sees("MixtralForCausalLM", PATIENCE)
        opened.send("q")
        assert opened.wait(20)[0] == 0


def test_a_run_of_the_command_line_is_seen_as_it_goes(quiet_home: dict[str, str]) -> None:
    command = [*MOETUI, "run", "demo", "-n", "400", "-p", "1 + 1 = "]
    seen: set[str] = set()

    def watched() -> bool:
        assert "running" not in opened.text() or "opening demo" not in opened.text()
        seen.update(re.findall(r"● running +token (\d+/400)", opened.text()))
        return "✓ finished" in opened.text()

    for _ in range(3):  # a busy machine may swallow a picture
        seen.clear()
        with terminal(command, columns=120, rows=40, environ=quiet_home) as opened:
            opened.sees("❯ 1 + 1 =", PATIENCE)
            end = time.monotonic() + PATIENCE
            while not watched():
                assert time.monotonic() < end, opened.text()
                opened.pump(0.005)
            opened.send("\x11")
            assert opened.wait(20)[0] == 0
        if seen:
            return
    raise AssertionError(f"seen: {sorted(seen)}")


def test_leaving_while_torch_is_imported(quiet_home: dict[str, str]) -> None:
    with terminal([*MOETUI, "run", "demo"], columns=80, rows=24, environ=quiet_home) as opened:
        opened.sees("loading", PATIENCE)
        opened.pump(0.7)
        opened.send("\x11")
        opened.until(lambda: b"\x1b[?1049l" in opened.received, 3.0)  # the screen is given back at once
        status, _ = opened.wait(20)
        assert status == 0
        assert b"Traceback" not in opened.received
        assert b"Fatal" not in opened.received


def test_a_model_that_is_not_there(quiet_home: dict[str, str]) -> None:
    with terminal([*MOETUI, "run", "./nothing-here"], columns=80, rows=24, environ=quiet_home) as opened:
        opened.until(lambda: "could not be opened" in opened.text() or b"error:" in opened.received, PATIENCE)
        opened.send("q")
        status, _ = opened.wait(20)
        assert status in (1, 2)
        assert re.search(rb"error: [^\r\n]+\r\nhint: [^\r\n]+", bytes(opened.received))


def test_a_script_runs_in_the_console_and_the_prompt_behind_it(tmp_path: Path, quiet_home: dict[str, str]) -> None:
    script = tmp_path / "story.moe"
    script.write_text("# before the prompt\nban_experts 2 --layers 4\ninterventions\n")
    command = [*MOETUI, "run", "demo", "-n", "6", "-p", "Once there was", "--exec", str(script)]
    with terminal(command, columns=120, rows=40, environ=quiet_home) as opened:
        opened.sees("moe› interventions", PATIENCE)
        opened.sees("✓ finished", PATIENCE)
        opened.sees("token 6/6")
        opened.send("\x11")
        assert opened.wait(20)[0] == 0


def test_a_script_stops_at_its_first_error_and_the_prompt_waits(
    tmp_path: Path, quiet_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.moe").write_text("config\n\nban_experts 99\ninterventions\n")
    command = [*MOETUI, "run", "demo", "-n", "6", "-p", "Once there was", "--exec", "story.moe"]
    with terminal(command, columns=120, rows=40, environ=quiet_home) as opened:
        opened.sees("error: story.moe, line 3: experts: 99 is no expert of this model", PATIENCE)
        opened.sees("hint: experts 0 to 7")
        opened.sees("○ ready")
        opened.sees("Once there was")
        assert "moe› interventions" not in opened.text()
        opened.send("\x11")
        assert opened.wait(20)[0] == 0


STORY = """\
break_when entropy < 0.4 and layer == 5
generate "Once there was" -n 24
why
fork --name forced
breakpoints --remove 1
force_expert_selection 0 3 7
continue
compare
undo
branches
save x.msgpack
"""


def test_the_debuggers_story_from_a_script_to_its_replay(
    tmp_path: Path, quiet_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.moe").write_text(STORY)
    with terminal([*MOETUI, "run", "demo", "--exec", "story.moe"], columns=120, rows=40, environ=quiet_home) as opened:
        opened.sees("x.msgpack: ", PATIENCE)
        opened.sees("✓ finished")
        opened.send("\x1b3")  # the whole tab, not the drawer
        opened.sees("└─ forced", PATIENCE)
        opened.sees("before they part are the same ones", PATIENCE)
        opened.send("\x11")
        assert opened.wait(20)[0] == 0
    with terminal(
        [*MOETUI, "replay", "x.msgpack", "--speed", "64"], columns=120, rows=40, environ=quiet_home
    ) as opened:
        opened.sees("✓ finished", PATIENCE)
        opened.send("3")
        opened.sees("moe›", PATIENCE)
        opened.send("branches\r")
        opened.sees("└─ forced", PATIENCE)
        opened.send("marks\r")
        opened.sees("breakpoint     entropy < 0.4 and layer:5", PATIENCE)
        opened.sees("none any more", PATIENCE)
        opened.send("\x11")
        assert opened.wait(20)[0] == 0
