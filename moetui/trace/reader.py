"""Opens a trace: reads its header and its small records; tokens are read when they are looked at."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import Finding, FindingRaised, GenerationSettings
from moetui.routing.given import file_path
from moetui.routing.model import ModelInfo
from moetui.trace.arrays import unpack_array
from moetui.trace.catalog import Catalog, extend, from_index, read_map
from moetui.trace.frames import PREFIX, DamagedError, Frame, read_frame
from moetui.trace.layout import CHUNK_KINDS, FORMAT, VERSION, Widths
from moetui.trace.plain import MisfitError, from_plain
from moetui.trace.source import FileSource, cannot_open
from moetui.trace.store import Store
from moetui.trace.values import (
    RecordedEvent,
    event_from_plain,
    info_from_plain,
    settings_from_plain,
    unknown_in_event,
    unknown_in_record,
)
from moetui.trace.view import StepTable, TraceView

_COPY_BYTES = 1 << 20
_ANOTHER = "record it again, or make it from the source's log with 'moetui import'"


def open_trace(path: str | Path) -> Trace:
    """Open a recording.

    Raises:
        TraceError: there is no such file, it is no trace, it is one of a newer version, or nothing of it can be used.
        UsageError: what was given is no file's name.
    """
    return Trace(file_path(path))


class Trace:
    """A recording; use it as a context manager, or call ``close``.

    Safe to use from several threads. Reading a token unpacks the chunk it is in; chunks last used are kept, within
    about 100 MB.

    Attributes:
        path: the file.
        info, settings, prompt: as recorded. ``writer`` says what wrote it.
        has_logits, has_weights, has_timings: what is in it.
        events: what happened, in order.
        unknown_records: records, events, keys and columns that this version does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source = _open(path)
        try:
            self._catalog = from_index(self._source) or _scanned(self._source)
            self._store = Store(self._source, self._catalog)
            self._steps = StepTable(self._store)
            self._vocabulary: dict[int, str] = {}
            self._stacks: tuple[str, ...] = ()
            self._events: list[RecordedEvent] = []
            self._taken = 0
            self._unreadable = 0
            self._read_header()
            self._take_metas()
        except BaseException:
            self._source.close()
            raise

    def __repr__(self) -> str:
        return f"<recording {self.path.name}: {self.num_tokens} tokens of {self.info.architecture or self.info.name}>"

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """What happened, in order."""
        return tuple(self._events)

    @property
    def num_tokens(self) -> int:
        """Tokens recorded, padding included."""
        return self._catalog.tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._source.size

    @property
    def complete(self) -> bool:
        """Whether the recording was ended properly and all of it is readable as far as it was looked at."""
        return self._catalog.complete and not self._losses()

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come: the file was closed by its writer."""
        return self._catalog.ended

    @property
    def abandoned(self) -> str:
        """Why nothing more can come of a file without an end, in a few words; empty while something may."""
        named, size = self._source.standing
        if not named:
            return "was removed, or replaced by another file"
        return "was cut short" if size < self._catalog.position else ""

    @property
    def unknown_records(self) -> int:
        """Records, events, keys and columns that this version does not know, as far as they were looked at."""
        return self._catalog.unknown + self._store.newer

    @property
    def timeline(self) -> TraceView:
        """All tokens; a file that grows gives a longer one after ``refresh``."""
        return TraceView(
            self._store,
            self._info.sites,
            self._stacks or ("decoder",),
            self._catalog.tokens,
            self._vocabulary,
            self._steps,
            self._present,
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the file, then what diagnostics found while it was recorded."""
        recorded = [item.event.finding for item in self._events if isinstance(item.event, FindingRaised)]
        return (*self.file_findings, *recorded)

    @property
    def file_findings(self) -> tuple[Finding, ...]:
        """What is wrong with the file, as far as it was looked at."""
        return tuple(self._own_findings())

    def snapshot(self) -> TraceView:
        """All tokens: a trace can stand where a ``TimelineSource`` is asked for."""
        return self.timeline

    def stats(self) -> dict[str, Any]:
        """The document of ``moetui stats --json``; tokens of branches that were deleted are not counted."""
        from moetui.trace.recorded import kept, recorded_stats

        return recorded_stats(kept(self))

    def copy_to(self, stream: BinaryIO) -> None:
        """Write the file's bytes, as far as they are whole records."""
        for start in range(0, self._catalog.position, _COPY_BYTES):
            stream.write(self._source.read(start, min(_COPY_BYTES, self._catalog.position - start)))

    def refresh(self) -> bool:
        """Take in what another program appended since; whether there was anything.

        Raises:
            TraceError: the file was closed.
        """
        size = self._source.size
        if self._catalog.ended or self._source.look() <= size:
            return False
        before = (self._catalog.tokens, len(self._catalog.metas), self._catalog.ended)
        extend(self._catalog, self._source)
        self._take_metas()
        return before != (self._catalog.tokens, len(self._catalog.metas), self._catalog.ended)

    def verify(self) -> tuple[Finding, ...]:
        """Read everything once, so that ``findings`` and ``complete`` tell of all damage; the findings."""
        for number, chunk in enumerate(self._store.chunks):
            for kind in CHUNK_KINDS:
                if kind in chunk.records or kind not in self._store.optional:
                    self._store.table(number, kind)
        for start, stop, _ in self._catalog.sums:
            self._store.counts(start, stop, self._info.sites)
        return self.findings

    def close(self) -> None:
        """Close the file; views of it raise ``TraceError`` from then on."""
        self._source.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _losses(self) -> int:
        return self._catalog.lost + self._store.damage + self._unreadable

    def _own_findings(self) -> list[Finding]:
        out = []
        if not self._catalog.complete:
            what = "marked as incomplete" if self._catalog.ended else "has no end: the recording was cut off"
            out.append(
                Finding(
                    "trace_incomplete",
                    "warning",
                    f"the file {what}; {self.num_tokens} tokens are here",
                    "all that was flushed is shown; record again for the rest",
                )
            )
        if losses := self._losses():
            out.append(
                Finding(
                    "trace_damaged",
                    "error",
                    f"{losses} pieces of the file are damaged; what they held is shown as unknown",
                    "get the file again from where it was recorded",
                )
            )
        if self._catalog.foreign:
            out.append(
                Finding(
                    "trace_spliced", "warning", "another recording follows in the same file", "split the two to see it"
                )
            )
        if self.unknown_records:
            out.append(
                Finding(
                    "trace_newer",
                    "info",
                    f"{self.unknown_records} records, keys or columns are of kinds that this version does not know",
                    "upgrade moetui to see them",
                )
            )
        return out

    def _read_header(self) -> None:
        try:
            header = read_map(self._source, read_frame(self._source, 0))
        except DamagedError as error:
            raise TraceError(f"{self.path.name} is damaged: its header cannot be read ({error})", _ANOTHER) from None
        version = header.get("schema_version", header.get("version"))
        if header.get("format") != FORMAT or type(version) is not int or version < 1:
            raise TraceError(f"{self.path.name} is no moetui trace", _ANOTHER)
        if version > VERSION:
            raise TraceError(
                f"{self.path.name} is of trace version {version}, and this moetui knows {VERSION}", "upgrade moetui"
            )
        try:
            self._info = info_from_plain(header)
            self.prompt: str = from_plain(str, header.get("prompt", ""))
            self.writer: str = from_plain(str, header.get("writer", ""))
            present = from_plain(tuple[str, ...], header.get("present", []))
        except MisfitError as error:
            raise TraceError(f"{self.path.name} is damaged: its header makes no sense ({error})", _ANOTHER) from None
        self.settings: GenerationSettings = settings_from_plain(header.get("settings"))
        self._present = frozenset(present)
        self.has_logits = "logits" in present
        self.has_weights = "weights" in present
        self.has_timings = "timings" in present
        self._store.optional = frozenset() if self.has_logits else frozenset({"logits"})
        self._set_widths(Widths(len(self._info.sites), self._info.top_k, self._info.num_classes, 0))

    def _set_widths(self, widths: Widths) -> None:
        if not widths.plausible or widths.sites != len(self._info.sites):
            raise TraceError(f"{self.path.name} is damaged: its arrays are said to be impossibly large", _ANOTHER)
        self._store.widths = widths

    def _take_metas(self) -> None:
        metas = self._catalog.metas
        for start in metas[self._taken :]:
            self._taken += 1
            try:
                frame = read_frame(self._source, start)
                self._take_meta(frame, read_map(self._source, frame))
            except (DamagedError, MisfitError):
                self._unreadable += 1

    def _take_meta(self, frame: Frame, value: dict[str, Any]) -> None:
        self._catalog.unknown += unknown_in_record(frame.kind, value)
        if frame.kind == "events":
            self._take_events(value.get("events"))
        elif frame.kind == "vocabulary":
            self._take_texts(value)
        elif frame.kind == "stacks":
            self._stacks = from_plain(tuple[str, ...], value.get("names"))[:256]
        elif frame.kind == "widths":
            self._set_widths(from_plain(Widths, value))
        elif frame.kind == "model":
            info = info_from_plain(value, self._info.modules)
            if len(info.sites) != len(self._info.sites):
                raise MisfitError("another number of sites")
            self._info = info

    def _take_events(self, events: Any) -> None:
        if not isinstance(events, list):
            raise MisfitError("no events")
        for event in events:
            try:
                self._events.append(event_from_plain(event))
                self._catalog.unknown += unknown_in_event(event)
            except MisfitError:
                self._catalog.unknown += 1

    def _take_texts(self, value: dict[str, Any]) -> None:
        ids, texts = unpack_array(value.get("ids")), value.get("texts")
        if ids.ndim != 1 or ids.dtype != np.int32 or not isinstance(texts, list) or len(ids) != len(texts):
            raise MisfitError("no vocabulary")
        for token_id, text in zip(ids.tolist(), texts):
            if isinstance(text, bytes):
                self._vocabulary[token_id] = text.decode("utf-8", "surrogateescape")


def trace_stats(path: str | Path, *, deleted: bool = False) -> dict[str, Any]:
    """The document of ``moetui stats --json`` for a file.

    Args:
        deleted: count the tokens of branches that were deleted, too.

    Raises:
        TraceError: see ``open_trace``.
    """
    from moetui.trace.recorded import recorded_stats

    with open_trace(path) as trace:
        return recorded_stats(trace) if deleted else trace.stats()


def _open(path: Path) -> FileSource:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if stat.S_ISDIR(mode):
            raise TraceError(f"{path.name or path} is a folder, not a trace", "name the .msgpack file in it")
        if not stat.S_ISREG(mode):
            raise TraceError(f"{path.name} is no regular file", "copy it to disk first")
        source = FileSource(path)
    except OSError as error:
        raise cannot_open(path, error) from None
    except ValueError:
        raise TraceError("that is no file name", "check the name") from None
    start = source.read(0, len(PREFIX))
    if start != PREFIX:
        source.close()
        if not start:
            raise TraceError(f"{path.name} is empty", "its recording never began")
        raise TraceError(f"{path.name} is no moetui trace", _ANOTHER)
    return source


def _scanned(source: FileSource) -> Catalog:
    catalog = Catalog()
    extend(catalog, source)
    return catalog
