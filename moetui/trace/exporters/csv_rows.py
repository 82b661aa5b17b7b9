"""CSV: one row a token, site and slot."""

from __future__ import annotations

import csv
import io
import math
from typing import BinaryIO

from moetui.routing.text import no_formula
from moetui.trace.exporters.table import COLUMNS, phase_names, table_blocks
from moetui.trace.recorded import Recorded


def export(recorded: Recorded, stream: BinaryIO) -> None:
    """Write the rows, UTF-8, a header first; an unknown token id, text or weight is an empty field.

    Token texts are made drawable, and texts that a spreadsheet would take for a formula get a leading apostrophe.
    """
    view = recorded.timeline
    sites = [no_formula(site.name) for site in view.sites]
    phases = phase_names()
    texts: dict[int, str] = {-1: ""}
    _write(stream, [COLUMNS])
    for block in table_blocks(recorded):
        columns = {name: array.tolist() for name, array in block.items()}
        for token_id in set(columns["token_id"]) - texts.keys():
            texts[token_id] = no_formula(view.text(token_id))
        columns["token"] = [texts[token_id] for token_id in columns["token_id"]]
        columns["token_id"] = [token_id if token_id >= 0 else "" for token_id in columns["token_id"]]
        columns["phase"] = [phases.get(phase, "") for phase in columns["phase"]]
        columns["site"] = [sites[site] for site in columns["site"]]
        columns["weight"] = [_number(weight) for weight in columns["weight"]]
        _write(stream, zip(*(columns[name] for name in COLUMNS)))


def _write(stream: BinaryIO, rows: object) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    stream.write(text.getvalue().encode())


def _number(weight: float) -> str:
    # Seven digits tell any half float from its neighbours.
    return "" if math.isnan(weight) else f"{weight:.7g}"
