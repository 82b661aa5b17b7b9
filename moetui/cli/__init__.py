"""The command line: parse, build, run, print. What a command does lives in the other rooms."""

from __future__ import annotations

from moetui.cli.app import cli, entry, main

__all__ = ["cli", "entry", "main"]
