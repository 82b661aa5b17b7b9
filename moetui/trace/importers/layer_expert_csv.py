"""CSV with the columns ``layer`` and ``expert``, and whatever else it has of ours."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.step import NO_EXPERT
from moetui.trace.arrays import Array
from moetui.trace.importers.base import COUNTED, MAX_EXPERTS, Imported, Opening, Passage, model_of, write_trace

_TOKEN_KEYS = ("run", "branch", "step", "position", "token_index")  # what tells one token from another
_BLOCK = 4096


def fits(opening: Opening) -> bool:
    """Whether its first line names the two columns."""
    return {"layer", "expert"} <= set(_header(opening.text.split("\n", 1)[0]))


def read(path: Path, out: Path, overwrite: bool) -> Imported:
    """Import it.

    Rows that agree in ``run, branch, step, position, token_index`` (those of them that are there) are one token's, the
    slots in the order of the rows. Without any of them, the n-th row of a layer is the n-th token's only expert.

    Raises:
        TraceError: it makes no sense, or the trace cannot be written.
    """
    table = _Table()
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            table.read(csv.reader(stream), path.name)
    except (OSError, csv.Error) as error:
        raise TraceError(f"cannot read {path.name}: {error}", "check the file") from None
    indices, weights = table.arrays()
    order = sorted(table.layers)
    info = model_of(path.stem, order, max(table.experts, default=-1) + 1, indices.shape[2])
    return write_trace(
        out,
        info,
        _passages(indices, weights, table),
        source="a CSV of layers and experts",
        has_weights=weights is not None,
        has_logits=False,
        findings=(COUNTED,),
        overwrite=overwrite,
    )


class _Table:
    """The rows, as numbers."""

    def __init__(self) -> None:
        self.layers: dict[int, int] = {}
        self.experts: set[int] = set()
        self.ids: list[int] = []
        self.texts: dict[int, str] = {}
        self._tokens: dict[tuple[str, ...], int] = {}
        self._token, self._layer, self._expert = array("q"), array("i"), array("i")
        self._weight = array("d")
        self._has_weight = False

    def read(self, rows: Iterator[list[str]], name: str) -> None:
        header = _header(",".join(next(rows, [])))
        columns = {column: place for place, column in enumerate(header)}
        keys = [columns[key] for key in _TOKEN_KEYS if key in columns]
        self._has_weight = "weight" in columns
        counts: dict[int, int] = {}
        for number, row in enumerate(rows, 2):
            if not row:
                continue
            try:
                layer, expert = int(row[columns["layer"]]), int(row[columns["expert"]])
                weight = float(row[columns["weight"]] or "nan") if self._has_weight else math.nan
                key = tuple(row[place] for place in keys)
            except (ValueError, IndexError):
                raise TraceError(f"{name}, line {number}: no layer and expert", "the file is damaged") from None
            if not 0 <= layer < 1 << 16 or not 0 <= expert < MAX_EXPERTS:
                raise TraceError(f"{name}, line {number}: an impossible layer or expert", "the file is damaged")
            if not keys:
                counts[layer] = counts.get(layer, 0) + 1
                key = (str(counts[layer]),)
            self._add(key, layer, expert, weight)
            if len(self.ids) < len(self._tokens):
                self._add_text(row, columns)

    def arrays(self) -> tuple[Array, Array | None]:
        """Experts ``[tokens, layers, slots]`` and weights of that shape."""
        rows = {layer: row for row, layer in enumerate(sorted(self.layers))}
        token = np.frombuffer(self._token, np.int64)
        layer = np.array([rows[each] for each in self._layer], np.int64)
        place = token * max(1, len(rows)) + layer
        order = np.argsort(place, kind="stable")
        _, start, count = np.unique(place[order], return_index=True, return_counts=True)
        slot = np.empty(len(place), np.int64)
        slot[order] = np.arange(len(place)) - np.repeat(start, count)
        slots = int(count.max(initial=0))
        shape = (len(self._tokens), len(rows), slots)
        if math.prod(shape) > 64 * max(1, len(place)) + 1_000_000:
            raise TraceError("the layers have too different numbers of rows", "name the tokens: add a column position")
        indices = np.full(shape, NO_EXPERT, np.uint16)
        indices[token, layer, slot] = np.frombuffer(self._expert, np.int32)
        if not self._has_weight:
            return indices, None
        weights = np.full(shape, np.nan, np.float16)
        weights[token, layer, slot] = np.frombuffer(self._weight, np.float64)
        return indices, weights

    def _add(self, key: tuple[str, ...], layer: int, expert: int, weight: float) -> None:
        self._token.append(self._tokens.setdefault(key, len(self._tokens)))
        self.layers.setdefault(layer, layer)
        self.experts.add(expert)
        self._layer.append(layer)
        self._expert.append(expert)
        self._weight.append(weight)

    def _add_text(self, row: list[str], columns: dict[str, int]) -> None:
        try:
            token_id = int(row[columns["token_id"]])
        except (KeyError, ValueError, IndexError):
            token_id = -1
        token_id = token_id if 0 <= token_id < 1 << 31 else -1
        self.ids.append(token_id)
        place = columns.get("token", len(row))
        if token_id >= 0 and place < len(row):
            self.texts[token_id] = row[place]


def _passages(indices: Array, weights: Array | None, table: _Table) -> Iterator[Passage]:
    ids = np.array(table.ids, np.int32)
    for start in range(0, len(indices), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield Passage(
            indices[rows],
            None if weights is None else weights[rows],
            token_id=ids[rows],
            position=np.arange(start, start + len(ids[rows])),
            texts={each: table.texts[each] for each in set(ids[rows].tolist()) if each in table.texts},
        )


def _header(line: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in line.strip().split(",")]
