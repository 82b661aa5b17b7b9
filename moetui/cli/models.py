"""``moetui models``: aliases, and what works with every architecture of the installed transformers."""

from __future__ import annotations

import click

from moetui.cli.common import common_options, print_json


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@common_options
def command(as_json: bool) -> None:
    """List aliases with sizes, and every MoE architecture with its kind, what is captured and what can be changed."""
    from moetui.cli.tables import models_text
    from moetui.engine.catalog import catalog

    document = catalog()
    if as_json:
        print_json(document)
    else:
        click.echo(models_text(document))
