"""Megatron's router traces: ``router_trace_rank*.jsonl``, a line a step and layer with the experts of each token."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.step import NO_EXPERT
from moetui.trace.arrays import Array
from moetui.trace.importers.base import COUNTED, Imported, Opening, Passage, model_of, narrow_experts, write_trace

_NAME = re.compile(r"router_trace_rank(\d+)\.jsonl\Z")
_MAX_LINE = 64 << 20


def fits(opening: Opening) -> bool:
    """Whether its first line is one of such a trace."""
    try:
        first = json.loads(opening.text.split("\n", 1)[0])
    except (ValueError, RecursionError):
        return '"top_indices"' in opening.text[:4096] and opening.text.startswith("{")
    return isinstance(first, dict) and {"layer", "top_indices"} <= first.keys()


def read(path: Path, out: Path, overwrite: bool) -> Imported:
    """Import it with its siblings: a sequence a rank.

    A layer of which a rank tells nothing (another pipeline stage's) has no expert there. A layer told of several times
    in a step had as many micro-batches, whose tokens follow each other.

    Raises:
        TraceError: it makes no sense, or the trace cannot be written.
    """
    paths = _ranks(path)
    layers: set[int] = set()
    experts = top_k = 0
    for each in paths:
        for _, layer, indices in _lines(each):
            layers.add(layer)
            experts = max(experts, int(indices.max(initial=-1)) + 1)
            top_k = max(top_k, indices.shape[1])
    order = sorted(layers)
    info = model_of(re.sub(r"_?router_trace_rank\d+", "", path.stem) or "megatron", order, experts, top_k)
    rows = {layer: row for row, layer in enumerate(order)}
    passages = _passages(paths, rows, experts, top_k)
    source = f"Megatron's router traces of {len(paths)} ranks" if len(paths) > 1 else "Megatron's router trace"
    return write_trace(
        out,
        info,
        passages,
        source=source,
        has_weights=False,
        has_logits=False,
        findings=(COUNTED,),
        overwrite=overwrite,
    )


def _ranks(path: Path) -> list[Path]:
    if not _NAME.match(path.name):
        return [path]
    found = [(int(match[1]), each) for each in path.parent.iterdir() if (match := _NAME.match(each.name))]
    return [each for _, each in sorted(found)]


def _passages(paths: list[Path], rows: dict[int, int], experts: int, top_k: int) -> Iterator[Passage]:
    begun: dict[int, int] = {}
    for step, rank, group in heapq.merge(*(_steps(each, rank) for rank, each in enumerate(paths))):
        where = f"{paths[rank].name}, step {step}"
        parts = [_micro_batch(each, rows, experts, top_k, where) for each in _micro_batches(group)]
        out = np.concatenate(parts)
        first = begun.get(rank, 0)
        begun[rank] = first + len(out)
        yield Passage(out, sequence=rank, step=step, position=np.arange(first, first + len(out)))


def _micro_batches(group: _Group) -> list[list[tuple[int, Array]]]:
    """A step's lines by micro-batch: a layer's n-th line is of the n-th, in whatever order a pipeline ran them."""
    seen: dict[int, int] = {}
    out: list[list[tuple[int, Array]]] = []
    for layer, indices in group:
        number = seen[layer] = seen.get(layer, -1) + 1
        if number == len(out):
            out.append([])
        out[number].append((layer, indices))
    return out


def _micro_batch(lines: list[tuple[int, Array]], rows: dict[int, int], experts: int, top_k: int, where: str) -> Array:
    """The experts ``[tokens, layers, slots]`` of lines of which each has another layer."""
    counts = {len(indices) for _, indices in lines}
    if len(counts) != 1:
        raise TraceError(f"{where}: the layers have different numbers of tokens", "the log is damaged")
    out = np.full((counts.pop(), len(rows), top_k), NO_EXPERT, np.uint16)
    for layer, indices in lines:
        out[:, rows[layer], : indices.shape[1]] = narrow_experts(indices, experts, where)
    return out


def _steps(path: Path, rank: int) -> Iterator[tuple[int, int, _Group]]:
    for step, lines in groupby(_lines(path), key=lambda line: line[0]):
        yield step, rank, _Group((layer, indices) for _, layer, indices in lines)


class _Group(list[tuple[int, Array]]):
    """A step's layers; never compared, as merging goes by step and rank alone."""

    def __init__(self, layers: Iterable[tuple[int, Array]]) -> None:
        super().__init__(layers)


def _lines(path: Path) -> Iterator[tuple[int, int, Array]]:
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), b""), 1):
            if line.strip():
                yield _line(line, f"{path.name}, line {number}")


def _line(line: bytes, where: str) -> tuple[int, int, Array]:
    try:
        record: Any = json.loads(line)
        step, layer = record.get("step", 0), record["layer"]
        indices = np.array(record["top_indices"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TraceError(f"{where}: no router trace", "the log is damaged, or cut off") from None
    if indices.ndim == 1:
        indices = indices[:, None] if indices.size else indices.reshape(0, 1)
    sound = type(step) is int and type(layer) is int and 0 <= layer < 1 << 16 and abs(step) < 1 << 31
    if not sound or indices.ndim != 2 or (indices.size and indices.dtype.kind not in "iu"):
        raise TraceError(f"{where}: top_indices is no table of experts", "the log is damaged")
    return step, layer, indices.astype(np.int64)
