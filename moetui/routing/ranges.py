"""Whole numbers as a person writes them: in ranges."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from moetui.routing.errors import UsageError


def ranges(numbers: Iterable[int]) -> str:
    """``0-3, 6, 8-9`` of ascending numbers."""
    return ", ".join(_shown(low, high) for low, high in _runs(numbers))


def with_routers(wanted: Iterable[int], known: Collection[int]) -> tuple[int, ...]:
    """Those of some layers that have a router.

    Layers in a row count as a range, as ``2-5`` is: it may step over layers without one.

    Args:
        wanted: layer indices.
        known: those that have a router.

    Raises:
        UsageError: a layer by itself has no router, or none of a range.
    """
    numbers = tuple(wanted)
    for low, high in _runs(sorted(set(numbers))):
        if not any(number in known for number in range(low, high + 1)):
            hint = f"layers with routers: {ranges(sorted(known))}"
            which = f"layer {low} has no router" if low == high else f"none of the layers {low}-{high} has a router"
            raise UsageError(which, hint)
    return tuple(number for number in numbers if number in known)


def _shown(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and the last of numbers in a row, of ascending numbers."""
    out: list[tuple[int, int]] = []
    for number in numbers:
        if out and number == out[-1][1] + 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out
