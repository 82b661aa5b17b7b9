"""The command line: parse, build, run, print. What a command does lives in the other rooms."""

from __future__ import annotations

TYPE_CHECKING = False  # as in ``moetui/__init__.py``
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from moetui.cli.app import cli, main

__all__ = ["cli", "entry", "main"]


def entry() -> NoReturn:
    """The console script; Ctrl-C while it is still being imported ends it like any other."""
    try:
        from moetui.cli.app import run_and_leave

        run_and_leave()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from moetui.cli import app

    return getattr(app, name)
