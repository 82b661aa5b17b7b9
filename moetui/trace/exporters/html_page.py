"""One self-contained HTML page: heatmap, balance, tokens and findings. Loads nothing, from nowhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import Any, BinaryIO

import numpy as np

from moetui.routing.interventions import dict_words
from moetui.routing.phase import Phase
from moetui.routing.stats import dead_text
from moetui.routing.step import NO_EXPERT
from moetui.routing.text import drawable
from moetui.trace.arrays import Array
from moetui.trace.exporters.numbers import number
from moetui.trace.recorded import Recorded, recorded_stats

_MOST_TOKENS = 3000
_MOST_SLOTS = 600_000  # tokens × sites × slots on the page: a phone has to hold them
_NO_WEIGHT = -0x8000
_WEIGHT_PARTS = 10_000  # of one, as long as the largest weight leaves room for it


def export(recorded: Recorded, stream: BinaryIO) -> None:
    """Write the page: of all tokens the numbers, of the last few thousand the texts and experts.

    Every string of the recording is made drawable and escaped; the page's policy allows its own script only.
    """
    stats = recorded_stats(recorded)
    here = resources.files("moetui.trace.exporters")
    script = here.joinpath("page.js").read_text("utf-8")
    tokens = _tokens(recorded)
    decoded = bool((recorded.timeline.steps().phase == Phase.DECODE).any())
    values = {
        "title": escape(f"{drawable(stats['model']) or 'a recording'} — routing"),
        "subtitle": escape(_subtitle(stats)),
        "incomplete": "" if stats["complete"] else "<p><strong>This recording is incomplete.</strong></p>",
        "cards": "".join(_card(name, value) for name, value in _measures(stats, decoded=decoded)),
        "findings": _findings(stats["findings"]),
        "balance": _balance(stats["per_site"]),
        "shown": escape(_shown(recorded, len(tokens["rows"]))),
        "footer": escape(f"Made by moetui from a recording of {drawable(recorded.info.name)}."),
        "data": _inline({"sites": _sites(stats["per_site"]), "tokens": tokens}),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = Template(here.joinpath("page.html").read_text("utf-8")).substitute(values)
    stream.write(page.encode("utf-8", "replace"))


def _subtitle(stats: dict[str, Any]) -> str:
    parts = [
        drawable(stats["architecture"]),
        f"{stats['sites']} sites × {stats['num_experts']} experts, top-{stats['top_k']}",
        f"{stats['tokens']:,} tokens in {stats['steps']:,} steps",
        "ids only: weights and entropies are unknown" if stats["ids_only"] else "",
        "; ".join(drawable(dict_words(each)) for each in stats["interventions"]),
    ]
    return " · ".join(part for part in parts if part)


def _measures(stats: dict[str, Any], *, decoded: bool) -> list[tuple[str, str]]:
    return [
        ("load imbalance (max/mean)", _number(stats["load_imbalance"])),
        ("fairness (Jain)", _number(stats["fairness_index"])),
        ("coefficient of variation", _number(stats["coefficient_of_variation"])),
        ("MaxVio", _number(stats["max_violation"])),
        ("router entropy (nats)", _number(stats["average_entropy"])),
        ("experts a token", _number(stats["avg_experts_per_token"], 2)),
        ("dead experts", dead_text(stats)),
        (f"tokens/s{' of the decode steps' if decoded else ''}", _number(stats["tokens_per_second"], 1)),
    ]


def _card(name: str, value: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _findings(findings: list[dict[str, Any]]) -> str:
    if not findings:
        return "<p>None.</p>"
    rows = []
    for finding in findings:
        severity = finding["severity"] if finding["severity"] in ("info", "warning", "error") else "info"
        where = f"{finding['site']}: " if finding["site"] else ""
        where = "" if finding["message"].startswith(where) else where  # most say it themselves
        text = escape(drawable(f"{where}{finding['message']}"))
        hint = escape(drawable(finding["suggestion"]))
        rows.append(f'<li class="{severity}"><strong>{severity}</strong>{text}<p>{hint}</p></li>')
    return f'<ul class="findings">{"".join(rows)}</ul>'


def _balance(sites: list[dict[str, Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("site", "fairness", "entropy", "busiest", "its share", "unused"))
    rows = []
    for site in sites:
        loads, total = site["loads"], sum(site["loads"])
        busiest = max(range(len(loads)), key=loads.__getitem__, default=0) if total else None
        share = 0.0 if busiest is None else loads[busiest] / total
        cells = (
            drawable(site["site"]),
            _number(site["fairness_index"]),
            _number(site["entropy"]),
            "–" if busiest is None else f"E{busiest}",
        )
        bar = f'{share:.1%}<span class="bar"><i style="width:{100 * share:.1f}%"></i></span>'
        unused = str(sum(load == 0 for load in loads)) if total else "–"
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr>{row}<td>{bar}</td><td>{unused}</td></tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _sites(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": drawable(site["site"]),
            "loads": site["loads"],
            "mass": site["gate_mass"],
            "routed": sum(site["loads"]) > 0,
        }
        for site in sites
    ]


def _tokens(recorded: Recorded) -> dict[str, Any]:
    view = recorded.timeline
    start = view.end - min(view.end - view.first, _limit(recorded))
    tokens, block = view.tokens(start, view.end), view.routing(start, view.end)
    keep = ~tokens.pad
    rows = []
    for row in np.flatnonzero(keep).tolist():
        token_id = int(tokens.token_id[row])
        text = view.text(token_id) if token_id >= 0 else "?"
        scores = (float(tokens.entropy[row]), float(tokens.confidence[row]), float(tokens.ms[row]))
        phase = "prefill" if tokens.phase[row] == Phase.PREFILL else "decode"
        rows.append(
            [start + row, drawable(text, spaces=True)[:80], *(_short(score) for score in scores), phase, "\n" in text]
        )
    weights, parts = None, float(_WEIGHT_PARTS)
    if block.weights is not None:
        scaled, parts = _scaled(block.weights[keep], block.indices[keep])
        weights = _packed(scaled)
    return {
        "rows": rows,
        "slots": int(block.indices.shape[2]),
        "indices": _packed(block.indices[keep].astype("<u2")),
        "weights": weights,
        "weight_parts": parts,
    }


def _limit(recorded: Recorded) -> int:
    info = recorded.info
    return max(1, min(_MOST_TOKENS, _MOST_SLOTS // max(1, len(info.sites) * info.top_k)))


def _shown(recorded: Recorded, shown: int) -> str:
    held = recorded.timeline.end - recorded.timeline.first
    return "" if held <= _limit(recorded) else f"The last {shown:,} of {held:,} tokens."


def _scaled(weights: Array, indices: Array) -> tuple[Array, float]:
    """Weights as whole parts of one in two bytes, ``_NO_WEIGHT`` where unknown; and how many parts one has."""
    known = np.isfinite(weights) & (indices != NO_EXPERT)
    values = np.where(known, weights, 0).astype(np.float64)
    parts = min(float(_WEIGHT_PARTS), 0x7FFF / max(float(np.abs(values).max(initial=0)), 1e-9))
    return np.where(known, (values * parts).round(), _NO_WEIGHT).astype("<i2"), parts


def _packed(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _inline(value: Any) -> str:
    """JSON that ends no script element and opens no comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _short(value: float) -> float | None:
    known = number(value)
    return None if known is None else round(known, 4)
