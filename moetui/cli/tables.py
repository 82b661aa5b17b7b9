"""Plain text for numbers: what `stats` and `diff` print for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moetui.routing.text import drawable


def number(value: Any, digits: int = 3) -> str:
    """A number for a person; unknown is ``–``."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def columns(rows: Sequence[tuple[str, ...]], *, left: int = 1) -> str:
    """Rows of equal length as aligned columns: the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if index < left else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def stats_text(stats: dict[str, Any]) -> str:
    """The document of ``stats --json`` for a person."""
    ids_only = "  ids only" if stats["ids_only"] else ""
    head = (
        f"{drawable(stats['model'])}  {drawable(stats['architecture'])}  "
        f"{stats['sites']} sites × {stats['num_experts']} experts, top-{stats['top_k']}{ids_only}\n"
        f"{stats['tokens']:,} tokens in {stats['steps']:,} steps, {number(stats['tokens_per_second'], 1)} tokens/s"
        f"{'' if stats['complete'] else '   INCOMPLETE'}"
    )
    measures = [
        ("load imbalance (max/mean)", number(stats["load_imbalance"])),
        ("fairness (Jain)", number(stats["fairness_index"])),
        ("coefficient of variation", number(stats["coefficient_of_variation"])),
        ("MaxVio", number(stats["max_violation"])),
        ("entropy (nats)", number(stats["average_entropy"])),
        ("experts per token", number(stats["avg_experts_per_token"], 2)),
        ("dead experts", str(len(stats["dead_experts"]))),
    ]
    sites = [("site", "fairness", "entropy", "busiest", "share")]
    for site in stats["per_site"]:
        loads = site["loads"]
        total = sum(loads)
        busiest = max(range(len(loads)), key=loads.__getitem__) if total else None
        sites.append(
            (
                drawable(site["site"]),
                number(site["fairness_index"]),
                number(site["entropy"]),
                "–" if busiest is None else f"E{busiest}",
                "–" if busiest is None else f"{100 * loads[busiest] / total:.1f}%",
            )
        )
    parts = [head, columns(measures), columns(sites)]
    for finding in stats["findings"]:
        where = f" [{drawable(finding['site'])}]" if finding["site"] else ""
        parts.append(
            f"{finding['severity']}: {drawable(finding['message'])}{where}\n  {drawable(finding['suggestion'])}"
        )
    return "\n\n".join(parts)
