"""``moetui stats``: a recording's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moetui.cli.common import FILE, common_options, print_json, print_text
from moetui.routing.errors import TraceError, UsageError

_SEVERITIES = ("info", "warning", "error")


@click.command("stats")
@click.argument("trace", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--baseline", type=FILE, help="Compare with this recording; exit 1 if it is worse.")
@click.option("--threshold", show_default="10%", help="How much worse than the baseline is too much.")
@click.option("--deleted", is_flag=True, help="Count the tokens of deleted branches too.")
@click.option("--fail-on", type=click.Choice(["warning", "error"]), help="Exit 1 when there is such a finding.")
@common_options
def command(
    trace: Path, as_json: bool, baseline: Path | None, threshold: str | None, deleted: bool, fail_on: str | None
) -> int:
    """Print load balance, entropy, dead experts and findings of a recording.

    Tokens of branches that were deleted are not counted, unless another branch shares them.

    Worse than a baseline are loads that are less even and a lower entropy, on the mean over the sites or at one of
    them, and more dead experts: if it had none, one is too much at any threshold.
    """
    from moetui.cli.tables import stats_text
    from moetui.routing.phase import Phase
    from moetui.trace import kept, open_trace, recorded_stats, trace_stats

    if threshold is not None and baseline is None:
        raise UsageError("--threshold says how much worse than a baseline is too much", "name one: --baseline OLD")
    limit = _share("10%" if threshold is None else threshold)
    with open_trace(trace) as opened:
        recorded = opened if deleted else kept(opened)
        stats = recorded_stats(recorded)
        decoded = bool((recorded.timeline.steps().phase == Phase.DECODE).any())
    worse = []
    if baseline is not None:
        old = trace_stats(baseline, deleted=deleted)
        if all(_known(old, key) is None for key in _WATCHED):
            raise TraceError(f"{baseline.name} has no routing to compare with", "name a recording that has tokens")
        worse = [*_worse(old, stats, limit), *_worse_sites(old, stats, limit)]
    if as_json:
        print_json({**stats, **({"regressions": worse} if baseline else {})})
    else:
        lines = _told(worse)
        if baseline is not None and not worse:
            lines = [f"\nnot worse than the baseline by more than {100 * limit:.4g}%"]
        print_text("\n".join([stats_text(stats, decoded=decoded), *lines]))
    failed = fail_on is not None and any(
        _SEVERITIES.index(finding["severity"]) >= _SEVERITIES.index(fail_on) for finding in stats["findings"]
    )
    return int(bool(worse) or failed)


# key → +1 where more is worse, -1 where less is worse
_WATCHED = {
    "load_imbalance": 1,
    "coefficient_of_variation": 1,
    "max_violation": 1,
    "fairness_index": -1,
    "average_entropy": -1,
    "dead_experts": 1,
}
_WATCHED_SITES = ("fairness_index", "entropy")  # less is worse; they vary least by chance
_MOST_LINES = 12
_MAY_LACK = ("average_entropy", "dead_experts")  # a recording without logits, or with few tokens, is no fault


def _worse(old: dict[str, Any], new: dict[str, Any], limit: float) -> list[dict[str, Any]]:
    """What got worse, and what of the loads is unknown now: nothing tells that it did not."""
    out = []
    for key, sign in _WATCHED.items():
        before, after = _known(old, key), _known(new, key)
        if before is None or (after is None and key in _MAY_LACK):
            continue
        if after is None or sign * (after - before) > limit * abs(before):
            out.append({"key": key, "baseline": before, "value": after})
    return out


def _worse_sites(old: dict[str, Any], new: dict[str, Any], limit: float) -> list[dict[str, Any]]:
    """Sites that got worse, the worst first: of many, one weighs little in a mean. Those of one name are compared."""
    before = {site["site"]: site for site in old["per_site"]}
    found: list[tuple[float, dict[str, Any]]] = []
    for site in new["per_site"]:
        for key in _WATCHED_SITES:
            was, now = before.get(site["site"], {}).get(key), site[key]
            if was is None or (now is None and key == "entropy"):
                continue
            loss = float("inf") if now is None else was - now
            if loss > limit * abs(was):
                row = {"key": key, "site": site["site"], "baseline": was, "value": now}
                found.append((loss / abs(was) if was else float("inf"), row))
    return [row for _, row in sorted(found, key=lambda each: -each[0])]


def _told(worse: list[dict[str, Any]]) -> list[str]:
    """What got worse, in lines; of many sites the worst."""
    from moetui.routing.text import drawable

    lines = []
    for row in worse[:_MOST_LINES]:
        where = f" at {drawable(row['site'])}" if "site" in row else ""
        lines.append(f"worse than the baseline: {row['key']}{where} {_short(row['baseline'])} → {_short(row['value'])}")
    more = len(worse) - len(lines)
    return [*lines, f"… {more} more, of single sites: --json has them"] if more else lines


def _known(stats: dict[str, Any], key: str) -> float | None:
    """A number of the document; None where it is unknown, as how many experts are dead is after few tokens."""
    from moetui.routing.stats import dead_unsure

    if key != "dead_experts":
        value: float | None = stats[key]
        return value
    return None if stats["load_imbalance"] is None or dead_unsure(stats) else len(stats[key])


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _share(text: str) -> float:
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"--threshold: '{text}' is no share", "write 10% or 0.1")
    if value > 1 and not text.endswith("%"):
        raise UsageError(f"--threshold: {text} would be {100 * value:.4g}%", f"write {text}% or {value / 100:.4g}")
    return value
