"""What a fresh interpreter may have imported: the second fence around the rooms, next to import-linter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "accelerate", "tokenizers", "safetensors")


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\njson.dump(sorted(sys.modules), open(sys.argv[1], 'w'))"
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [sys.executable, "-c", script, file.name], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return set(json.loads(Path(file.name).read_text()))


def after_command(*args: str) -> set[str]:
    return modules_after(
        "import moetui.cli\n"
        f"try:\n    moetui.cli.main({list(args)!r})\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end.code"
    )


def test_importing_moetui_imports_nothing_heavy() -> None:
    loaded = modules_after("import moetui")
    assert not loaded & {*HEAVY, "numpy", "textual", "rich", "click", "msgpack"}


def test_help_imports_click_alone() -> None:
    loaded = after_command("--help")
    assert "click" in loaded
    assert not loaded & {*HEAVY, "numpy", "textual", "rich", "msgpack", "moetui.routing"}


@pytest.mark.parametrize("room", ["routing", "trace", "session", "console", "tui"])
def test_rooms_load_without_torch(room: str) -> None:
    loaded = modules_after(f"import moetui.{room}")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ["LiveSession", "LiveOptions", "ReplaySession"])
def test_sessions_are_there_before_torch_is(name: str) -> None:
    loaded = modules_after(f"from moetui.session import {name}")
    assert not loaded & {*HEAVY, "textual"}


@pytest.mark.parametrize("room", ["routing", "trace", "session", "console"])
def test_only_the_tui_draws(room: str) -> None:
    assert "textual" not in modules_after(f"import moetui.{room}")


def test_the_first_picture_waits_for_no_room_that_it_does_not_show() -> None:
    """All that ``moetui run`` imports before the app runs; the console's sixty commands load behind the picture."""
    loaded = modules_after(
        "import moetui.tui\n"
        "moetui.tui.run_app = lambda session, screen: 0\n"
        "import moetui.cli, moetui.tui.app\n"
        "try:\n    moetui.cli.main(['run', 'demo'])\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end.code"
    )
    assert "moetui.tui.app" in loaded
    assert not [name for name in loaded if name.startswith("moetui.console")]
    assert not loaded & set(HEAVY)
