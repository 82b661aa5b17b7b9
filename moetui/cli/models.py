"""``moetui models``: aliases, and what works with every architecture of the installed transformers."""

from __future__ import annotations

import sys

import click

from moetui.cli.common import common_options, print_json, print_text, progress_wanted


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--fresh", is_flag=True, help="Try every architecture again.")
@common_options
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, fresh: bool) -> None:
    """List aliases with sizes, and every MoE architecture with its kind, what is captured and what can be changed.

    Every architecture is tried on a small random model, which takes some seconds the first time.
    """
    from moetui.cli.tables import models_text
    from moetui.engine.catalog import catalog
    from moetui.engine.collector import collecting_seldom

    def show(name: str, share: float) -> None:
        sys.stderr.write(f"\r{share:4.0%}  {name:<40}")
        sys.stderr.flush()

    wanted = progress_wanted(ctx)
    with collecting_seldom():
        document = catalog(show if wanted else None, fresh=fresh)
    if wanted:
        sys.stderr.write("\r" + " " * 50 + "\r")
    if as_json:
        print_json(document)
    else:
        print_text(models_text(document))
