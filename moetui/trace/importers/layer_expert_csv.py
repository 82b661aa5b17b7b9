"""CSV with the columns ``layer`` and ``expert``, and whatever else it has of ours."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import Branch, Finding
from moetui.routing.phase import Phase
from moetui.routing.step import NO_EXPERT
from moetui.trace.arrays import Array
from moetui.trace.importers.base import COUNTED, MAX_EXPERTS, Imported, Opening, Passage, model_of, write_trace

_TOKEN_KEYS = ("run", "branch", "step", "position", "token_index")  # what tells one token from another
_NUMBERED = ("position", "token_index", "token_id")  # with one of these, a column token is the token's text
_BLOCK = 4096
_MAX_NAME = 80
_DECODE = Phase.DECODE.label
ROWS_ARE_TOKENS = Finding(
    "import_rows_are_tokens",
    "info",
    "no column tells tokens apart: each row of a layer was taken as a token of its own (top-1)",
    "a column position or token that is the same for a token's rows tells which belong together",
)


def fits(opening: Opening) -> bool:
    """Whether its first line names the two columns."""
    try:
        header = next(csv.reader([opening.text.split("\n", 1)[0]]), [])
    except csv.Error:
        return False
    return {"layer", "expert"} <= set(_names(header))


def read(path: Path, out: Path, overwrite: bool) -> Imported:
    """Import it.

    Rows that agree in ``run, branch, step, position, token_index`` (those of them that are there) are one token's, the
    slots in the order of the rows; where there is a column ``slot``, one that comes again is the next sequence's.
    A column ``token`` that holds whole numbers alone, in a file without positions and ids, is the token's index.
    Without any of them, the n-th row of a layer is the n-th token's only expert, and a finding says so. Positions,
    steps, phases and branches, with their numbers, are kept where they can be; a column ``site`` tells the routers of a
    layer apart.

    Raises:
        TraceError: it makes no sense, or the trace cannot be written.
    """
    table = _Table()
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            numbered = _tokens_are_numbers(csv.reader(stream))
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            table.read(csv.reader(stream), path.name, numbered)
    except (OSError, csv.Error) as error:
        raise TraceError(f"cannot read {path.name}: {error}", "check the file") from None
    indices, weights = table.arrays()
    layers, names = [layer for layer, _ in table.sites()], [name for _, name in table.sites()]
    named = len(set(names)) == len(names) and all(0 < len(name) <= _MAX_NAME for name in names)
    experts = max(table.experts, default=-1) + 1
    info = model_of(path.stem, layers, experts, indices.shape[2], site_names=names if named else None)
    return write_trace(
        out,
        info,
        _passages(indices, weights, table),
        source="a CSV of layers and experts",
        has_weights=weights is not None,
        has_logits=False,
        branches=table.branches(),
        findings=(COUNTED, ROWS_ARE_TOKENS) if table.rows_are_tokens else (COUNTED,),
        overwrite=overwrite,
    )


class _Table:
    """The rows, as numbers; lists of a token each are in the order in which the tokens came."""

    def __init__(self) -> None:
        self.experts: set[int] = set()
        self.ids: list[int] = []
        self.texts: dict[int, str] = {}
        self.positions: list[int | None] = []
        self.steps: list[int | None] = []
        self.decodes: list[bool] = []
        self.owners: list[tuple[str, str]] = []  # run and branch
        self._sites: dict[tuple[int, str], int] = {}
        self._tokens: dict[tuple[str | int, ...], int] = {}
        self._token, self._site, self._expert = array("q"), array("i"), array("i")
        self._weight = array("d")
        self._has_weight = False
        self.rows_are_tokens = False

    def read(self, rows: Iterator[list[str]], name: str, numbered: bool) -> None:
        columns = {column: place for place, column in enumerate(_names(next(rows, [])))}
        if numbered:
            columns["token_index"] = columns.pop("token")
        keys = [columns[key] for key in _TOKEN_KEYS if key in columns]
        self._has_weight = "weight" in columns
        self.rows_are_tokens = not keys and "slot" not in columns
        told: dict[tuple[str | int, ...], int] = {}  # how often a layer, or a token's slot, was told of
        for number, row in enumerate(rows, 2):
            if not row:
                continue
            try:
                layer, expert = _whole(row[columns["layer"]]), _whole(row[columns["expert"]])
                weight = float(row[columns["weight"]] or "nan") if self._has_weight else math.nan
                key: tuple[str | int, ...] = tuple(row[place] for place in keys)
            except (ValueError, IndexError):
                raise TraceError(f"{name}, line {number}: no layer and expert", "the file is damaged") from None
            if not 0 <= layer < 1 << 16 or not 0 <= expert < MAX_EXPERTS:
                raise TraceError(f"{name}, line {number}: an impossible layer or expert", "the file is damaged")
            site = self._sites.setdefault((layer, _cell(row, columns, "site")), len(self._sites))
            if not keys or "slot" in columns:
                place = (*key, site, _cell(row, columns, "slot"))
                told[place] = again = told.get(place, -1) + 1
                key = (*key, again)
            self._add(key, site, expert, weight)
            if len(self.ids) < len(self._tokens):
                self._add_token(row, columns)

    def sites(self) -> list[tuple[int, str]]:
        """Layer and name of each, by layer and in the order of the file."""
        return sorted(self._sites, key=lambda site: (site[0], self._sites[site]))

    def branches(self) -> list[Branch]:
        """Those named by the columns ``run`` and ``branch``, in the order in which they began."""
        first: dict[tuple[str, str], int] = {}
        for token, owner in enumerate(self.owners):
            first.setdefault(owner, token)
        if len(first) < 2:
            return []
        numbers = self.numbers()
        runs: dict[str, int] = {}  # by the numbers of their first branches, as sessions number them
        out = []
        for owner, token in first.items():
            number = numbers[owner]
            out.append(Branch(number, runs.setdefault(owner[0], number), _called(number, owner), first_token=token))
        return out

    def numbers(self) -> dict[tuple[str, str], int]:
        """A number for each run and branch: the column's own where it tells them all apart, else counted."""
        owners = list(dict.fromkeys(self.owners))
        counted = {owner: number for number, owner in enumerate(owners)}
        try:
            own = {owner: _whole(owner[1]) for owner in owners}
        except ValueError:
            return counted
        tell = len(set(own.values())) == len(own) and all(0 <= number < 1 << 15 for number in own.values())
        return own if tell else counted

    def arrays(self) -> tuple[Array, Array | None]:
        """Experts ``[tokens, sites, slots]`` and weights of that shape."""
        rows = {self._sites[site]: row for row, site in enumerate(self.sites())}
        token = np.frombuffer(self._token, np.int64)
        site = np.array([rows[each] for each in self._site], np.int64)
        place = token * max(1, len(rows)) + site
        order = np.argsort(place, kind="stable")
        _, start, count = np.unique(place[order], return_index=True, return_counts=True)
        slot = np.empty(len(place), np.int64)
        slot[order] = np.arange(len(place)) - np.repeat(start, count)
        slots = int(count.max(initial=0))
        shape = (len(self._tokens), len(rows), slots)
        if math.prod(shape) > 64 * max(1, len(place)) + 1_000_000:
            raise TraceError("the layers have too different numbers of rows", "name the tokens: add a column position")
        indices = np.full(shape, NO_EXPERT, np.uint16)
        indices[token, site, slot] = np.frombuffer(self._expert, np.int32)
        if not self._has_weight:
            return indices, None
        weights = np.full(shape, np.nan, np.float16)
        with np.errstate(over="ignore"):
            weights[token, site, slot] = np.frombuffer(self._weight, np.float64)
        return indices, weights

    def _add(self, key: tuple[str | int, ...], site: int, expert: int, weight: float) -> None:
        self._token.append(self._tokens.setdefault(key, len(self._tokens)))
        self._site.append(site)
        self._expert.append(expert)
        self.experts.add(expert)
        self._weight.append(weight)

    def _add_token(self, row: list[str], columns: dict[str, int]) -> None:
        token_id = _number(row, columns, "token_id")
        token_id = -1 if token_id is None else token_id
        self.ids.append(token_id)
        if token_id >= 0 and "token" in columns:
            self.texts[token_id] = _cell(row, columns, "token")
        self.positions.append(_number(row, columns, "position"))
        self.steps.append(_number(row, columns, "step"))
        self.decodes.append(_cell(row, columns, "phase").lower() == _DECODE)
        self.owners.append((_cell(row, columns, "run"), _cell(row, columns, "branch")))


def _tokens_are_numbers(rows: Iterator[list[str]]) -> bool:
    """Whether the column ``token`` is a token's index: whole numbers alone, and nothing else numbers the tokens."""
    names = _names(next(rows, []))
    if "token" not in names or any(name in names for name in _NUMBERED):
        return False
    place = names.index("token")
    try:
        return all(_whole(row[place]) >= 0 for row in rows if row)
    except (ValueError, IndexError, OverflowError):
        return False


def _called(number: int, owner: tuple[str, str]) -> str:
    """A branch's name, which has no other number than its own but where it says whose that is."""
    run, branch = owner
    try:
        known = not branch or _whole(branch) == number
    except ValueError:
        return f"branch {branch}"
    return f"branch {number}" if known else f"branch {number} (in the CSV: run {run or '?'}, branch {branch})"


def _passages(indices: Array, weights: Array | None, table: _Table) -> Iterator[Passage]:
    """Blocks of tokens that went through the model together, as far as the columns tell."""
    ids = np.array(table.ids, np.int32)
    count = len(indices)
    position = np.arange(count) if None in table.positions else np.array(table.positions)
    has_steps = None not in table.steps
    numbers = table.numbers()
    start = 0
    while start < count:
        together = (table.steps[start], table.owners[start], table.decodes[start])
        stop = start + 1
        while (
            stop < min(count, start + _BLOCK)
            and (table.steps[stop], table.owners[stop], table.decodes[stop]) == together
        ):
            stop += 1
        rows = slice(start, stop)
        yield Passage(
            indices[rows],
            None if weights is None else weights[rows],
            token_id=ids[rows],
            position=position[rows],
            texts={each: table.texts[each] for each in set(ids[rows].tolist()) if each in table.texts},
            branch=numbers[together[1]],
            step=together[0] if has_steps else None,
            phase=Phase.DECODE if together[2] else Phase.PREFILL,
        )
        start = stop


def _names(header: list[str]) -> list[str]:
    return [name.strip().strip('"').lower() for name in header]


def _cell(row: list[str], columns: dict[str, int], name: str) -> str:
    place = columns.get(name, len(row))
    return row[place] if place < len(row) else ""


def _number(row: list[str], columns: dict[str, int], name: str) -> int | None:
    """A number of a token's that a trace can hold; None where there is none."""
    try:
        value = _whole(_cell(row, columns, name))
    except ValueError:
        return None
    return value if 0 <= value < 1 << 31 else None


def _whole(text: str) -> int:
    """A whole number, be it written as ``5.0``, as tables with gaps are."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)
