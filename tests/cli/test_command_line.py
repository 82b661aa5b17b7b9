"""Help, errors, settings: what every command has."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.binding import Binding

from moetui import tui
from moetui.cli import cli
from moetui.cli.common import check_writable
from moetui.cli.doctor import _GPU_PROBE, _devices, _gpu, _terminal
from moetui.cli.key_clashes import DEFAULTS
from moetui.cli.key_names import NAMES, is_key
from moetui.cli.options import settings
from moetui.cli.values import interventions_of, numbers, prompt_of
from moetui.routing import UsageError
from moetui.routing.interventions import BanExperts, ForceExperts, Scope, SetTopK
from moetui.trace import open_trace
from moetui.tui import ScreenOptions
from moetui.tui.options import runs_python
from tests.cli.conftest import Called, Write
from tests.tui.pty_terminal import terminal

Call = Callable[..., Called]
COMMANDS = cli.list_commands(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(call: Call, name: str) -> None:
    done = call(name, "-h")
    assert done.status == 0
    assert done.out.startswith(f"Usage: moetui {name}")


@pytest.mark.parametrize("args", [[], ["-q"]])
def test_no_command_at_all_is_answered_with_the_help(call: Call, args: list[str]) -> None:
    done = call(*args)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: moetui")
    assert "moetui run demo" in done.err
    assert "error:" not in done.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["stast"], "did you mean 'stats'"),
        (["stats"], "Missing argument"),
        (["stats", "x", "--jsn"], "--jsn"),
        (["run"], "MODEL"),
        (["run", "demo", "-n", "0"], "max-new-tokens"),
        (["run", "demo", "-n", "many"], "max-new-tokens"),
        (["run", "demo", "-n", "1" + "0" * 30], "max-new-tokens"),
        (["run", "demo", "-p", "  "], "the prompt is empty"),
        (["run", "demo", "--top-p", "0"], "top-p"),
        (["run", "demo", "--temperature", "-1"], "temperature"),
        (["record", "demo", "-o", "x"], "record needs a prompt"),
        (["record", "demo", "-p", "", "-o", "x"], "the prompt is empty"),
        (["record", "demo", "-p", "a", "-o", "/no/such/folder/x"], "no such folder"),
        (["record", "demo", "-p", "a", "-o", "."], "is a directory"),
        (["record", "demo", "-p", "a", "-o", "/proc/x"], "error: cannot write /proc/x: "),
        (["run", "demo", "--record", "/proc/x.msgpack"], "error: cannot write /proc/x.msgpack: "),
        (["record", "demo", "-p", "a", "-o", "x", "--sample-rate", "0"], "sample-rate"),
        (["run", "demo", "--sample-rate", "0"], "sample-rate"),
        (["record", "demo", "-p", "a", "-o", __file__, "--force", "0"], "--overwrite replaces it"),
        (["record", "demo", "-p", "a", "-o", "x", "--layers", "1"], "--layers"),
        (["record", "demo", "-p", "a", "-o", "x", "--force", "a,b"], "is no number"),
        (["export", "x", "--format", "pdf", "-o", "-"], "pdf"),
        (["diff", "a", "b", "--json", "--tui"], "exclude"),
        (["replay", "x", "--speed", "100"], "speed"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(call: Call, args: list[str], words: str) -> None:
    done = call(*args)
    assert done.status == 2
    assert done.out == ""
    assert words in done.err
    lines = done.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert len(lines) == 1 or lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mixtrl-8x7b", "mixtral-8x7b"),
        ("./no/such/folder", "no/such/folder"),
        ("random:mixtrall", "mixtral"),
        ("\x1b[31mred", "␛"),
    ],
)
def test_a_wrong_model_is_one_line_and_status_1(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "x.msgpack"
    done = call("record", model, "-p", "a", "-o", out)
    assert done.status == 1
    assert words in done.err
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) <= 2
    assert not out.exists()


def test_the_settings_file_gives_defaults_and_the_call_wins(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('max_new_tokens = 7\ndevice = "cpu"\n[keys]\n"network.follow" = "u,ctrl+f"\n')
    document = json.loads(call("config", "--json", "--config", file).out)
    assert document["settings"]["max_new_tokens"] == {"value": 7, "origin": "file"}
    assert document["settings"]["theme"]["origin"] == "default"
    assert document["keys"] == {"network.follow": "u,ctrl+f"}


def test_the_environment_wins_over_the_file(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.toml"
    file.write_text('device = "cpu"\n')
    monkeypatch.setenv("MOETUI_DEVICE", "cuda:1")
    document = json.loads(call("--config", file, "config", "--json").out)
    assert document["settings"]["device"] == {"value": "cuda:1", "origin": "environment"}


def test_a_value_from_the_environment_is_blamed_on_its_variable(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOETUI_FPS", "abc")
    done = call("run", "demo")
    assert done.status == 2
    assert done.err.startswith("error: MOETUI_FPS: 'abc' ")
    assert "--fps" not in done.err


def test_a_mistyped_variable_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOETUI_COLOUR", "none")
    monkeypatch.setenv("MOETUI_MOUSE\x1b[2J", "1")
    done = call("config")
    assert done.status == 0
    warned = done.err.splitlines()
    assert warned[0] == "warning: MOETUI_COLOUR is not read; did you mean MOETUI_COLOR?"
    assert len(warned) == 2
    assert "\x1b" not in done.err


def test_a_signal_is_told_from_the_other(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt(15)

    monkeypatch.setattr("moetui.session.headless.run_headless", ended)
    assert call("record", "demo", "-p", "a", "-o", "never.msgpack").status == 143


def test_a_settings_file_reaches_the_command(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("fps = 9000\n")
    done = call("replay", "--config", file, tmp_path / "x")
    assert done.status == 2
    assert "fps" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("themee = 'x'", "did you mean 'theme'"),
        ("fps =", "is no TOML"),
        ("seed = 'x'", "seed"),
        ("theme = 'ligth'", "did you mean 'light'"),
        ("[keys]\na = 1", "keys"),
        ("[keys]\nfolow = 'z'", "'moetui config --keys' lists what there is"),
        ("[screen]\ntheme = 'dark'", "settings stand in no table"),
        ("ascii = 3", "ascii: '3' is not true or false"),
        ("buffer_tokens = 2.5", "buffer_tokens: '2.5' is not a whole number"),
        ("fps = true", "fps: 'True' is not a number"),
        ("fps = nan", "fps: nan is no finite number"),
        ("a = " + "[" * 100_000, "is no TOML"),
        ("theme = ['dark']", "theme: one value is wanted"),
        ("[keys]\nhlep = 'z'", "did you mean 'help'"),
        ("[keys]\nfollow = 'z'", "did you mean 'network.follow'"),
        ("[keys]\nstep = 'n,ctrl+nn'", "there is no key 'ctrl+nn'"),
        ("[keys]\nstep = 'entre'", "did you mean 'enter'"),
        ("[keys]\n'network.follow' = 'n'", "[keys] 'n' of 'network.follow' is that of 'step'"),
        ("[keys]\nhelp = 'h,ctrl+u'", "[keys] 'h' of 'help' is that of 'tokens.layer_before'"),
        ("[keys]\nhelp = '/'", "[keys] 'slash' of 'help' is that of 'network.filter'"),
        ("[keys]\nhelp = 'f5'\nresume = 'f5'", "[keys] 'f5' is given to 'help' and to 'resume'"),
        ("[keys]\n'diff.first' = 'q'", "[keys] 'q' of 'diff.first' is that of 'quit'"),
    ],
)
def test_a_wrong_settings_file_is_named(call: Call, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    done = call("config", "--config", file)
    assert done.status == 2
    assert words in done.err


@pytest.mark.parametrize(
    "keys",
    [
        {"network.follow": "n", "step": "f"},
        {"network.follow": "f,ctrl+n"},
        {"heatmap.zoom_in": "enter", "heatmap.filter": "z"},
        {"diff.first": "s", "diff.beside": "f"},
        {"tokens.layer_after": "right_square_bracket", "network.layer_after": "]"},
        {"step_layer": "f9", "step_back": "f9"},
        {"filter.leave": "enter", "filter.down": "enter"},
        DEFAULTS,
    ],
)
def test_a_key_may_do_different_things_in_different_places(call: Call, tmp_path: Path, keys: dict[str, str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[keys]\n" + "".join(f"'{name}' = '{key}'\n" for name, key in keys.items()))
    assert json.loads(call("config", "--json", "--config", file).out)["keys"] == keys


def test_what_keys_can_be_given_to_is_listed(call: Call) -> None:
    names = call("config", "--keys").out.split()
    assert {"help", "network.follow", "heatmap.zoom_in"} <= set(names)
    assert json.loads(call("config", "--keys", "--json").out) == {"actions": sorted(names)}


@pytest.mark.parametrize(
    "command", ["config", "stats x", "export x --format csv -o -", "diff x y", "import x -o y", "models", "doctor"]
)
def test_a_named_settings_file_must_be_there(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    name, *rest = command.split()
    file = tmp_path / "none.toml"
    for done in (call(name, "--config", file, *rest), call("--config", file, name, *rest)):
        assert (done.status, done.err.splitlines()[0]) == (2, f"error: no settings file at {file}")
    monkeypatch.setenv("MOETUI_CONFIG", str(file))
    assert call(name, *rest).status == 2


@pytest.mark.parametrize(("name", "value", "words"), [("THEME", "drak", "did you mean 'dark'"), ("FPS", "x", "'x'")])
def test_a_mistyped_value_in_the_environment_is_named(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"MOETUI_{name}", value)
    done = call("config")
    assert done.status == 2
    assert done.err.startswith(f"error: MOETUI_{name}: ")
    assert words in done.err


def test_themes_of_the_palette_can_be_set(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for theme in ("dark", "moetui-light", "nord"):
        file.write_text(f"theme = '{theme}'\n")
        assert json.loads(call("config", "--json", "--config", file).out)["settings"]["theme"]["value"] == theme


def test_every_setting_is_an_option_of_some_command() -> None:
    assert {"device", "theme", "fps", "max_new_tokens", "seed", "logits"} <= set(settings())
    assert "prompt" not in settings()


@pytest.mark.parametrize(
    ("text", "found"),
    [("0,3,7", (0, 3, 7)), ("2-5", (2, 3, 4, 5)), ("1,1,0-2", (1, 0, 2)), ("4 2", (4, 2))],
)
def test_lists_of_numbers(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text, "--x") == found


@pytest.mark.parametrize("text", ["", "a", "5-2", "-1", "1,,b", "0-999999", "1e3"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        numbers(text, "--x")


def test_interventions_share_the_layers() -> None:
    scope = Scope(layers=(2, 3))
    assert interventions_of("0,3", "1", 1, "2-3") == (
        ForceExperts((0, 3), scope),
        BanExperts((1,), scope),
        SetTopK(1, scope),
    )


@pytest.mark.parametrize("verb", [("run", "demo"), ("record", "demo", "-o", "x.msgpack")])
def test_a_script_that_cannot_be_read_is_a_wrong_call(call: Call, tmp_path: Path, verb: tuple[str, ...]) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"help\n\xff\xfe")
    large = tmp_path / "large"
    large.write_bytes(b"#" * (2**20 + 1))
    told = {
        tmp_path / "missing": "does not exist",
        tmp_path: "is no regular file",
        binary: "is no UTF-8 text",
        large: "is too large for a script",
    }
    for path, message in told.items():
        called = call(*verb, "--exec", path)
        assert (called.status, called.out) == (2, "")
        error, hint = called.err.splitlines()
        assert error == f"error: --exec: {path} {message}"
        assert hint.startswith("hint: ")


def test_a_script_that_fails_says_where_and_keeps_what_was_recorded(call: Call, tmp_path: Path) -> None:
    script, output = tmp_path / "story.moe", tmp_path / "x.msgpack"
    first, failing = "generate 'Once there was' -n 3\n", "ban_experts 99\n"
    error = f"error: {script}, line {{}}: experts: 99 is no expert of this model"
    for lines, number, kept in ((failing, 1, None), (first + failing + first, 2, 6), ("# nothing\n" + failing, 2, 6)):
        script.write_text(lines)
        called = call("-q", "record", "demo", "-o", output, "--exec", script, "--overwrite")
        assert called.status == 1
        assert called.err.splitlines()[0] == error.format(number)
        # Nothing is left where nothing ran, and what was there before is not replaced by it.
        assert output.exists() == (kept is not None)
        if kept is not None:
            with open_trace(output) as trace:
                assert (trace.timeline.end, trace.complete) == (kept, True)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["story.moe", "x.msgpack"]


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, "none"),
        ({}, "none"),
        ({"TERM": "xterm"}, "16 colours"),
        ({"TERM": "xterm-256color"}, "256 colours"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "truecolor"),
    ],
)
def test_the_doctor_says_how_many_colours_there_are(environment: dict[str, str], colours: str) -> None:
    (found,) = [check for check in _terminal(environment, True) if check.name == "colour"]
    assert found.detail.startswith(colours)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_script_that_runs_nothing_leaves_no_recording_and_says_so(
    call: Call, tmp_path: Path, flags: list[str]
) -> None:
    script, output = tmp_path / "x.moe", tmp_path / "x.msgpack"
    script.write_text("config max_new_tokens 3\n")
    called = call("-q", "record", "demo", "-o", output, "--exec", script, *flags)
    assert (called.status, called.out) == (1, "")
    error, hint = called.err.splitlines()
    assert error == "error: nothing was recorded: no token went through the model"
    assert hint.startswith("hint: ")
    assert not output.exists()


def test_whether_a_file_can_be_made_is_tried_without_a_trace(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_bytes(b"precious")
    link.symlink_to("behind")
    for path in (tmp_path / "new", kept, link):
        check_writable(path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "link"]
    assert kept.read_bytes() == b"precious"


@pytest.mark.parametrize("quiet", [False, True])
def test_log_points_of_a_script_write_their_lines(call: Call, tmp_path: Path, quiet: bool) -> None:
    script = tmp_path / "x.moe"
    script.write_text("log_when position == 5\ngenerate 'Once there was' -n 6\n")
    flags = ["-q"] if quiet else []
    called = call(*flags, "record", "demo", "-o", tmp_path / "x.msgpack", "--exec", script)
    assert called.status == 0
    lines = [line for line in called.err.splitlines() if line.startswith("position:5: ")]
    assert lines == ([] if quiet else ["position:5: position = 5 at token 5"])
    if not quiet:
        assert called.err.index("moe› generate") < called.err.index(lines[0]), "a line's log lines come below it"


def test_a_script_without_python_runs_commands_alone(call: Call, tmp_path: Path) -> None:
    script = tmp_path / "x.moe"
    script.write_text("config max_new_tokens 3\nopen('made', 'w')\n")
    called = call("record", "demo", "-o", tmp_path / "x.msgpack", "--exec", script, "--no-python")
    assert called.status == 1
    assert f"error: {script}, line 2: no such command: open" in called.err
    assert "max_new_tokens" in called.err, "what came before it ran"


@pytest.mark.parametrize("command", ["run", "replay"])
@pytest.mark.parametrize("off", [True, False])
def test_python_is_switched_off_on_the_screen(
    call: Call, trace: Write, monkeypatch: pytest.MonkeyPatch, command: str, off: bool
) -> None:
    asked: list[ScreenOptions] = []
    monkeypatch.setattr(tui, "run_app", lambda session, options: asked.append(options) or 0)
    what = "demo" if command == "run" else trace()
    assert call(command, what, *(["--no-python"] if off else [])).status == 0
    assert runs_python(asked[0], {}) is not off
    assert not runs_python(asked[0], {"TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver"})


def test_an_intervention_that_cannot_be_leaves_no_recording_and_replaces_none(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "x.msgpack"
    for before in (None, b"was here"):
        if before is not None:
            output.write_bytes(before)
        called = call("-q", "record", "demo", "-p", "Once", "-o", output, "--force", "99", "--overwrite")
        assert (called.status, called.err.splitlines()[0]) == (2, "error: L0 has no expert 99")
        assert (output.read_bytes() if output.exists() else None) == before


def test_a_range_of_layers_takes_those_that_have_routers(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "x.msgpack"  # layers 1 and 3 of a small jamba have routers
    arguments = ("-q", "record", "random:jamba", "-p", "Once there was", "-n", 2, "-o", output, "--ban", "0")
    called = call(*arguments, "--layers", "0")
    assert (called.status, called.err.splitlines()[0]) == (2, "error: layer 0 has no router")
    assert call(*arguments, "--layers", "0-3").status == 0
    with open_trace(output) as trace:
        assert {site.layer for site in trace.info.sites} == {1, 3}
        assert not (trace.timeline.routing(0, trace.timeline.end).indices == 0).any()
    script = tmp_path / "x.moe"
    script.write_text("ban_experts 1 --layers 0-3\ngenerate 'Once there was' -n 2\n")
    arguments = ("-q", "record", "random:jamba", "-o", output, "--exec", script, "--overwrite")
    assert call(*arguments).status == 0
    with open_trace(output) as trace:
        assert not (trace.timeline.routing(0, trace.timeline.end).indices == 1).any()


@pytest.mark.parametrize(("prompt", "status"), [("Es war — ä".encode(), 0), (b"Es war \xe4", 2)])
def test_a_prompt_is_utf_8_whatever_the_locale(tmp_path: Path, prompt: bytes, status: int) -> None:
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "moetui", "record", "demo", "-p", prompt, "-n", "1", "-o", "x.msgpack"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == status
    if status:
        assert done.stderr.startswith(b"error: the prompt is no valid UTF-8\n")
    else:
        with open_trace(tmp_path / "x.msgpack") as trace:
            assert trace.prompt.encode() == prompt


def test_a_prompt_file_is_read_as_text_and_no_further_than_a_prompt_goes(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfOnce there\r\nwas")  # as editors of Windows write it
    assert prompt_of(None, str(file)) == "Once there\nwas"
    with pytest.raises(UsageError, match="/dev/zero is too large for a prompt"):
        prompt_of(None, "/dev/zero")


@pytest.mark.parametrize("option", ["--fps", "--speed"])
def test_what_is_no_number_is_refused(call: Call, tmp_path: Path, option: str) -> None:
    done = call("replay", tmp_path / "x.msgpack", option, "nan")
    assert done.status == 2
    assert "nan is no finite number" in done.err


def test_every_key_of_the_screen_can_be_moved_by_its_name() -> None:
    found: dict[str, str] = {}
    for module in pkgutil.walk_packages(tui.__path__, "moetui.tui."):
        for thing in vars(importlib.import_module(module.name)).values():
            if isinstance(thing, type) and thing.__module__ == module.name:
                bindings = [each for each in vars(thing).get("BINDINGS", ()) if isinstance(each, Binding)]
                found |= {each.id: each.key for each in bindings if each.id}
                assert all(is_key(key.strip()) for each in bindings for key in each.key.split(",")), bindings
    assert set(found) == NAMES
    assert found == DEFAULTS


@pytest.mark.parametrize(
    "args",
    [
        ["record", "demo", "-p", "hi", "-o", "-"],
        ["import", "{log}", "-o", "-"],
        ["export", "{trace}", "--format", "parquet", "-o", "-"],
    ],
)
def test_what_is_no_text_is_not_written_to_a_terminal(trace: Write, tmp_path: Path, args: list[str]) -> None:
    log = tmp_path / "x.csv"
    log.write_text("layer,expert\n0,1\n")
    recording = trace()
    call = [arg.format(log=log, trace=recording) for arg in args]
    with terminal([sys.executable, "-m", "moetui", *call]) as opened:
        assert opened.wait()[0] == 2
        assert b"error: standard output is a terminal" in opened.received
        assert b"moetui\xa6header" not in opened.received


def test_the_doctor_runs_nothing_of_the_folder_that_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    found = _gpu()
    assert [check for check in found if check.state == "missing"] == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"name": "Model 1", "total_memory": 24 << 30}, "Model 1, 24 GiB"),
        ({"name": "Model 1"}, "Model 1"),
        ({}, "there"),
        (None, "there"),
    ],
)
def test_the_doctor_finds_accelerators_of_every_kind(
    properties: dict[str, Any] | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    def told_of(_number: int) -> SimpleNamespace:
        if properties is None:
            raise RuntimeError("has none")
        return SimpleNamespace(**properties)

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(get_device_properties=told_of))
    exec(_GPU_PROBE, {})
    checks = _devices(capsys.readouterr().out)
    assert [(check.name, check.state, check.detail) for check in checks] == [
        ("xpu:0", "ok", told),
        ("xpu:1", "ok", told),
    ]


def test_the_doctor_says_that_the_folder_is_gone_and_nothing_worse(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    called = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(called.out)["checks"]}
    assert called.status == 1
    assert [name for name, check in checks.items() if check["state"] == "missing"] == ["folder"]
    assert checks["folder"]["detail"] == "the folder that this was started in is gone"


@pytest.mark.parametrize("args", [["record", "demo", "-p", "Once", "-o", "x.msgpack"], ["models", "--fresh"]])
def test_python_without_docstrings_is_named_where_transformers_would_start(tmp_path: Path, args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "moetui", *args], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: Python runs without docstrings, which transformers needs\n"
        "hint: unset PYTHONOPTIMIZE, or leave out -OO\n"
    )


def test_a_working_folder_that_was_removed_is_named_where_a_model_is_to_be_loaded(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    called = call("-q", "record", "demo", "-p", "Once", "-n", 2, "-o", tmp_path / "x.msgpack")
    assert (called.status, called.out) == (1, "")
    assert called.err == "error: the folder that this was started in is gone\nhint: start it in one that exists\n"
