"""What a recording cannot do, each with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

from moetui.routing import UnsupportedError
from moetui.routing.events import GenerationSettings
from moetui.routing.interventions import Intervention

_NO_MODEL = "start it with 'moetui run' to do that"


class NoModel:
    """The part of ``Session`` that needs a model, refused with ``UnsupportedError``."""

    def generate(self, prompt: str, settings: GenerationSettings | None = None) -> NoReturn:
        """Not possible."""
        raise UnsupportedError("a recording cannot generate: the model is not here", _NO_MODEL)

    def step_layer(self) -> NoReturn:
        """Not possible."""
        raise UnsupportedError("a recording steps by tokens, not by layers", "'step' goes to the next step")

    def set_interventions(self, interventions: Sequence[Intervention]) -> NoReturn:
        """Not possible."""
        raise UnsupportedError("a recording cannot be intervened in: it has happened", _NO_MODEL)

    def call(self, function: Callable[[Any, Any], Any]) -> Future[Any]:
        """Not possible."""
        raise UnsupportedError("a recording has no model to look into", _NO_MODEL)
