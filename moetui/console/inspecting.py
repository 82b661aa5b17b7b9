"""What users' inspectors say of a module, to be asked in the model's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moetui.console.plain import plain
from moetui.console.summaries import summary
from moetui.routing import UsageError

if TYPE_CHECKING:
    from moetui.session.offers import Pluggable

Told = dict[str, tuple[Any, str]]
"""By name: the value as plain data, and in words that are not yet drawable."""


def inspection(session: Pluggable, path: str) -> Callable[[Any, Any], Told]:
    """A function for ``Session.call`` that asks every inspector about the module at ``path``.

    It raises a ``UsageError`` where there is no such module, or an inspector raises.
    """
    inspectors = tuple(session.plugins.inspectors)

    def look(model: Any, _: Any) -> Told:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise UsageError(f"there is no module {path}", "the Elements tab shows them") from None
        # What is a tensor is to be looked at here, where nothing changes it.
        return {
            str(name): (plain(value), " ".join(summary(value)))
            for name, value in _asked(inspectors, module, path).items()
        }

    return look


def _asked(inspectors: Sequence[Callable[[Any, str], dict[str, Any]]], module: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for inspector in inspectors:
        try:
            found.update(inspector(module, path))
        except Exception as error:
            name = getattr(inspector, "__name__", "an inspector")
            raise UsageError(f"{name} does not work: {type(error).__name__}: {error}") from error
    return found
