"""``moetui diff``: what changed between two recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moetui.cli.common import FILE, Common, common_options, print_json, print_text, warn_of_file
from moetui.cli.options import SCREEN, grouped


@click.command("diff")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--deleted", is_flag=True, help="Compare the tokens of deleted branches too; --tui never shows them.")
@click.option("--tui", is_flag=True, help="Show both runs side by side.")
@grouped(SCREEN)
@common_options
@click.pass_context
def command(ctx: click.Context, /, a: Path, b: Path, as_json: bool, deleted: bool, tui: bool, **options: Any) -> int:
    """Say where two recordings part: tokens, routing, distributions, loads. Exits 0 also when they differ.

    Tokens of branches that were deleted take no part, unless another branch shares them.
    """
    from moetui.routing.compare import compare
    from moetui.routing.errors import UsageError
    from moetui.trace import kept, open_trace

    if tui and as_json:
        raise UsageError("--json and --tui exclude each other", "choose one")
    if tui:
        from moetui.cli.screen import screen_options
        from moetui.tui import run_diff

        return run_diff(a, b, screen_options(options, ctx.ensure_object(Common).keys))
    with open_trace(a) as first, open_trace(b) as second:
        one, other = (first, second) if deleted else (kept(first), kept(second))
        result = compare(one.timeline, other.timeline)
        for path, trace in ((a, first), (b, second)):
            warn_of_file(path, trace.file_findings)
        if as_json:
            print_json(result.to_dict())
        else:
            from moetui.cli.tables import diff_text

            print_text(diff_text(result.to_dict()))
    return 0
