"""Pictures of the screen, made by the program: compared with those in ``snapshots/``, or written there.

``MOETUI_SNAPSHOTS=write pytest tests/tui/test_app_snapshots.py`` writes them anew. Look at them before committing.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import pytest
import textual

from moetui.tui.app import MoetuiApp
from moetui.tui.svg import self_contained

FOLDER = Path(__file__).resolve().parent.parent.parent / "snapshots"
LOCKED = "8.2.8"  # another Textual draws a little differently: pictures are compared with this one only


def picture(app: MoetuiApp) -> str:
    """The screen as SVG, as ``export`` writes it: alike in every viewer, fetching nothing."""
    return self_contained(app.export_screenshot(title="moetui"))


def check(app: MoetuiApp, name: str) -> None:
    """Compare the screen with its picture.

    Raises:
        AssertionError: they differ; the new one is beside the old one's name, with ``.new``.
    """
    if textual.__version__ != LOCKED:
        pytest.skip(f"pictures were made with Textual {LOCKED}, this is {textual.__version__}")
    path = FOLDER / f"{name}.svg"
    drawn = picture(app)
    if os.environ.get("MOETUI_SNAPSHOTS") == "write":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
        return
    assert path.exists(), f"no picture {path.name}: write it with MOETUI_SNAPSHOTS=write, and look at it"
    if path.read_text(encoding="utf-8") != drawn:
        changed = list(difflib.unified_diff(_words(path.read_text(encoding="utf-8")), _words(drawn), lineterm="", n=0))
        raise AssertionError(f"{path.name} looks different now:\n" + "\n".join(changed[:40]))


def _words(svg: str) -> list[str]:
    """The texts of a picture, one a line: what a difference is told in."""
    return [text.replace("&#160;", " ") for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
