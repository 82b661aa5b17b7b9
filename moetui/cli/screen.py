"""The screen options as the screen takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moetui.tui import ScreenOptions


def screen_options(options: Mapping[str, Any], keys: Mapping[str, str]) -> ScreenOptions:
    """Build ``ScreenOptions``; what was not said is left to the terminal."""
    from platformdirs import user_state_path

    return ScreenOptions(
        fps=options["fps"],
        low_bandwidth=options["low_bandwidth"] or None,
        color=options["color"],
        ascii=options["ascii"],
        mouse=not options["no_mouse"],
        theme=options["theme"] or "",
        state=user_state_path("moetui"),
        python=not options.get("no_python", False),
        keys=keys,
    )
