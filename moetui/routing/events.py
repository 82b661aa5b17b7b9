"""What happened, as small values: they travel from the threads to the screen and into the trace, never arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

from moetui.routing.interventions import Intervention
from moetui.routing.model import ModelInfo

Severity = Literal["info", "warning", "error"]
BranchChange = Literal["renamed", "promoted", "switched", "deleted", "other"]


class RunState(Enum):
    """Where a session stands."""

    LOADING = "loading"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How tokens are chosen: greedy unless a sampling field is set.

    Attributes:
        temperature: None for greedy.
        top_p: nucleus mass in (0, 1]; None for no limit.
        top_k_sampling: candidates to sample from; None for no limit.
        seed: repeats a sampled run exactly; None draws one and reports it.
        chat: apply the chat template; None means "when the tokenizer has one and the model is a chat model".
        system: system message for the chat template.
    """

    max_new_tokens: int = 64
    temperature: float | None = None
    top_p: float | None = None
    top_k_sampling: int | None = None
    seed: int | None = None
    chat: bool | None = None
    system: str = ""

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn at random."""
        return any(value is not None for value in (self.temperature, self.top_p, self.top_k_sampling))


@dataclass(frozen=True, slots=True)
class Branch:
    """A run, or a run forked from a token of another.

    Attributes:
        id: number within the session, from 0: the one that a person types, and that files have.
        run: the run that it belongs to, by the number of its first branch; in recordings of before, prompts counted.
        name: as shown and typed.
        parent: the branch it was forked from; None for a run's first.
        fork_position: sequence position from which its own tokens start (0 for a run's first).
        first_token: timeline number of its first own token.
        prompt: the run's prompt.
    """

    id: int
    run: int
    name: str
    parent: int | None = None
    fork_position: int = 0
    first_token: int = 0
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic's result.

    Attributes:
        kind: ``dead_expert``, ``router_collapse``, ``load_imbalance``, ``non_finite``, ``site_silent``,
            ``steps_sampled``, ``trace_incomplete`` ... one word, stable.
        site: name of the site it is about, or None.
        message: one line.
        suggestion: what to do, one line.
    """

    kind: str
    severity: Severity
    message: str
    suggestion: str = ""
    site: str | None = None

    @property
    def loses_steps(self) -> bool:
        """Whether it says that passes of the model were not recorded."""
        return self.kind in ("step_lost", "capture_failed")


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Loading goes on: what is being done and how much of it (0..1, None if unknown)."""

    message: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """A model was loaded, or more became known of it (scoring rules after the first forward)."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class RunStateChanged:
    """The run's state, with the reason in words (why it is paused, what failed) and a hint for failures.

    Attributes:
        last_text: of a run that is over, the text of the token that it wrote last, which no step has passed.
    """

    state: RunState
    reason: str = ""
    hint: str = ""
    last_text: str = ""


@dataclass(frozen=True, slots=True)
class StepCaptured:
    """The timeline holds all tokens before ``end`` now."""

    end: int


@dataclass(frozen=True, slots=True)
class BranchAdded:
    """A run started or a branch was forked. ``settings`` are those of its generation."""

    branch: Branch
    settings: GenerationSettings = field(default_factory=GenerationSettings)


@dataclass(frozen=True, slots=True)
class BranchChanged:
    """A branch was named anew, made the main one of its run, stood on again, or taken out of the tree.

    Attributes:
        branch: its number.
        name: the new one, where it was renamed.
    """

    branch: int
    change: BranchChange
    name: str = ""


@dataclass(frozen=True, slots=True)
class InterventionsChanged:
    """The interventions in force from token number ``token`` on, and how their weights are found (``rules``).

    ``rules`` maps a site's name to ``numeric``, ``reroute`` or ``keep_mass``.
    """

    interventions: tuple[Intervention, ...]
    token: int = 0
    rules: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BreakpointHit:
    """A breakpoint's condition held.

    Attributes:
        token: timeline number of the token; site: index of the site, or -1.
        values: what the sub-expressions were, in words.
    """

    breakpoint: int
    expression: str
    token: int
    site: int
    values: str
    hits: int
    log_only: bool = False


@dataclass(frozen=True, slots=True)
class FindingRaised:
    """A finding that was not there before."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class RecordingChanged:
    """The trace being written: its path (empty: none), bytes so far, and the problem that ended it, if any."""

    path: str
    nbytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the person at the screen."""

    message: str
    severity: Severity = "info"


Event: TypeAlias = (
    LoadProgress
    | ModelChanged
    | RunStateChanged
    | StepCaptured
    | BranchAdded
    | BranchChanged
    | InterventionsChanged
    | BreakpointHit
    | FindingRaised
    | RecordingChanged
    | Notice
)
