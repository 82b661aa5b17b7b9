"""Where the time of a token goes."""

from __future__ import annotations

from typing import Annotated, Any

from rich.console import RenderableType
from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import bar, number, percent, table, text
from moetui.console.kinds import Flag, MaybeBranch, integer
from moetui.console.needs import ANALYZE
from moetui.console.plain import plain
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.session import Analysing
from moetui.session.analyses import TimeByPart

GROUP = "measures"


@command(GROUP, ANALYZE)
def profile(
    console: Context,
    *,
    branch: MaybeBranch = None,
    steps: Annotated[int, integer(1)] = 16,
    by_layer: Flag = False,
) -> Result:
    """Where the time of a decode step goes: attention, router, experts and the rest.

    Passes the last tokens of a sequence through the model once more, one by one, every other time with clocks around
    its parts. 'rest' is norms, residual connections and what the model computes without calling a module.

    Args:
        branch: whose sequence, with all that it shares; the one that the session stands on, if left out.
        steps: decode steps to measure.
        by_layer: the same for each layer.

    Examples:
        profile
        profile --by-layer --steps 64
        moe.profile()["parts"]["experts"]
    """
    own = console.standing if branch is None else branch
    assert isinstance(console.session, Analysing)
    found = console.result(console.session.analyze("time_by_part", branch=own.id, steps=steps))
    assert isinstance(found, TimeByPart)
    layers: dict[int, dict[str, float]] = {}
    for each in found.parts:
        if each.layer is not None:
            layers.setdefault(each.layer, {})[each.part] = each.ms
    data = {
        "branch": own.name,
        "ms": found.step,
        "ms_without_clocks": found.bare,
        "steps": found.steps,
        "context": found.context,
        "clock": found.clock,
        "parts": found.totals,
        "layers": [{"layer": layer, **parts} for layer, parts in layers.items()],
    }
    return Result(tuple(_lines(console, data, by_layer=by_layer)), plain(data))


def _lines(console: Context, data: dict[str, Any], *, by_layer: bool) -> list[RenderableType]:
    head = Text.assemble(
        "a decode step takes ",
        (f"{number(data['ms'])} ms", "bold"),
        text(f" in {data['branch']} behind {data['context']:,} tokens: the middle of {data['steps']} steps"),
    )
    rows = [
        (part, f"{number(ms)} ms", percent(ms / data["ms"]), bar(ms / data["ms"], 24, ascii_only=console.ascii))
        for part, ms in data["parts"].items()
    ]
    clock = "the host's clock" if data["clock"] == "host" else "the device's own clock, waits for the host included"
    note = f"by {clock}; without clocks around the parts {number(data['ms_without_clocks'])} ms"
    found: list[RenderableType] = [head, table(("part", "time", "share", ""), rows, left=("part", ""))]
    if by_layer:
        names = [part for part in data["parts"] if any(part in layer for layer in data["layers"])]
        lines = [
            (f"L{layer['layer']}", *(number(layer[name]) if name in layer else "" for name in names))
            for layer in data["layers"]
        ]
        found.append(table(("ms", *names), lines, left=("ms",)))
    return [*found, text(note, "dim")]
