"""What users' inspectors say of a module, to be asked in the model's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moetui.console.plain import plain
from moetui.console.summaries import summary
from moetui.routing import UsageError

if TYPE_CHECKING:
    from moetui.session.offers import Pluggable

_MOST = 400  # characters of a text

Told = dict[str, tuple[Any, str]]
"""By name: the value as plain data, and in words that are not yet drawable."""


def inspection(session: Pluggable, path: str) -> Callable[[Any, Any], Told]:
    """A function for ``Session.call`` that asks every inspector about the module at ``path``.

    It raises a ``UsageError`` where there is no such module. An inspector that raises is told of by its name, as its
    own code keeps none of the others from being shown.
    """
    inspectors = tuple(session.plugins.inspectors)

    def look(model: Any, _: Any) -> Told:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise UsageError(f"there is no module {path}", "the Elements tab shows them") from None
        told: Told = {}
        for inspector in inspectors:
            try:
                # What is a tensor is to be looked at here, where nothing changes it.
                told |= {str(name): (plain(value), _words(value)) for name, value in inspector(module, path).items()}
            except Exception as error:  # noqa: BLE001 - foreign code
                name = getattr(inspector, "__name__", "an inspector")
                told[name] = None, f"does not work: {type(error).__name__}: {error}"
        return told

    return look


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= _MOST else f"{value[: _MOST - 1]}…"
    return " ".join(summary(value))
