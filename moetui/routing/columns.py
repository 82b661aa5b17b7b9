"""Columns that grow together: rows once written never change, so that whoever looks at them may go on looking."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from moetui.routing.step import NO_EXPERT

_BY_SLOT = ("indices", "weights")
Rows: TypeAlias = np.ndarray[Any, Any] | np.generic
"""Rows of a column; one number where all have it."""


class Columns:
    """Named arrays that grow together along their first axis.

    Args:
        templates: rows as there will be, for their shapes and types.
        capacity: rows that there is room for at first.

    Attributes:
        start, stop: the rows held.
    """

    def __init__(self, templates: dict[str, Rows], capacity: int) -> None:
        self._arrays = {
            name: np.empty((capacity, *template.shape[1:]), template.dtype) for name, template in templates.items()
        }
        self.start = 0
        self.stop = 0

    def check(self, rows: dict[str, Rows], count: int) -> bool:
        """Whether ``rows`` are exactly as wide as these columns.

        Raises ValueError unless they are ``count`` rows of them: NumPy would repeat what is not.
        """
        if rows.keys() != self._arrays.keys():
            odd = ", ".join(sorted(rows.keys() ^ self._arrays.keys()))
            raise ValueError(f"steps of one timeline all have {odd}, or none has")
        fits = True
        for name, array in self._arrays.items():
            shape = (count, *array.shape[1:])
            found = rows[name].shape
            if found == shape or (array.ndim == 1 and not found):
                continue
            fits = False
            if name in _BY_SLOT:
                # An intervention may give a token more slots than the model does, or fewer.
                shape, found = shape[:-1], found[:-1]
            if found != shape:
                raise ValueError(f"{name} has shape {rows[name].shape}, not {(count, *array.shape[1:])}")
        return fits

    def append(self, rows: dict[str, Rows], count: int, fits: bool) -> None:
        """Add what ``check`` looked at, with its answer."""
        self._reserve(count)
        if fits:
            place = slice(self.stop, self.stop + count)
            for name, array in self._arrays.items():
                array[place] = rows[name]
            self.stop += count
            return
        for name in self._arrays:
            self._widen(name, rows[name].shape[1:])
            array, row = self._arrays[name], rows[name]
            if row.shape[1:] == array.shape[1:]:
                array[self.stop : self.stop + count] = row
            else:
                array[self.stop : self.stop + count] = _filler(array)
                cells = (slice(self.stop, self.stop + count), *(slice(size) for size in row.shape[1:]))
                array[cells] = row
        self.stop += count

    def drop(self, count: int) -> None:
        """Let the oldest rows go."""
        self.start += count

    def _reserve(self, count: int) -> None:
        capacity = next(iter(self._arrays.values())).shape[0]
        if self.stop + count <= capacity:
            return
        held = self.stop - self.start
        # Rows move to new arrays, never within old ones: views handed out before stay true.
        grown = max(2 * held, held + count, 64)
        for name, array in self._arrays.items():
            fresh = np.empty((grown, *array.shape[1:]), array.dtype)
            fresh[:held] = array[self.start : self.stop]
            self._arrays[name] = fresh
        self.start, self.stop = 0, held

    def _widen(self, name: str, shape: tuple[int, ...]) -> None:
        array = self._arrays[name]
        wide = tuple(max(own, new) for own, new in zip(array.shape[1:], shape))
        if wide == array.shape[1:]:
            return
        fresh = np.full((array.shape[0], *wide), _filler(array), array.dtype)
        cells = (slice(self.stop), *(slice(size) for size in array.shape[1:]))
        fresh[cells] = array[: self.stop]
        self._arrays[name] = fresh

    def slices(self) -> dict[str, np.ndarray[Any, Any]]:
        """The rows held, read-only and without a copy."""
        out = {}
        for name, array in self._arrays.items():
            view = array[self.start : self.stop]
            view.flags.writeable = False
            out[name] = view
        return out


def _filler(array: np.ndarray[Any, Any]) -> Any:
    """What stands for unknown in an array of this dtype."""
    if array.dtype.kind == "f":
        return np.nan
    return NO_EXPERT if array.dtype == np.uint16 else -1 if array.dtype.kind == "i" else 0
