"""The records' columns: names, dtypes, axes and what stands for unknown. One table for writer and reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moetui.routing.step import NO_EXPERT

FORMAT = "moetui-trace"
VERSION = 2

CHUNK_TOKENS = 4096  # tokens of a chunk, at most: a reader takes no more
CHUNK_BYTES = 2 << 20  # bytes of a chunk's logits, about: what has to be unpacked to see one token
SUMS_TOKENS = 4096  # tokens, at least, that a record of sums is of
MAX_META = 16 << 20  # bytes of a record that is no chunk, unpacked
MAX_ITEMS = 1_000_000  # maps and lists in it
MAX_TEXT = 4096  # bytes of a token's text; the rest is cut
MAX_PROMPT = 1 << 20  # characters of a prompt; the rest is cut
MAX_ROW = 1 << 20  # sites × classes and sites × slots of one token
MAX_SITES = 1 << 16
MAX_CANDIDATES = 1024

Axis = Literal["", "candidates", "sites", "slots", "classes"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a record: ``[rows]``, ``[rows, candidates]``, ``[rows, sites]``, ``[rows, sites, slots | classes]``.

    ``fill`` stands for unknown; ``layout`` says how the column is stored where it can be, see ``moetui.trace.layouts``.
    """

    name: str
    dtype: str
    fill: Any
    axis: Axis = ""
    layout: Literal["", "differences", "thousandths", "millionths"] = ""


TOKEN_COLUMNS = (
    Column("step", "<i4", -1, layout="differences"),
    Column("branch", "<i2", 0),
    Column("phase", "|u1", 1),
    Column("stack", "|u1", 0),
    Column("sequence", "<i2", 0),
    Column("position", "<i4", -1, layout="differences"),
    Column("token_id", "<i4", -1),
    Column("pad", "|b1", False),
    Column("started", "<f8", np.nan),
    Column("ms", "<f4", np.nan),
    Column("logprob", "<f4", np.nan),
    Column("entropy", "<f4", np.nan),
    Column("confidence", "<f4", np.nan),
    Column("margin", "<f4", np.nan),
    Column("flags", "|u1", 0),
    Column("candidate_ids", "<i4", -1, "candidates"),
    Column("candidate_logprobs", "<f2", np.nan, "candidates"),
)
STEP_COLUMNS = (
    Column("index", "<i4", -1, layout="differences"),
    Column("branch", "<i2", 0),
    Column("phase", "|u1", 1),
    Column("started", "<f8", np.nan, layout="millionths"),
    Column("duration", "<f4", np.nan, layout="thousandths"),
    Column("first_token", "<i4", 0, layout="differences"),
    Column("num_tokens", "<i4", 0),
    Column("site_ms", "<f4", np.nan, "sites", layout="thousandths"),
    Column("memory", "<f4", np.nan),
)
ROUTING_COLUMNS = (
    Column("indices", "<u2", NO_EXPERT, "slots"),
    Column("weights", "<f2", np.nan, "slots"),
    Column("flags", "|u1", 0, "sites"),
)
LOGITS_COLUMNS = (Column("logits", "<f2", np.nan, "classes"),)

CHUNK_KINDS = {
    "tokens": TOKEN_COLUMNS,
    "steps": STEP_COLUMNS,
    "routing": ROUTING_COLUMNS,
    "logits": LOGITS_COLUMNS,
}


@dataclass(frozen=True, slots=True)
class Widths:
    """The sizes of the axes other than rows."""

    sites: int
    slots: int
    classes: int
    candidates: int

    def shape(self, column: Column, rows: int) -> tuple[int, ...]:
        """The shape of ``column`` with ``rows`` rows."""
        if column.axis == "":
            return (rows,)
        if column.axis == "candidates":
            return (rows, self.candidates)
        if column.axis == "sites":
            return (rows, self.sites)
        return (rows, self.sites, self.slots if column.axis == "slots" else self.classes)

    @property
    def plausible(self) -> bool:
        """Whether a reader takes a trace with rows this wide."""
        widest = max(1, self.sites) * max(1, self.slots, self.classes)
        return self.sites <= MAX_SITES and widest <= MAX_ROW and self.candidates <= MAX_CANDIDATES
