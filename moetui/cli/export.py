"""``moetui export``: a recording in another format."""

from __future__ import annotations

from pathlib import Path

import click

from moetui.cli.common import FILE, OUTPUT, check_stdout, common_options, output_stream, warn_of_file

_FORMATS = ("json", "csv", "parquet", "chrome", "html", "svg")
_PICTURED = 64  # tokens


@click.command("export")
@click.argument("trace", type=FILE)
@click.option("--format", "format_", type=click.Choice(_FORMATS), required=True)
@click.option("-o", "--output", required=True, type=OUTPUT, help="The file to write; - for standard output.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--deleted", is_flag=True, help="Write the tokens of deleted branches too; svg never shows them.")
@common_options
def command(trace: Path, format_: str, output: str, force: bool, deleted: bool) -> None:
    """Write a recording as json, csv, parquet, chrome, html or svg.

    json is the router log that analysis notebooks read; chrome opens in Perfetto; html is one page that needs no
    network; svg is the Network screen as a picture. Tokens of branches that were deleted are left out, unless another
    branch shares them.
    """
    from moetui.trace import kept, open_trace

    if output == "-" and format_ == "parquet":
        check_stdout("parquet")
    with open_trace(trace) as opened:
        with output_stream(output, force=force, source=trace) as stream:
            if format_ == "svg":
                from moetui.tui.picture import network_svg

                stream.write(network_svg(trace).encode("utf-8"))
                # The picture read the file by itself: read what it shows, to tell of damage there.
                view = opened.timeline
                len(view.routing(max(view.first, view.end - _PICTURED), view.end).indices)
            else:
                from moetui.trace.exporters import export

                export(opened if deleted else kept(opened), format_, stream)
        warn_of_file(trace, opened.file_findings)
