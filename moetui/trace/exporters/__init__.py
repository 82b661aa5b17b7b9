"""Recordings in the formats of other programs, one module a format."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from moetui.routing.errors import UsageError
from moetui.trace.recorded import Recorded

__all__ = ["FORMATS", "Format", "export"]


@dataclass(frozen=True, slots=True)
class Format:
    """An export format: the module that has its ``export(recorded, stream)``, a file's usual ending, what it is."""

    module: str
    suffix: str
    description: str


FORMATS: Mapping[str, Format] = {
    "json": Format("json_log", ".json", "the router log that analysis notebooks read"),
    "csv": Format("csv_rows", ".csv", "one row a token, site and slot"),
    "parquet": Format("parquet_rows", ".parquet", "the same columns; needs moetui[parquet]"),
    "chrome": Format("chrome_trace", ".json", "trace events for Perfetto"),
    "html": Format("html_page", ".html", "one page that needs no network"),
}
"""All but ``svg``, which is a picture of the screen and made there."""


def export(recorded: Recorded, format_: str, stream: BinaryIO) -> None:
    """Write a recording in another format, piece by piece.

    Raises:
        UsageError: an unknown format.
        UnsupportedError: the recording lacks what the format needs, or a package is missing.
    """
    if format_ not in FORMATS:
        raise UsageError(f"there is no format '{format_}'", f"known are {', '.join(FORMATS)}")
    module = importlib.import_module(f"moetui.trace.exporters.{FORMATS[format_].module}")
    module.export(recorded, stream)
