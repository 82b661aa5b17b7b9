"""Lets a call of ``generate`` that the user's own code made begin once more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from moetui.engine.caches import given_cache
from moetui.engine.control import RunStoppedError
from moetui.engine.rewind import RandomState


class StartingOver:
    """Stands in for a model's ``generate``: a call that is stopped to start over does so, and its caller sees one call.

    Args:
        model: whose method it is; nothing is put on it yet.

    Attributes:
        again: the next call that a stop ends is to begin once more.
        under_way: calls that have begun and not ended.
        goes_on: whether the latest of them was given a cache, which the tokens since have changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self.again, self.under_way, self.goes_on = model, False, 0, False
        self.__doc__ = getattr(getattr(type(model), "generate", None), "__doc__", None)  # for who asks what it does

    def put_on(self) -> None:
        """Stand in; no effect on a model that generates nothing, or where something stands in already."""
        if hasattr(type(self._model), "generate"):
            self._model.__dict__.setdefault("generate", self)

    def remove(self) -> None:
        """Stand in no more; no effect where that is so. A call that is under way goes on."""
        if self._model.__dict__.get("generate") is self:
            del self._model.__dict__["generate"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's ``generate``."""
        drawn = RandomState.now()
        self.goes_on = given_cache(kwargs) is not None
        self.under_way += 1
        try:
            while True:
                try:
                    return self.__wrapped__(*args, **kwargs)
                except RunStoppedError:
                    if not self.again:
                        raise
                    self.again = False
                    drawn.set()
        finally:
            self.under_way -= 1

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The method, where ``inspect.signature`` looks on."""
        method: Callable[..., Any] = type(self._model).generate.__get__(self._model)  # type: ignore[attr-defined]
        return method

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        """The copied model's own method."""
        return copy.deepcopy(self.__wrapped__, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        """The pickled model's own method."""
        return getattr, (self._model, "generate")
