"""What a fresh interpreter may have imported: the second fence around the rooms, next to import-linter."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tui.pty_terminal import terminal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOLDEN = Path(__file__).parent / "trace" / "golden" / "v1.msgpack"
HEAVY = ("torch", "transformers", "accelerate", "tokenizers", "safetensors")


def modules_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\njson.dump(sorted(sys.modules), open(sys.argv[1], 'w'))"
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [sys.executable, "-c", script, file.name], capture_output=True, text=True, timeout=200, check=False
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


def test_the_console_script_begins_without_imports() -> None:
    """Python prints a traceback for a Ctrl-C that comes before ``entry`` looks after it."""
    loaded = modules_after("from moetui.cli import entry") - modules_after("")
    assert loaded <= {"__future__", "moetui", "moetui._version", "moetui.cli"}


def test_help_imports_click_alone() -> None:
    loaded = after_command("--help")
    assert "click" in loaded
    assert not loaded & {*HEAVY, "numpy", "textual", "rich", "msgpack", "moetui.routing"}


def test_what_is_imported_is_declared_and_explained() -> None:
    root = Path(__file__).parents[1]
    imported = set()
    for path in root.glob("moetui/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    library = {*sys.stdlib_module_names, "tomllib"}  # of 3.11; 3.10 has the declared tomli
    names = {name.replace("_", "-") for name in imported - library - {"moetui"}}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {re.split("[^a-z0-9-]", line)[0] for line in project["dependencies"]}
    assert names - declared == {"pyarrow"}, "which only an extra asks for"
    table = (root / "docs" / "dependencies.md").read_text().splitlines()
    explained = {line.split()[1] for line in table if line.startswith("| ")} - {"package"}
    assert declared <= explained


@pytest.mark.parametrize("room", ["routing", "trace", "session", "console", "tui"])
def test_rooms_load_without_torch(room: str) -> None:
    loaded = modules_after(f"import moetui.{room}")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ["LiveSession", "LiveOptions", "ReplaySession"])
def test_sessions_are_there_before_torch_is(name: str) -> None:
    loaded = modules_after(f"from moetui.session import {name}")
    assert not loaded & {*HEAVY, "textual"}


@pytest.mark.parametrize("room", ["routing", "session"])
def test_doors_load_without_arrays(room: str) -> None:
    loaded = modules_after(f"import moetui.{room}\nassert 'drawable' in dir(moetui.routing)")
    assert "numpy" not in loaded


@pytest.mark.parametrize("room", ["routing", "trace", "session", "console"])
def test_only_the_tui_draws(room: str) -> None:
    assert "textual" not in modules_after(f"import moetui.{room}")


FIRST_PICTURE = """
import json, sys
import moetui.tui.app as it
def begin(app):
    json.dump(sorted(sys.modules), open({note!r}, "w"))
    app.exit(0)
it.MoetuiApp._begin = begin
from moetui.cli import main
main({arguments!r})
"""


@pytest.mark.parametrize("arguments", [["run", "demo"], ["replay", str(GOLDEN)]], ids=["run", "replay"])
def test_the_first_picture_waits_for_nothing_that_it_does_not_show(arguments: list[str], tmp_path: Path) -> None:
    """All that was imported when the first picture was on the screen; what is behind it comes behind it."""
    note = tmp_path / "modules.json"
    code = FIRST_PICTURE.format(note=str(note), arguments=arguments)
    with terminal([sys.executable, "-c", code], environ={"XDG_CONFIG_HOME": str(tmp_path)}) as opened:
        assert opened.wait(30)[0] == 0
    for shown in ("moetui", "Profiler", "loading", "opening", "quit" if "replay" in arguments else "help"):
        assert shown.encode() in opened.received
    loaded = set(json.loads(note.read_text()))
    assert not loaded & {*HEAVY, "numpy", "janus", "importlib.metadata", "email.message"}
    assert not loaded & {"moetui.routing.timeline", "moetui.routing.query", "moetui.routing.metrics"}
    rooms = [name for name in loaded if name.startswith(("moetui.console", "moetui.debugger", "moetui.engine"))]
    panels = [name for name in loaded if name.startswith("moetui.tui.panels.")]
    sessions = [name for name in loaded if name in ("moetui.session.live", "moetui.session.replay")]
    files = [name for name in loaded if name.startswith("moetui.trace.") and name != "moetui.trace.frames"]
    assert [*rooms, *panels, *sessions, *files] == []
