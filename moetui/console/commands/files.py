"""Commands that write and read files."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from moetui.console.context import Context
from moetui.console.draw import text
from moetui.console.kinds import FilePath, Flag, choice
from moetui.console.needs import FILES
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.session import Filing

GROUP = "files"
Format = Annotated[str | None, choice("json", "csv", "parquet", "chrome", "html")]

_BY_SUFFIX = {".json": "json", ".csv": "csv", ".parquet": "parquet", ".html": "html", ".htm": "html"}


@command(GROUP, FILES)
def save(console: Context, path: FilePath, *, force: Flag = False) -> Result:
    """Write all tokens held, and what happened meanwhile, to a recording.

    Args:
        path: where to; 'moetui replay' opens it.
        force: replace a file that is there.

    Examples:
        save trace.msgpack
    """
    nbytes = _filing(console).save(path, overwrite=force)
    return Result((text(f"{path}: {nbytes:,} bytes"),), {"path": path, "bytes": nbytes})


@command(GROUP, FILES)
def export(
    console: Context,
    path: FilePath,
    *,
    format: Format = None,  # noqa: A002 - the name it has on the command line
    force: Flag = False,
) -> Result:
    """Write all tokens held in another format.

    Args:
        path: where to.
        format: as for 'moetui export'; if left out, what the path ends in.
        force: replace a file that is there.

    Examples:
        export routing.csv
        export slices.json --format chrome
    """
    chosen = format or _BY_SUFFIX.get(PurePath(path).suffix.lower())
    if chosen is None:
        raise UsageError(f"path: {path} does not tell the format", "--format json, csv, parquet, chrome or html")
    nbytes = _filing(console).export(path, chosen, overwrite=force)
    return Result((text(f"{path}: {nbytes:,} bytes"),), {"path": path, "bytes": nbytes, "format": chosen})


@command(GROUP, FILES)
def load(console: Context, path: FilePath) -> Result:
    """Open a recording beside this session; in Python it is 'recording'.

    Args:
        path: the recording.

    Examples:
        load before.msgpack
    """
    found = _filing(console).load(path)
    console.recording = found
    view = found.timeline.snapshot()
    count = view.end - view.first
    shown = f"{path}: {found.info.name}, {count:,} tokens, {len(found.info.sites)} sites"
    return Result((text(shown),), {"path": path, "model": found.info.name, "tokens": count})


def _filing(console: Context) -> Filing:
    assert isinstance(console.session, Filing)  # the registry has checked the need
    return console.session
