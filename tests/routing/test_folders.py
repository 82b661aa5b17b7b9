"""Folders that last from one session to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from moetui.routing.folders import make_folder


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(OSError, match="there is no home folder"):
        make_folder(home / ".cache" / "moetui")
    assert not home.exists()
    make_folder(tmp_path / "elsewhere" / "moetui")
    home.mkdir()
    make_folder(home / ".cache" / "moetui")
    assert (tmp_path / "elsewhere" / "moetui").is_dir()
    assert (home / ".cache" / "moetui").is_dir()
