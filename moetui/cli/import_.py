"""``moetui import``: a recording made from another tool's router log."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from moetui.cli.common import (
    FILE,
    OUTPUT_PATH,
    check_stdout,
    check_writable,
    common_options,
    pass_on,
    temporary_recording,
)
from moetui.routing.errors import UsageError


@click.command("import")
@click.argument("file", type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT_PATH,
    help="The recording to write; - for standard output.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@common_options
def command(file: Path, output: Path, force: bool) -> None:
    """Make a recording from another tool's router log.

    Read are: the json of `export`, Megatron's router_trace jsonl, a layer,expert CSV, and routed-experts dumps of vLLM
    and SGLang; - is standard input. What a log does not say stays unknown.
    """
    from moetui.routing.text import drawable
    from moetui.trace import import_file

    if str(output) == "-":
        check_stdout("a recording")
        with _log(file) as log, temporary_recording() as target:
            summary = replace(import_file(log, target), path=Path("standard output"))
            pass_on(target)
    else:
        check_writable(output, force=force, source=file)
        with _log(file) as log:
            summary = import_file(log, output, overwrite=force)
    click.echo(drawable(str(summary)), err=True)
    for finding in summary.findings:
        click.echo(f"{finding.severity}: {drawable(finding.message)}", err=True)


@contextmanager
def _log(file: Path) -> Iterator[Path]:
    """The log as a file, which importers go through more than once."""
    if str(file) != "-":
        yield file
        return
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", "name a file, or pipe a log in")
    with tempfile.TemporaryDirectory(prefix="moetui-") as folder:
        path = Path(folder) / "standard input"
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        yield path
