"""Facts as rows of text: a dim label at the left, the value at the right."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.color import Color
from rich.style import Style
from rich.text import Text

from moetui.console.inspecting import Told
from moetui.routing import ModelInfo, Site, TimelineView, drawable
from moetui.tui.cells import fit
from moetui.tui.ink import Ink
from moetui.tui.panels.element_facts import ExpertFacts, RouterFacts
from moetui.tui.panels.outline import Entry, Outline, bytes_text, count_text, router_note
from moetui.tui.panels.weights import WeightFacts
from moetui.tui.status import dtype_name

LABEL = 14  # cells
_LOADS = 19  # cells before the bar of an expert's load
_PART = 18  # and of a part's parameters


@dataclass(frozen=True, slots=True)
class Piece:
    """Text with a role, or in an expert's colour."""

    text: str
    role: str = ""
    expert: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled line; without a label column if ``label`` is None."""

    label: str | None = ""
    pieces: tuple[Piece, ...] = field(default=())


Rows = list[Row]


def rows_text(rows: Rows, styles: Mapping[str, Style], ink: Ink, *, label: int = LABEL, width: int = 0) -> Text:
    """The rows as one text, with a label column of so many cells.

    Args:
        rows: what to say.
        styles: of the roles.
        ink: of experts' colours.
        label: cells of the label column.
        width: cells there are; a piece that does not fit begins a line of its own (0: no such limit).
    """
    text = Text()
    for number, row in enumerate(rows):
        if number:
            _end_line(text)
        start = label if row.label is not None and row.pieces else 0
        if start:
            text.append(fit(row.label or "", label), styles["label"])
        at = start
        for piece in row.pieces:
            for part in _parts(piece.text, width - start if width else 0):
                if width and at > start and at + cell_len(part.rstrip()) > width:
                    part = part.lstrip()
                    _end_line(text, start)
                    at = start
                text.append(part, _style(piece, styles, ink))
                at += cell_len(part)
    return text


def _end_line(text: Text, start: int = 0) -> None:
    """Begin another line, without spaces at this one's end, which would be drawn as cut where they do not fit."""
    spaces = len(text.plain) - len(text.plain.rstrip(" "))
    if spaces:
        text.right_crop(spaces)
    text.append("\n" + " " * start)


def _parts(text: str, room: int) -> list[str]:
    """The text, or its words where it is longer than a line."""
    return re.findall(r"\s*\S+", text) if room and cell_len(text.strip()) > room else [text]


def _style(piece: Piece, styles: Mapping[str, Style], ink: Ink) -> Style:
    color = None if piece.expert is None else ink.expert(piece.expert)
    if color is not None:
        return Style(color=Color.from_rgb(*color), bold=True)
    return styles[piece.role] if piece.role else Style()


def percent(share: float, digits: int = 1) -> str:
    """A share as percent; a dash where it is unknown."""
    return "–" if math.isnan(share) else f"{share:.{digits}%}"


def value(number: float, digits: int = 3) -> str:
    """A number; a dash where it is unknown."""
    return "–" if math.isnan(number) else f"{number:.{digits}f}"


def expert_rows(facts: ExpertFacts, view: TimelineView, ink: Ink) -> Rows:
    """What an expert did over the recent tokens."""
    times = ink.glyphs.times
    if not facts.tokens:
        return [Row("usage", (Piece("no token passed here yet", "dim"),)), Row()]
    dead = facts.load == 0
    rows = [
        Row(
            "usage",
            (
                Piece(percent(facts.share), "bad" if dead else "strong"),
                Piece(f"  {facts.relative:.1f}{times} uniform", ""),
                Piece(f"  {facts.load:,} of {facts.tokens:,} tokens", "dim"),
            ),
        ),
        Row("first choice", (Piece(f"{percent(facts.first)} of the tokens"),)),
        Row("gate mass", (Piece(percent(facts.mass)), Piece(f"  mean weight {value(facts.weight, 2)}", "dim"))),
    ]
    favourites: list[Piece] = []
    for token, share, count in facts.favourites:
        favourites += [
            Piece(drawable(view.text(token), spaces=True), "strong"),
            Piece(f" {share:.0%} of {count}   ", "dim"),
        ]
    rows.append(Row("favourites", tuple(favourites) or (Piece("none of the tokens met thrice", "dim"),)))
    partners: list[Piece] = []
    for expert, share in facts.partners:
        partners += [Piece(f"E{expert}", expert=expert), Piece(f" {share:.0%}   ", "dim")]
    rows.append(Row("together with", tuple(partners) or (Piece("–", "dim"),)))
    return [*rows, Row()]


def site_rows(facts: RouterFacts, site: Site, ink: Ink, room: int = 40) -> Rows:
    """A router's rule, and what it did over the recent tokens; ``room``: cells beside the labels."""
    rule = [Piece(router_note(site), "strong"), Piece(f"  top-{site.top_k} of {site.num_experts}")]
    if site.scale is not None and site.scale != 1.0:
        rule.append(Piece(f"  scaled by {site.scale:g}", "dim"))
    rows = [Row("rule", tuple(rule))]
    if site.shared_experts:
        rows.append(Row("shared", (Piece(f"{site.shared_experts} experts that every token passes"),)))
    if site.note:
        rows.append(Row("note", (Piece(drawable(site.note)),)))
    if not facts.tokens:
        return [*rows, Row("entropy", (Piece("no token passed here yet", "dim"),)), Row()]
    most = math.log(max(2, site.num_classes))
    history = facts.history[-max(1, room) :]
    spark = ink.glyphs.spark(history, len(history), 0.0, most)
    rows += [
        Row(
            "entropy",
            (
                Piece(value(facts.entropy, 2), "strong"),
                Piece(f" of {most:.2f} nats  ", "dim"),
                Piece(spark, "bar"),
                Piece(f"  last {facts.tokens:,} tokens", "dim"),
            ),
        ),
        Row("margin", (Piece(value(facts.margin, 2)), Piece(f"  near ties {percent(facts.ties)}", "dim"))),
        Row("fairness", (Piece(value(facts.fairness, 2)), Piece("  1 even, 1/E all to one", "dim"))),
        Row(),
    ]
    return rows + _load_rows(facts, site, ink, room) + [Row()]


def _load_rows(facts: RouterFacts, site: Site, ink: Ink, room: int, most: int = 16) -> Rows:
    """The busiest experts as bars, relative to the uniform share."""
    even = facts.tokens * site.top_k / site.num_experts
    order = sorted(range(site.num_experts), key=lambda e: -int(facts.loads[e]))
    shown = order[:most] if site.num_experts > most else list(range(site.num_experts))
    top = max(1, int(facts.loads.max()))
    rows = []
    for number, expert in enumerate(shown):
        load = int(facts.loads[expert])
        length = round(max(1, min(24, room - _LOADS)) * load / top)
        title = ("loads" if site.num_experts <= most else f"busiest {most}") if number == 0 else ""
        bar = ink.glyphs.bar * length or ("" if load else ink.glyphs.zero)
        rows.append(
            Row(
                title,
                (
                    Piece(f"E{expert:<4}", expert=expert),
                    Piece(f"{load:>6,}  {load / even:>4.1f}{ink.glyphs.times} ", "bad" if not load else ""),
                    Piece(bar, expert=expert),
                ),
            )
        )
    return rows


def module_rows(info: ModelInfo) -> Rows:
    """The model as a whole."""
    versions = "  ".join(f"{drawable(name)} {drawable(text)}" for name, text in info.versions.items())
    routed = len({(site.stack, site.layer) for site in info.sites})
    rows = [
        Row("model", (Piece(drawable(info.name), "strong"), Piece(f"  {drawable(info.architecture)}", "dim"))),
        Row("parameters", _size(info)),
        Row("runs on", (Piece(f"{drawable(info.device) or '–'}  {dtype_name(info.dtype)}"),)),
        Row("layers", (Piece(f"{info.num_layers or '–'}"), Piece(f"  {routed} with a router", "dim"))),
        Row("experts", (Piece(f"{info.num_experts}"), Piece(f"  top-{info.top_k}", "dim"))),
        Row("vocabulary", (Piece(f"{info.vocab_size:,}" if info.vocab_size else "–"),)),
        Row("context", (Piece(f"{info.context_length:,} tokens" if info.context_length else "–"),)),
    ]
    if versions:
        rows.append(Row("versions", (Piece(versions, "dim"),)))
    return [*rows, Row()]


def _size(info: ModelInfo) -> tuple[Piece, ...]:
    if not info.parameters:  # a recording of another tool's does not say
        return (Piece("–"),)
    return Piece(count_text(info.parameters)), Piece(f"  {bytes_text(info.nbytes)}", "dim")


def part_rows(outline: Outline, ink: Ink, room: int = 40) -> Rows:
    """Parameters of the whole model by what they belong to; ``room``: cells beside the labels."""
    sums = outline.by_role()
    total = sum(sums.values())
    rows = [Row(None, (Piece("parameters by part", "dim"),))] if total else []
    for role, count in sorted(sums.items(), key=lambda item: -item[1]):
        if count:
            bar = ink.glyphs.bar * round(max(1, min(20, room - _PART)) * count / total)
            rows.append(Row(role, (Piece(f"{count / total:>6.1%} {count_text(count):>9}  "), Piece(bar, "bar"))))
    return rows


def parameter_rows(entry: Entry, outline: Outline, most: int = 24) -> Rows:
    """Shapes and types of the parameters in and below a node, and where those are that are not where the model is."""
    parameters = outline.parameters(entry)
    if not parameters:
        return []
    total = (Piece(count_text(entry.parameters), "strong"), Piece(f"  {bytes_text(entry.nbytes)}", "dim"))
    rows = [Row("parameters", total)]
    width = min(40, max(len(parameter.name) for parameter in parameters[:most]))
    for parameter in parameters[:most]:
        elsewhere = f" {drawable(parameter.device)}" if parameter.device != outline.info.device else ""
        shape = "×".join(str(length) for length in parameter.shape) or "1"
        rows.append(
            Row(
                "",
                (
                    Piece(f"{fit(drawable(parameter.name), width)}  "),
                    Piece(f"{shape:<10} {bytes_text(parameter.nbytes):>9}  {dtype_name(parameter.dtype)}", "dim"),
                    Piece(elsewhere, "dim"),
                    Piece("" if parameter.kind == "parameter" else f" {parameter.kind}", "dim"),
                ),
            )
        )
    if len(parameters) > most:
        rows.append(Row("", (Piece(f"and {len(parameters) - most} or more further", "dim"),)))
    return rows


def inspected_rows(told: Told | str | None) -> Rows:
    """What users' inspectors say of a module; or why they do not, or that they are being asked."""
    if told is None:
        return [Row("inspected", (Piece("being asked, between two steps", "dim"),)), Row()]
    if isinstance(told, str):
        return [Row("inspected", (Piece(drawable(told), "bad"),)), Row()]
    rows = [Row(fit(drawable(name), LABEL - 1), (Piece(drawable(words)),)) for name, (_, words) in told.items()]
    return [*rows, Row()] if rows else []


def weight_rows(found: tuple[WeightFacts, ...] | str | None, ink: Ink, room: int = 40) -> Rows:
    """Distributions of weights; or why they are not known, or that they are being read; ``room`` as above."""
    if found is None:
        return [Row("weights", (Piece("being read, between two steps", "dim"),)), Row()]
    if isinstance(found, str):
        return [Row("weights", (Piece(drawable(found), "bad"),)), Row()]
    rows = []
    for facts in found:
        numbers = f"mean {facts.mean:+.3f}  sd {facts.std:.3f}  max |w| {facts.largest:.2f}  norm {facts.norm:.1f}"
        sampled = "  of a sample" if facts.sampled else ""
        low, high = f"{facts.low:.2f} ", f" {facts.high:.2f}{sampled}"
        counts = list(facts.histogram)
        while len(counts) > 8 and len(low) + len(counts) + len(high) > room:
            counts = [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
        spark = ink.glyphs.spark([math.sqrt(count) for count in counts], len(counts), 0.0)
        rows.append(Row("weights", (Piece(drawable(facts.name), "strong"),)))
        ends = (Piece(low, "dim"), Piece(spark, "bar"), Piece(high, "dim"))
        rows += [Row("", ends), Row("", (Piece(numbers, "dim"),))]
    return [*rows, Row()] if rows else []
