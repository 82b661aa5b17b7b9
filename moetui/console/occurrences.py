"""Where a text occurs among the tokens: a word may be one token or several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moetui.routing import TimelineView, join_texts
from moetui.routing.step import Bool

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place: the timeline numbers of its tokens, in order, and where it stands."""

    tokens: tuple[int, ...]
    branch: int
    sequence: int
    positions: tuple[int, ...]


def find_text(view: TimelineView, needle: str, keep: Bool | None = None) -> list[Occurrence]:
    """Every place where ``needle`` occurs, oldest first.

    Tokens that read ``needle`` themselves (spaces around aside) come first; only if there is none, runs of tokens that
    hold it together.

    Args:
        view: where to look.
        needle: the text.
        keep: ``[n]`` tokens to look at; None for all but padding.
    """
    columns = view.tokens(view.first, view.end)
    wanted = ~columns.pad if keep is None else keep
    texts = {token: view.text(token) for token in np.unique(columns.token_id[wanted]).tolist()}
    exact = [token for token, own in texts.items() if own == needle or own.strip() == needle.strip() != ""]
    rows = np.flatnonzero(wanted & np.isin(columns.token_id, exact))
    runs = [[int(row)] for row in rows[:_MOST].tolist()]
    if not runs:
        keys = (columns.position, columns.sequence, columns.stack, columns.branch)
        order = np.lexsort(keys)
        runs = _runs(
            needle, order[wanted[order]].tolist(), [texts.get(token, "") for token in columns.token_id.tolist()]
        )
    return [
        Occurrence(
            tuple(view.first + row for row in run),
            int(columns.branch[run[0]]),
            int(columns.sequence[run[0]]),
            tuple(columns.position[run].tolist()),
        )
        for run in runs
        if len({(int(columns.branch[row]), int(columns.sequence[row]), int(columns.stack[row])) for row in run}) == 1
    ]


def _runs(needle: str, rows: list[int], texts: list[str]) -> list[list[int]]:
    """Rows whose texts hold ``needle`` together, each row in one run at most."""
    joined, starts = [], []
    at = 0
    for row in rows:
        starts.append(at)
        piece = join_texts([texts[row]])
        joined.append(piece)
        at += len(piece)
    whole = "".join(joined)
    out: list[list[int]] = []
    edges = np.array([*starts, at])
    place = whole.find(needle) if needle else -1
    while place >= 0 and len(out) < _MOST:
        low = int(np.searchsorted(edges, place, "right")) - 1
        high = int(np.searchsorted(edges, place + len(needle), "left"))
        out.append(rows[low:high])
        place = whole.find(needle, place + len(needle))
    return [run for run in out if run]
