"""Plain text for numbers: what `stats` and `diff` print for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moetui.routing.interventions import dict_words
from moetui.routing.stats import dead_text
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


def stats_text(stats: dict[str, Any], *, decoded: bool) -> str:
    """The document of ``stats --json`` for a person.

    Args:
        stats: the document.
        decoded: whether there were decode steps, of which alone the rate is then.
    """
    ids_only = "  ids only" if stats["ids_only"] else ""
    names = "  ".join(drawable(stats[key]) for key in ("model", "architecture") if stats[key])
    head = (
        f"{names}  {_count(stats['sites'], 'site')} × {stats['num_experts']} experts, top-{stats['top_k']}{ids_only}\n"
        f"{_count(stats['tokens'], 'token')} in {_count(stats['steps'], 'step')}, "
        f"{number(stats['tokens_per_second'], 1)} tokens/s{' of the decode steps' if decoded else ''}"
        f"{'' if stats['complete'] else '   INCOMPLETE'}"
    )
    measures = [
        ("load imbalance (max/mean)", number(stats["load_imbalance"])),
        ("fairness (Jain)", number(stats["fairness_index"])),
        ("coefficient of variation", number(stats["coefficient_of_variation"])),
        ("MaxVio", number(stats["max_violation"])),
        ("entropy (nats)", number(stats["average_entropy"])),
        ("experts per token", number(stats["avg_experts_per_token"], 2)),
        ("dead experts", dead_text(stats)),
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
    if stats["interventions"]:
        head += "\nunder interventions: " + "; ".join(drawable(dict_words(each)) for each in stats["interventions"])
    parts = [head, columns(measures), columns(sites)]
    for finding in stats["findings"]:
        site = finding["site"] or ""
        where = f" [{drawable(site)}]" if site and not finding["message"].startswith(f"{site}:") else ""
        parts.append(
            f"{finding['severity']}: {drawable(finding['message'])}{where}\n  {drawable(finding['suggestion'])}"
        )
    return "\n\n".join(parts)


def diff_text(diff: dict[str, Any]) -> str:
    """The document of ``diff --json`` for a person."""
    known = diff["same_tokens"] is not None
    parts = [_identical(diff, known) if diff["identical"] else _differences(diff, known)]
    if diff["identical"]:
        if known and any(site["l1"] for site in diff["sites"]):
            parts.append(f"over all pairs\n{columns(_site_rows(diff['sites']))}")
        return "\n\n".join(parts)
    if diff["side_by_side"]:
        parts.append("side by side\n" + columns(_pair_rows(diff["side_by_side"]), left=2))
    for key, title in (("prefix_sites", "before any token differs"), ("sites", "over all pairs")):
        if diff[key] and (known or key == "sites"):
            parts.append(f"{title}\n{columns(_site_rows(diff[key]))}")
    if diff["top_flips"]:
        where = ", of tokens that are the same" if diff["other_token_flips"] else ""
        parts.append(f"flips against the largest margins{where}\n" + columns(_flip_rows(diff["top_flips"]), left=3))
    return "\n\n".join(parts)


def _identical(diff: dict[str, Any], known: bool) -> str:
    if not known:
        return f"identical: all {diff['tokens']:,} positions sent to the same experts; their tokens are unknown"
    text = f"identical: the same {diff['tokens']:,} tokens, each sent to the same experts"
    if not any(site["l1"] for site in diff["sites"]):  # or not known
        return text
    text += "; the routers' distributions differ"
    moved = diff["probability_moved"]
    return text if moved is None else f"{text}\nnext-token probability moved: {moved:.1%}"


def _differences(diff: dict[str, Any], known: bool) -> str:
    if known:
        head = [
            f"{_count(diff['tokens'], 'token')} compared (aligned by tokens), {diff['same_tokens']:,} the same, "
            f"{diff['common_prefix']:,} before any difference; {_count(diff['flips'], 'routing')} flipped"
            + (f", {diff['other_token_flips']:,} of them where the tokens differ" if diff["other_token_flips"] else "")
        ]
    else:
        head = [
            f"{_count(diff['tokens'], 'token')} compared by position, as their ids are unknown; "
            f"{_count(diff['flips'], 'routing')} flipped"
        ]
    if diff["only_a"] or diff["only_b"]:
        head.append(f"without a partner: {diff['only_a']:,} tokens of A, {diff['only_b']:,} of B")
    for key, letter in (("sites_only_a", "A"), ("sites_only_b", "B")):
        if diff[key]:
            head.append(f"sites of {letter} alone: {', '.join(drawable(name) for name in diff[key])}")
    routed = any(site["tokens"] for site in diff["sites"]) or not diff["tokens"]
    if not routed:
        head.append("of no token is the routing known in both")
    elif diff["routing_unknown"]:
        head.append(f"routing known in one of the two alone: {diff['routing_unknown']:,} times (a token at a site)")
    head.append("first other token:   " + (_divergence(diff["first_token"]) if known else "unknown"))
    head.append("first other experts: " + (_divergence(diff["first_routing"]) if routed else "unknown"))
    if diff["probability_moved"] is not None:
        head.append(f"next-token probability moved before any difference: {diff['probability_moved']:.1%}")
    return "\n".join(head)


def _pair_rows(pairs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("A", "B", "position", "p in A", "p in B", "sites apart", "p of the next moved")]
    for pair in pairs:
        a, b = (f'"{drawable(pair[key], spaces=True)}"' for key in ("text_a", "text_b"))
        shares = (_share(pair[key]) for key in ("prob_a", "prob_b"))
        rows.append((a, b, str(pair["position"]), *shares, str(pair["sites"]), _share(pair["moved"])))
    return rows


def _divergence(where: dict[str, Any] | None) -> str:
    if where is None:
        return "none"
    a, b = (drawable(where[key], spaces=True) for key in ("text_a", "text_b"))
    sites = f"  at {', '.join(drawable(name) for name in where['sites'])}" if where["sites"] else ""
    tokens = f'"{a}"' if a == b else f'"{a}" → "{b}"'
    return f"position {where['position']}  {tokens}{sites}"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _site_rows(sites: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    head = ("site", "tokens", "same top-1", "same set", "Jaccard", "KL", "L1", "ΔH", "load shift")
    return [head, *(_site_row(site) for site in sites)]


def _site_row(site: dict[str, Any]) -> tuple[str, ...]:
    return (
        drawable(site["site"]),
        f"{site['tokens']:,}",
        _share(site["same_top1"]),
        _share(site["same_set"]),
        number(site["jaccard"], 2),
        number(site["kl"], 4),
        number(site["l1"], 3),
        number(site["entropy_shift"]),
        number(site["load_shift"]),
    )


def _flip_rows(flips: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [("position", "token", "site", "margin", "lost", "gained"), *(_flip_row(flip) for flip in flips)]


def _flip_row(flip: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(flip["position"]),
        f'"{drawable(flip["text"], spaces=True)}"',
        drawable(flip["site"]),
        number(flip["margin"]),
        " ".join(f"E{expert}" for expert in flip["lost"]) or "–",
        " ".join(f"E{expert}" for expert in flip["gained"]) or "–",
    )


def models_text(document: dict[str, Any]) -> str:
    """The document of ``models --json`` for a person."""
    head = ("alias", "model", "parameters", "active", "bf16", "layers", "experts", "top-k")
    aliases = [head, *(_alias_row(alias) for alias in document["aliases"])]
    titles = ("architecture", "kind", "scoring", "force", "ban", "fewer", "more", "weights", "rewind")
    rows: list[tuple[str, ...]] = [titles]
    notes = []
    for row in document["architectures"]:
        if not row["supported"]:
            notes.append(f"  {row['name']}: left out: {row['reason']}")
            continue
        can = row["interventions"]
        marks = tuple("✓" if can[name] == "yes" else "–" for name in ("force", "ban", "fewer", "more"))
        rewind = row["rewind"] if row["rewind"] in ("crop", "snapshot") else "–"
        rows.append(
            (row["name"], " ".join(row["kinds"]), " ".join(row["scoring"]), *marks, " ".join(row["weights"]), rewind)
        )
        if row["note"]:
            notes.append(f"  {row['name']}: {drawable(row['note'])}")
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    parts = [versions, columns(aliases, left=2), columns(rows, left=9), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def _alias_row(alias: dict[str, Any]) -> tuple[str, ...]:
    return (
        alias["name"],
        alias["hub"] or alias["note"],
        _millions(alias["parameters"]),
        _millions(alias["active"]),
        f"{alias['memory_bytes'] / 2**30:.1f} GiB",
        str(alias["layers"]),
        str(alias["experts"]),
        str(alias["top_k"]),
    )


def _millions(value: float) -> str:
    return f"{value / 1000:.1f} B" if value >= 1000 else f"{value:.1f} M"
