"""What a run without a screen says on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.cli.progress import Progress
from moetui.routing.events import Notice, StepCaptured


@pytest.mark.parametrize("wanted", [True, False])
def test_in_the_end_it_says_where_the_tokens_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: bool
) -> None:
    path = tmp_path / "\x1b[2Jx.msgpack"
    path.write_bytes(b"x" * 1234)
    with Progress(wanted, 40) as progress:
        progress.wrote(path)
        assert "bytes" not in capsys.readouterr().err, "no token of this run is in that file"
        progress.take(StepCaptured(33))
        progress.wrote(tmp_path / "none")
        progress.wrote(path)
    said = capsys.readouterr().err
    assert ("33 tokens, 1,234 bytes\n" in said) == wanted
    assert "none" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize("quiet", [True, False])
def test_an_interruption_is_told_wherever_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"x" * 1234)  # from before: nothing of this run is in it
    with Progress(False, 40, quiet=quiet) as progress:
        progress.interrupted(path, "x.msgpack")
        progress.take(StepCaptured(33))
        progress.interrupted(path, "x.msgpack")
    said = "interrupted: nothing was recorded\ninterrupted: x.msgpack: 33 tokens, 1,234 bytes\n"
    assert capsys.readouterr().err == ("" if quiet else said)


@pytest.mark.parametrize("quiet", [True, False])
def test_a_warning_is_written_wherever_it_is_read(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with Progress(False, 40, quiet=quiet) as progress:
        progress.take(Notice("by the way"))
        progress.take(Notice("the context\x1b[2J is short", "warning"))
    err = capsys.readouterr().err
    assert err.startswith("" if quiet else "warning: the context")
    assert len(err.splitlines()) == (not quiet)
    assert "\x1b" not in err
