"""What the bars say: the model, the run, the line, in parts that a narrow terminal can drop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moetui.routing import ModelInfo, drawable
from moetui.routing.events import Branch, BreakpointHit, RunState
from moetui.session import Branched, Playback, Session
from moetui.tui.glyphs import ASCII, UNICODE
from moetui.tui.lines import Part

_MARKS = {
    RunState.LOADING: ("◌", "o", "accent"),
    RunState.READY: ("○", "o", "good"),
    RunState.RUNNING: ("●", "*", "good"),
    RunState.PAUSED: ("‖", "=", "warn"),
    RunState.FINISHED: ("✓", "+", "good"),
    RunState.FAILED: ("✗", "x", "bad"),
}
_SHORT_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
LEAST_RATE = 0.05  # KB/s that are worth telling


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What can be said of the run from the timeline.

    Attributes:
        generated: tokens that came out so far, the one not yet passed through the model included.
        rate: tokens a second over the last steps, with what lies between them; NaN before two decode steps.
        whole: tokens of all the run's decode steps over their time, as ``stats`` counts them; NaN before there are any.
        others: whether there are other runs or branches, whose tokens and steps these numbers leave out.
    """

    generated: int = 0
    rate: float = math.nan
    whole: float = math.nan
    others: bool = False

    def speed(self, state: RunState) -> tuple[float, str]:
        """Tokens a second as a person is told of them, with their unit: while it runs, those of the moment."""
        return (self.rate, "tok/s now") if state is RunState.RUNNING else (self.whole, "tok/s")


@dataclass(frozen=True, slots=True)
class LineFacts:
    """The way to the terminal: kilobytes a second, frames a second, seconds until it answers (None: it does not)."""

    kilobytes: float = 0.0
    fps: float = 0.0
    round_trip: float | None = None


def current_last(session: Session) -> Sequence[Branch]:
    """The session's branches, the one that it stands on as the last."""
    if not isinstance(session, Branched):
        return session.branches
    tree = session.tree
    return sorted(tree.branches, key=lambda branch: branch.id == tree.current)


def short_architecture(info: ModelInfo) -> str:
    """``Mixtral 6×8 top-2`` from a ``MixtralForCausalLM`` of six sites with eight experts."""
    return "".join(_family_and_size(info)).lstrip()


def _family_and_size(info: ModelInfo) -> tuple[str, str]:
    name = info.architecture
    for tail in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "Model"):
        name = name.removesuffix(tail)
    size = f"{len(info.sites)}×{info.num_experts} top-{info.top_k}" if info.sites else "no router"
    return f" {drawable(name)}" if name else "", f" {size}"


def dtype_name(name: str) -> str:
    """``bf16`` for ``bfloat16``."""
    return _SHORT_DTYPES.get(name, drawable(name))


def title_parts(
    session: Session, run: RunFacts, line: LineFacts, limit: int, *, ascii_only: bool = False
) -> tuple[list[Part], list[Part]]:
    """The title bar: the model at the left, the run at the right; the least needed carry the highest rank."""
    info = session.info
    name = session.name if session.playback is None else session.name.rpartition("/")[2]
    left = [Part(" moetui ", "accent", 5), Part(f" {drawable(name)}", "strong")]
    if info is not None:
        family, size = _family_and_size(info)
        left += [Part(" ·", "", 4), Part(family, "", 9), Part(size, "", 4)]
        where = f"{drawable(info.device)} {dtype_name(info.dtype)}".strip()
        if where:
            left.append(Part(f" · {where}", "dim", 11))
    right = [state_part(session.state, ascii_only=ascii_only)]
    playback = session.playback
    if playback is not None and info is not None:
        right.append(Part(f"  token {playback.position:,}/{playback.end:,}", "", 2))
    elif run.generated:
        right.append(Part(f"  token {run.generated}/{max(limit, run.generated)}", "", 2))
    rate, unit = run.speed(session.state)
    if playback is not None and playback.quiet:
        right.append(Part("  nothing new", "warn", 3))
    elif not math.isnan(rate):
        right.append(Part(f"  {rate:.1f} {unit}", "", 3))
        if run.others and session.state is not RunState.RUNNING:
            right.append(Part(" this run", "dim", 9))
    if session.costs:
        right.append(Part(f"  capture {100 * sum(session.costs.values()):.1f}%", "dim", 10))
    if line.kilobytes >= LEAST_RATE:
        right.append(Part(f"  {line.kilobytes:.0f} KB/s" if line.kilobytes >= 1 else "  <1 KB/s", "dim", 6))
        right.append(Part(f" {line.fps:.0f} fps" if line.fps >= 1 else " <1 fps", "dim", 7))
        if line.round_trip is not None:
            right.append(Part(f" {_milliseconds(line.round_trip)} ms", "dim", 8))
    if session.interventions:  # what is forgotten to be in force is taken for the model's own routing
        glyphs = ASCII if ascii_only else UNICODE
        right.append(Part(f"  {glyphs.forced} {len(session.interventions)}", "warn", 1, "app.interventions"))
    if session.findings:
        mark = "!" if ascii_only else "⚠"
        right.append(Part(f"  {mark} {len(session.findings)}", findings_role(session), 1, "app.findings"))
    right.append(Part(" "))
    return left, right


def _milliseconds(seconds: float) -> str:
    """Two digits: more would change, and be sent, with every frame."""
    return f"{float(f'{1e3 * seconds:.2g}'):.0f}" if seconds >= 0.01 else "<10"


def findings_role(session: Session) -> str:
    """The style of the worst finding."""
    worst = {finding.severity for finding in session.findings}
    return "bad" if "error" in worst else "warn" if "warning" in worst else "dim"


def state_part(state: RunState, *, ascii_only: bool = False) -> Part:
    """The run's state as mark and word."""
    mark, plain, role = _MARKS[state]
    return Part(f"{plain if ascii_only else mark} {state.value}", role)


def hit_parts(hit: BreakpointHit, site: str) -> list[Part]:
    """Where a breakpoint stopped the run, and what its values were."""
    place = f"  token {hit.token}" + (f" · {drawable(site)}" if site else "")
    return [
        Part(place, "strong"),
        Part(f"  {drawable(hit.expression)}", "", 2),
        Part(f"  {drawable(hit.values)}", "warn", 1),
        Part(f"  (hit {hit.hits})", "dim", 5),
    ]


def state_parts(
    session: Session, where: Sequence[Part], key: Callable[[str, str], str], *, ascii_only: bool = False, hint: str = ""
) -> tuple[list[Part], list[Part]]:
    """The line under the prompt while the run stands still: why, where, and how to go on.

    Args:
        key: the key that is in force, by its name and the usual one.
    """
    state = session.state
    left = [Part(" "), state_part(state, ascii_only=ascii_only), *where]
    if session.reason and not where:  # where a breakpoint stopped it, its place and values say more
        left.append(Part(f"  {drawable(session.reason)}", "", 0))
    if hint:
        left.append(Part(f"  {drawable(hint)}", "dim", 3))
    if state is not RunState.PAUSED:
        return left, []
    right = []
    for name, usual, words, rank in _GO_ON:
        right += [Part(key(name, usual), "key", rank, f"app.{name}"), Part(words, "dim", rank)]
    return left, right


_GO_ON = (
    ("resume", "c", " continue  ", 6),
    ("step", "n", " token  ", 7),
    ("step_layer", "s", " layer  ", 7),
    ("fork", "F", " fork  ", 8),
    ("stop", "x", " stop ", 9),
)


def fits(left: Sequence[Part], right: Sequence[Part], width: int) -> bool:
    """Whether a line has room for all parts."""
    return sum(part.width for part in (*left, *right)) + 2 <= width


def transport_parts(playback: Playback, playing: bool, width: int, *, ascii_only: bool = False) -> list[Part]:
    """The transport line of a replay: play or pause, speed, where it stands, what it repeats."""
    play = ("||" if playing else "> ") if ascii_only else ("‖ " if playing else "▶ ")
    speed = f"{playback.speed:g}".rstrip() + ("x" if ascii_only else "×")
    position = f"{playback.position:,}/{playback.end:,}"
    loop = "" if playback.loop is None else f"  loop {playback.loop[0]:,}–{playback.loop[1]:,}"
    room = max(8, width - len(position) - len(speed) - len(loop) - 12)
    return [
        Part(f" {play}", "accent", 0, "app.toggle_run"),
        Part(f" {speed:<5} ", "strong", 1),
        *position_bar(playback, room, ascii_only=ascii_only),
        Part(f"  {position}", ""),
        Part(loop, "warn", 2),
        Part(" "),
    ]


def position_bar(playback: Playback, width: int, *, ascii_only: bool = False) -> list[Part]:
    """How far a replay is, as a bar whose cells seek when clicked."""
    full, empty = ("=", "-") if ascii_only else ("━", "─")
    share = playback.position / playback.end if playback.end else 0.0
    done = min(width, max(0, round(share * width)))
    cells = []
    for cell in range(width):
        token = max(0, math.ceil((cell + 1) / width * playback.end) - 1)
        cells.append(Part(full if cell < done else empty, "accent" if cell < done else "dim", 0, f"app.seek({token})"))
    return cells
