"""What a line comes to, and how it could go on: values between the console and whatever draws it."""

from __future__ import annotations

import reprlib
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass
from typing import Any, cast

from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Result:
    """What a line came to; it can be used as its data: a list, or a mapping, also in ``dict(...)`` and ``**``.

    Attributes:
        renderables: what to show, safe to draw.
        data: the same as plain JSON values (no NaN, no arrays); None where there is none.
        error: one line if it failed.
        hint: what to do about it.
        clear: the log is to be emptied first.
    """

    renderables: tuple[RenderableType, ...] = ()
    data: Any = None
    error: str = ""
    hint: str = ""
    clear: bool = False

    # In Python a command's answer is used like the data it holds: ``moe.stats()["fairness_index"]``.

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __len__(self) -> int:
        return 0 if self.data is None else len(self.data)

    def keys(self) -> KeysView[str]:
        """Of data that are a mapping; like the three below, an ``AttributeError`` for others."""
        return cast("dict[str, Any]", self.data).keys()

    def values(self) -> ValuesView[Any]:
        """The values."""
        return cast("dict[str, Any]", self.data).values()

    def items(self) -> ItemsView[str, Any]:
        """The keys with their values."""
        return cast("dict[str, Any]", self.data).items()

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default`` where there is none."""
        return self.data.get(key, default)

    def __bool__(self) -> bool:
        return not self.error

    def __repr__(self) -> str:
        return f"Result({self.error or reprlib.repr(self.data)})"


@dataclass(frozen=True, slots=True)
class Completion:
    """How a line could go on: ``line[start:cursor]`` may be replaced by any of ``words``.

    Attributes:
        hint: the signature of the command that is being typed; empty if there is none.
    """

    start: int
    words: tuple[str, ...] = ()
    hint: str = ""
