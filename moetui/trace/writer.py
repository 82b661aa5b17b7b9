"""Writes a trace: one pass, append-only, on disk within a second, and never in the way of what it records."""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import msgpack
import numpy as np

from moetui._version import __version__
from moetui.routing.errors import TraceError
from moetui.routing.events import BreakpointHit, Event, FindingRaised, GenerationSettings, ModelChanged, RunStateChanged
from moetui.routing.model import ModelInfo, Site
from moetui.routing.scores import token_scores
from moetui.routing.step import NO_EXPERT, Step
from moetui.routing.steps import Steps
from moetui.trace.arrays import pack_array
from moetui.trace.chunks import ChunkBuilder, Packed
from moetui.trace.frames import Compressor, Piece, pack_frame
from moetui.trace.layout import FORMAT, MAX_META, MAX_PROMPT, VERSION, Widths
from moetui.trace.plain import clean, to_plain
from moetui.trace.sums import SumsBuilder
from moetui.trace.target import Target
from moetui.trace.ticker import Ticker
from moetui.trace.values import event_to_plain, info_to_plain, is_lasting, text_bytes

_TEXTS = 2048  # of a vocabulary record
_EVENTS = 256  # of an events record
_SAFE_WITHIN = 0.9  # seconds: with what writing takes, a killed recording lacks less than its last second


class TraceWriter:
    """Writes steps and events into a new trace.

    Any program with NumPy arrays can use it; see ``examples/write_trace.py``. Use it as a context manager, or call
    ``close``. Methods may be called from any thread; a thread of its own flushes what is due.

    After opening, nothing that happens to the disk raises: ``problem`` says what went wrong, all that was flushed
    before is intact, and later steps are swallowed.

    Args:
        path: the file; its folder exists.
        info: the model; the numbers of sites, slots and classes are taken from it.
        settings, prompt: of the generation, for the header.
        overwrite: replace an existing file, once the first tokens are written.
        compression: ``"zstd"`` or None.
        has_logits, has_weights: whether router logits and gate weights are kept.
        has_timings: whether the steps' times are measured ones.
        flush_seconds: the longest that anything waits for being written; ``math.inf`` for only when a chunk is full or
            ``flush`` is called. May be changed at any time.

    Raises:
        TraceError: the file exists, or cannot be created or written.
        ValueError: the model is larger than the format allows.
    """

    def __init__(
        self,
        path: str | Path,
        info: ModelInfo,
        *,
        settings: GenerationSettings | None = None,
        prompt: str = "",
        overwrite: bool = False,
        compression: Literal["zstd"] | None = "zstd",
        has_logits: bool = True,
        has_weights: bool = True,
        has_timings: bool = True,
        flush_seconds: float = _SAFE_WITHIN,
    ) -> None:
        widths = Widths(len(info.sites), info.top_k, info.num_classes, 0)
        if not widths.plausible:
            raise ValueError(f"a model of {widths} is larger than the format allows")
        self._lock = threading.RLock()
        self._info = info
        self._compressor = Compressor() if compression else None
        self._chunk = ChunkBuilder(widths, info.sites, has_weights=has_weights, has_logits=has_logits)
        self._sums = SumsBuilder()
        self._index = _Index()
        self._due: list[bytes] = []  # records that wait for the next write, before the chunk's
        self._stacks: list[str] = []
        self._events: list[bytes] = []
        self._vocabulary: dict[int, str] = {}
        self._closed = self._lost = False
        self._target = Target(Path(path), overwrite=overwrite)
        present = [name for name, has in _presence(has_weights, has_logits, has_timings) if has]
        self._write_header(settings or GenerationSettings(), prompt, present)
        self._ticker = Ticker(self.flush, flush_seconds)

    @property
    def flush_seconds(self) -> float:
        """See above."""
        return self._ticker.seconds

    @flush_seconds.setter
    def flush_seconds(self, seconds: float) -> None:
        self._ticker.seconds = seconds

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self._target.nbytes

    @property
    def problem(self) -> str:
        """Why nothing is written any more, in one line; empty while all is well."""
        return self._target.problem

    def write_step(self, step: Step) -> None:
        """Add a step.

        Args:
            step: its arrays are kept until they are written and must not change.

        Raises:
            ValueError: the step's arrays do not fit each other or the model, or tokens went to experts that neither the
                model has nor the step's logits.
        """
        _check_experts(step, self._info.sites)
        self.write_steps(Steps.of(step))

    def write_steps(self, steps: Steps) -> None:
        """Add several steps, as if one by one but at the cost of one; see ``write_step``.

        Experts' numbers are taken as they are.
        """
        with self._lock:
            if self._closed or self.problem or not steps.num_tokens:
                return
            widths = self._chunk.wide_enough(steps)
            if widths != self._chunk.widths:
                self._write_chunk()
                self._chunk.widths = widths
                self._add("widths", to_plain(widths))
            if steps.stack not in self._stacks:
                self._stacks.append(steps.stack)
                self._add("stacks", {"names": [clean(name) for name in self._stacks]})
            self._vocabulary.update(steps.vocabulary)
            scores = token_scores(steps, self._info.sites)
            for packed in self._chunk.add(steps, self._stacks.index(steps.stack), scores):
                self._write(packed)
        self._wind()

    def write_event(self, event: Event) -> None:
        """Add an event, if it is one that lasts: interventions, breakpoint hits, branches, findings, run states.

        A changed run state and a breakpoint that stopped the run are flushed with all that was before them.
        """
        if isinstance(event, ModelChanged):
            self.update_info(event.info)
            return
        if not is_lasting(event):
            return
        with self._lock:
            if self._closed or self.problem:
                return
            self._lost |= isinstance(event, FindingRaised) and event.finding.loses_steps
            packed = msgpack.packb(event_to_plain(self._chunk.tokens + self._chunk.held, event), use_bin_type=True)
            self._events.append(packed)
            if _urgent(event) or len(self._events) >= _EVENTS or sum(map(len, self._events)) > MAX_META // 8:
                self._write_chunk()
        self._wind()

    def update_info(self, info: ModelInfo) -> None:
        """Take over what became known of the model.

        Raises:
            ValueError: it has another number of sites.
        """
        with self._lock:
            if self._closed or self.problem or info == self._info:
                return
            if len(info.sites) != len(self._info.sites):
                raise ValueError(f"{len(info.sites)} sites instead of {len(self._info.sites)}")
            changed = info.modules != self._info.modules
            self._info = info
            self._chunk.sites = info.sites
            self._sums.forget()
            self._add("model", _fitting(info_to_plain(info, modules=changed)))
        self._wind()

    def flush(self) -> None:
        """Write what waits, so that it outlives this process; not waiting for the device that holds it."""
        with self._lock:
            if not self._closed:
                self._write_chunk()

    def close(self, complete: bool = True) -> None:
        """Write what waits and the index, and close the file.

        Args:
            complete: False says in the file that something is missing, as does a finding that says so.
        """
        self._ticker.stop()
        with self._lock:
            if self._closed:
                return
            self._write_chunk()
            if not self.problem:
                self._write_end(complete and not self._lost)
            self._closed = True
            self._target.commit()
            self._target.close()

    def discard(self) -> None:
        """End it and leave no file: one that it was to replace stays as it was."""
        self._ticker.stop()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._target.discard()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def _write_header(self, settings: GenerationSettings, prompt: str, present: list[str]) -> None:
        header = {
            "format": FORMAT,
            "schema_version": VERSION,
            "version": VERSION,  # the name that readers of the first files know
            "writer": f"moetui {__version__}",
            **info_to_plain(self._info),
            "settings": to_plain(settings),
            "prompt": clean(prompt[:MAX_PROMPT]),
            "present": present,
            "id_space": {"experts": "site", "no_expert": 0xFFFF, "tokens": "model"},
        }
        try:
            self._add("header", _fitting(header))
            if not self._target.write(b"".join(self._due)):
                raise TraceError(self.problem, "choose another place, or make room")
        except (TraceError, ValueError):
            self._target.discard()
            raise
        self._due.clear()

    def _write_chunk(self) -> None:
        self._write(self._chunk.pack() if self._chunk.held else None)

    def _write(self, packed: Packed | None) -> None:
        self._add_vocabulary()
        if packed is not None:
            self._add_chunk(packed)
        if self._events:
            self._add_events()
        if not self._due:
            return
        data = b"".join(self._due)
        self._due.clear()
        if self._target.write(data) and packed is not None:
            self._target.commit()

    def _write_end(self, complete: bool) -> None:
        start = self._index.end
        self._add_record("index", 0, 0, [self._index.packed()])
        totals = {"complete": complete, "tokens": self._chunk.tokens, "steps": self._chunk.steps, "index": start}
        self._due.append(pack_frame("end", self._chunk.tokens, 0, [msgpack.packb(totals)], None))
        self._target.write(b"".join(self._due))
        self._due.clear()

    def _add_vocabulary(self) -> None:
        fresh, self._vocabulary = self._vocabulary, {}
        items = list(fresh.items())
        for start in range(0, len(items), _TEXTS):
            part = items[start : start + _TEXTS]
            ids = np.array([token_id for token_id, _ in part], np.int32)
            self._add("vocabulary", {"ids": pack_array(ids), "texts": [text_bytes(text) for _, text in part]})

    def _add_chunk(self, packed: Packed) -> None:
        for kind, body in packed.records:
            self._add_record(kind, packed.first, packed.count, body)
        sums = self._sums.add(packed.counts, packed.count, self._due[-len(packed.records) :])
        if sums is not None:
            tokens, body = sums
            self._add_record("sums", packed.first + packed.count - tokens, tokens, body)

    def _add_events(self) -> None:
        packer = msgpack.Packer()
        head = packer.pack_map_header(1) + packer.pack("events") + packer.pack_array_header(len(self._events))
        self._add_record("events", self._chunk.tokens, 0, [head, *self._events])
        self._events = []

    def _add(self, kind: str, value: Mapping[str, Any]) -> None:
        self._add_record(kind, self._chunk.tokens + self._chunk.held, 0, [msgpack.packb(value, use_bin_type=True)])

    def _add_record(self, kind: str, first: int, count: int, body: Sequence[Piece]) -> None:
        record = pack_frame(kind, first, count, body, self._compressor)
        self._index.add(kind, first, count, len(record))
        self._due.append(record)

    def _wind(self) -> None:
        if math.isfinite(self.flush_seconds):
            self._ticker.wind()


class _Index:
    """Where each record begins: kind, first token, tokens, position in the file."""

    def __init__(self) -> None:
        self.end = 0
        self._kinds: list[str] = []
        self._rows = (array("q"), array("q"), array("q"), array("q"))

    def add(self, kind: str, first: int, count: int, nbytes: int) -> None:
        if kind not in self._kinds:
            self._kinds.append(kind)
        for column, value in zip(self._rows, (self._kinds.index(kind), first, count, self.end)):
            column.append(value)
        self.end += nbytes

    def packed(self) -> bytes:
        names = ("kind", "first", "count", "start")
        dtypes = (np.uint8, np.int64, np.int64, np.int64)
        columns = {n: pack_array(np.array(rows, d)) for n, rows, d in zip(names, self._rows, dtypes)}
        return bytes(msgpack.packb({"kinds": self._kinds, **columns}))


def _check_experts(step: Step, sites: Sequence[Site]) -> None:
    if step.indices.ndim != 3 or step.indices.shape[1] != len(sites):
        return  # the chunk says so
    wide = 0 if step.logits is None else step.logits.shape[-1]
    classes = np.array([max(site.num_classes, wide) for site in sites])[:, None]
    lacking = (step.indices >= classes) & (step.indices != NO_EXPERT)
    if lacking.any():
        token, number, slot = np.argwhere(lacking)[0].tolist()
        site, expert = sites[number], int(step.indices[token, number, slot])
        raise ValueError(f"token {token} went to expert {expert} of {site.name}, which has {site.num_classes}")


def _urgent(event: Event) -> bool:
    return isinstance(event, RunStateChanged) or (isinstance(event, BreakpointHit) and not event.log_only)


def _presence(weights: bool, logits: bool, timings: bool) -> tuple[tuple[str, bool], ...]:
    return ("weights", weights), ("logits", logits), ("timings", timings)


def _fitting(header: dict[str, Any]) -> dict[str, Any]:
    """The header or model, without the module tree if that is larger than a reader would take."""
    if len(msgpack.packb(header, use_bin_type=True)) > MAX_META:
        return {**header, "modules": []}
    return header
