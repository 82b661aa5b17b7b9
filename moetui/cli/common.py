"""What every command has: the common options, files as arguments, progress and JSON on the right stream."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from moetui.cli.streams import leave_stdout
from moetui.routing.errors import TraceError, UsageError
from moetui.routing.folders import beside

if TYPE_CHECKING:
    from moetui.routing.events import Finding

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(readable=False, path_type=Path)
"""A file to read. Whether it can be is for who opens it to say: click calls it a mistake in the call."""


class _Output(click.Path):
    """A file to write, as it was typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses what names a folder that there is not: without its stroke it would be a file's name."""
        text = os.fspath(value)
        if text.endswith((os.sep, os.altsep or os.sep)) and not os.path.isdir(text):  # noqa: PTH112 - Path drops it
            raise UsageError(f"no such folder: {text}", "make it first, or write somewhere else")
        return super().convert(value, param, ctx)


OUTPUT = _Output()
OUTPUT_PATH = _Output(path_type=Path)


@dataclass
class Common:
    """The options that stand before or behind any command."""

    debug: bool = False
    quiet: bool = False
    config_file: str | None = None
    keys: dict[str, str] = field(default_factory=dict)


def common_options(function: F) -> F:
    """Add ``--config``, ``--debug`` and ``-q`` to a command; they end up in the context's ``Common``."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        common = ctx.ensure_object(Common)
        if value and parameter.name:
            setattr(common, parameter.name, value)
        if parameter.name == "config_file":
            _apply_settings(ctx, common)

    options = (
        click.option("--config", "config_file", type=click.Path(dir_okay=False), help="Read settings from this file."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no notices."),
    )
    for option in reversed(options):
        function = option(function)
    for parameter in getattr(function, "__click_params__", ()):
        if parameter.name in ("config_file", "debug", "quiet"):
            parameter.expose_value = False
            parameter.is_eager = True
            parameter.callback = remember
    return function


def _apply_settings(ctx: click.Context, common: Common) -> None:
    # Eager: the settings are the defaults of the options that are read next. A file that was named is looked at even
    # where no option takes anything from it: whoever names one that is not there is to know.
    from moetui.cli.options import settings

    named = common.config_file or os.environ.get("MOETUI_CONFIG")
    if named or any(parameter.name in settings() for parameter in ctx.command.params):
        from moetui.cli.settings import load_settings

        if not common.quiet:
            warn_of_variables()
        loaded = load_settings(common.config_file)
        common.keys = loaded.keys
        ctx.default_map = {**loaded.values, **(ctx.default_map or {})}


def warn_of_variables() -> None:
    """Name the environment's variables that look like settings and are none."""
    from moetui.cli.settings import unknown_variables
    from moetui.routing.text import drawable

    for line in unknown_variables():
        click.echo(f"warning: {drawable(line)}", err=True)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity are not JSON and become null upstream."""
    print_text(json.dumps(document, allow_nan=False, ensure_ascii=True, indent=2))


def print_text(text: str) -> None:
    """Print a report on standard output; a reader that leaves, as ``head`` does, has seen what it wanted."""
    try:
        click.echo(text)
    except BrokenPipeError:
        leave_stdout()


def check_stdout(what: str) -> None:
    """Say before any work is done that ``what`` cannot go there. A terminal would take its bytes for commands.

    Raises:
        UsageError: standard output is a terminal, or closed.
    """
    try:
        os.write(sys.stdout.fileno(), b"")
    except OSError as error:
        if error.errno == errno.EBADF:
            raise UsageError("standard output is closed", "name a file after -o, or pipe it on") from None
    if sys.stdout.isatty():
        raise UsageError(f"standard output is a terminal, and {what} is no text", "name a file after -o, or pipe it on")


@contextmanager
def temporary_recording() -> Iterator[Path]:
    """A place for a recording that goes to standard output when it is whole.

    Raises:
        TraceError: there is no room for it.
    """
    hint = "make room there, or name another folder in TMPDIR"
    try:
        folder = tempfile.TemporaryDirectory(prefix="moetui-")
    except OSError as error:
        raise TraceError(f"no temporary file can be made: {error.strerror or error}", hint) from None
    with folder:
        path = Path(folder.name) / f"{Path(folder.name).name}.msgpack"  # a name that nothing else has
        try:
            yield path
        except TraceError as error:
            if path.name not in error.message:
                raise
            what = f"a temporary file in {path.parent.parent}"
            raise TraceError(error.message.replace(str(path), path.name).replace(path.name, what), hint) from error


def pass_on(recording: Path) -> None:
    """Copy a recording to standard output.

    Raises:
        TraceError: its reader left before the end, or there is no room.
    """
    try:
        with recording.open("rb") as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        leave_stdout()
        raise TraceError("cannot write standard output: its reader has left", "name a file after -o") from None
    except OSError as error:
        leave_stdout()
        reason = (error.strerror or str(error)).lower()
        raise TraceError(f"cannot write standard output: {reason}", "make room, or write somewhere else") from None


@contextmanager
def output_stream(path: str, *, force: bool, source: Path | None = None) -> Iterator[BinaryIO]:
    """Open an output file for binary writing; ``-`` is standard output.

    An existing file is never touched without ``force``, and is replaced only when everything was written. A reader of
    standard output that leaves early has seen what it wanted.

    Raises:
        UsageError: as ``check_writable``.
    """
    if path == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            leave_stdout()
        return
    target = Path(path)
    check_writable(target, force=force, source=source)
    target = target.resolve()  # behind a link, what it points to is replaced
    partial = beside(target)
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(target)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise
        reason = error.strerror or type(error).__name__
        raise TraceError(f"cannot write {target}: {reason.lower()}", "write somewhere else, or make room") from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(target: Path, *, force: bool, source: Path | None = None, option: str = "--force") -> None:
    """Say before any work is done that an output path cannot be used.

    Args:
        force: an existing file may be replaced, as ``option`` asks for.
        source: what will be read meanwhile.

    Raises:
        UsageError: the file exists (without ``force``), is being recorded, is a directory, a device or ``source``
            itself, its folder does not exist, or no file can be made there.
    """
    if target.is_dir():
        raise UsageError(f"{target} is a directory", "name a file")
    if target.exists() and not target.is_file():  # replacing it would take a device from the whole machine
        raise UsageError(f"{target} is no regular file", "name another file")
    if source is not None and target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target} is the file that is read", "name another file")
    if target.exists() and not force:
        raise UsageError(f"{target} exists already", f"{option} replaces it")
    if target.exists() and _being_written(target):
        raise UsageError(f"{target} is being written by a recording", "wait for its end, or name another file")
    if not target.parent.is_dir():
        raise UsageError(f"no such folder: {target.parent}", "make it first, or write somewhere else")
    try:
        _try_to_make(target)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot write {target}: {reason}", "write somewhere else") from error


def _being_written(target: Path) -> bool:
    from moetui.trace.target import being_written

    return being_written(target)


def _try_to_make(target: Path) -> None:
    """Make a file there and remove it again: what a folder's permissions say is not all that may forbid it."""
    final = Path(os.path.realpath(target))  # behind a link, what it points to is replaced
    if final.exists():  # it is replaced by one beside it
        with tempfile.TemporaryFile(dir=final.parent):
            return
    os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    final.unlink()


def warn_of_file(path: Path, findings: Iterable[Finding]) -> None:
    """Say on standard error what is wrong with a recording that was read."""
    from moetui.routing.text import drawable

    for finding in findings:
        click.echo(f"warning: {drawable(str(path))}: {drawable(finding.message)}", err=True)


def progress_wanted(ctx: click.Context) -> bool:
    """Whether progress may be shown: a terminal on standard error, and not ``--quiet``."""
    common = ctx.ensure_object(Common)
    return sys.stderr.isatty() and not common.quiet
