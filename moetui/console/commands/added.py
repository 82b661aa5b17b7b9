"""What users add by ``@debugger.metric`` and the like, or a plugin does: measures, pictures, looks at modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment

from moetui.console.context import Context
from moetui.console.draw import lines, number, pairs
from moetui.console.inspecting import inspection
from moetui.console.kinds import Kind, Last
from moetui.console.needs import PLUGINS
from moetui.console.plain import plain
from moetui.console.readers import read_text
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError, drawable
from moetui.session import Pluggable

GROUP = "plugins"


def _pictures(console: Context, _: str) -> list[str]:
    return list(console.session.plugins.visualisations) if isinstance(console.session, Pluggable) else []


_PICTURE = Kind("the name of a picture", read_text, "the picture, by name", _pictures)
_MODULE = Kind("a module's path: model.layers.2.mlp", read_text, "the module, as the Elements tab names it")


@command(GROUP, PLUGINS)
def metrics(console: Context, *, last: Last = None) -> Result:
    """The measures that '@debugger.metric' and plugins added, of the tokens held.

    Examples:
        metrics
        metrics --last 64
    """
    assert isinstance(console.session, Pluggable)
    measures, window = console.session.plugins.metrics, console.window(last)
    if not measures:
        raise UsageError("no measure was added", "@debugger.metric('name'), or a plugin")
    found: dict[str, float | None] = {}
    rows = []
    for name, measure in measures.items():
        try:
            value = float(measure(window))
            found[name] = value
            rows.append((name, number(int(value) if value.is_integer() else value, 4)))
        except Exception as error:  # noqa: BLE001 - foreign code, which is not to keep the others from being shown
            found[name] = None
            rows.append((name, f"does not work: {type(error).__name__}: {error}"))
    return Result((pairs(rows),), plain(found))


@command(GROUP, PLUGINS)
def viz(console: Context, name: Annotated[str, _PICTURE], *, last: Last = None) -> Result:
    """A picture that '@debugger.register_viz' or a plugin added, of the tokens held.

    Examples:
        viz bars
    """
    assert isinstance(console.session, Pluggable)
    pictures = console.session.plugins.visualisations
    if name not in pictures:
        known = ", ".join(pictures) or "there are none; @debugger.register_viz('name'), or a plugin, adds one"
        raise UsageError(f"there is no picture called {name}", f"pictures: {known}")
    try:
        picture = pictures[name](console.window(last))
    except Exception as error:
        raise UsageError(f"{name} does not work: {type(error).__name__}: {error}") from error
    return Result((Group(*lines(picture)) if isinstance(picture, str) else _Drawable(picture),), {"viz": name})


@command(GROUP, PLUGINS)
def inspect(console: Context, path: Annotated[str, _MODULE]) -> Result:
    """What the functions of '@debugger.inspector' and of plugins say of a module; they run between two steps.

    Examples:
        inspect model.layers.2.mlp
    """
    assert isinstance(console.session, Pluggable)
    if not console.session.plugins.inspectors:
        raise UsageError("no inspector was added", "@debugger.inspector, or a plugin")
    told = console.result(console.session.call(inspection(console.session, path)))
    return Result((pairs((name, shown) for name, (_, shown) in told.items()),), {k: v for k, (v, _) in told.items()})


@dataclass(frozen=True, slots=True)
class _Drawable:
    """A renderable of foreign code, with whatever text it holds made safe to draw."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.inner, options):
            if segment.control is None:
                shown = "\n".join(map(drawable, segment.text.split("\n")))
                yield Segment(shown, segment.style)
