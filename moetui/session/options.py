"""What a live session is to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moetui.engine.models import LoadRequest
from moetui.routing.events import GenerationSettings
from moetui.routing.interventions import Intervention


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a live session is to do.

    Attributes:
        load: the model, and how to load it.
        prompt: of a first run; empty for none.
        begin: start that run as soon as the model is loaded.
        settings: of the first run, and of later ones that name none.
        interventions: in force before the first run.
        record: trace to write; None for none.
        force: overwrite that trace.
        logits: keep the routers' logits.
        sample_rate: share of the steps to keep.
        buffer_tokens: tokens held in memory.
        paused: stand still before the first step of the first run.
        state: folder in which the model's breakpoints are kept from session to session; None keeps nothing.
        linger: seconds that a step may come later, so that steps can be made together, until a screen sets the pace;
            None for where nobody looks on.
    """

    load: LoadRequest
    prompt: str = ""
    begin: bool = True
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    interventions: tuple[Intervention, ...] = ()
    record: Path | None = None
    force: bool = False
    logits: bool = True
    sample_rate: float = 1.0
    buffer_tokens: int = 100_000
    paused: bool = False
    state: Path | None = None
    linger: float | None = 0.2
