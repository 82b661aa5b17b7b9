"""What a session may offer besides, or not: a screen and a console ask with ``isinstance`` and say what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import BreakpointHit, GenerationSettings
from moetui.routing.model import ModelInfo

if TYPE_CHECKING:
    from moetui.debugger import Plugins
    from moetui.routing.branches import BranchTree
    from moetui.routing.timeline import TimelineSource, TimelineView


@runtime_checkable
class Waitable(Protocol):
    """A session that a script can wait for."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the session waits for a command (nothing loads or runs; it may be paused) or was closed.

        Returns:
            False if ``timeout`` seconds were not enough.
        """

    def flush(self, timeout: float | None = None) -> bool:
        """Block until all tokens that went through the model are in the timeline; False after ``timeout`` seconds."""


@runtime_checkable
class Paced(Protocol):
    """A session that hands tokens on several at a time, and can do so as often as somebody looks."""

    def pace(self, seconds: float) -> None:
        """Nobody looks more often than this from now on: a run's tokens may come so much later, within a limit."""


MarkKind = Literal["finding", "interventions", "breakpoint", "branch", "divergence"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a recording: the token at which something happened, and what, in a few words (not yet drawable)."""

    token: int
    kind: MarkKind
    text: str


@runtime_checkable
class Playable(Protocol):
    """A recording with places to jump to."""

    @property
    def marks(self) -> Sequence[Mark]:
        """All of them, in order of their tokens, those behind the cursor as well."""

    def jump(self, direction: int = 1, *kinds: MarkKind) -> Mark | None:
        """Pause at the next mark (1) or the one before (-1), of these kinds or of any; None if there is none."""

    def token_at(self, seconds: float) -> int:
        """The last token of the step that ran so many seconds after the recording's first step began.

        Raises:
            UsageError: the recording has no times.
        """


@runtime_checkable
class Accountable(Protocol):
    """A session that can say, also when it is closed, what went wrong."""

    @property
    def error(self) -> Exception | None:
        """What loading or the last run failed with; None while nothing stands failed."""

    @property
    def recording(self) -> tuple[int, str]:
        """Bytes of the recording so far, and what ended it early (empty: nothing)."""


@runtime_checkable
class Losable(Protocol):
    """A session whose tokens go with it where no file has them."""

    @property
    def kept_until(self) -> int:
        """The first token that would be lost; the timeline's end if none would."""


@runtime_checkable
class Configurable(Protocol):
    """A session whose defaults for the next run can be changed."""

    def configure(self, settings: GenerationSettings) -> None:
        """Let ``settings`` be those of the next run that names none.

        Raises:
            UsageError: a value outside its range.
        """


@runtime_checkable
class Sendable(Protocol):
    """A session whose run can be sent to a place, or begun anew."""

    def run_to(self, position: int) -> None:
        """Go on until the token at this sequence position is next."""

    def finish(self) -> None:
        """Go on to the run's end, past every breakpoint."""

    def restart(self) -> None:
        """Run the last prompt again with its settings; a run that is going on is stopped first.

        Raises:
            UsageError: nothing has run yet.
        """


@runtime_checkable
class Rewindable(Protocol):
    """A session that can take a run back to an earlier token."""

    def rewind(self, token: int) -> None:
        """Stand paused right before timeline token ``token`` goes through the model, on a branch of its own.

        What went before is kept (the caches are cut, or the prefix is run again); what came after stays in the
        timeline as the branch it was. Going on chooses anew, under the interventions then in force.

        Raises:
            UsageError: a token that is not held, or that is no token of the decoder.
            UnsupportedError: a model whose state cannot be taken back; the message says why.
        """

    def fork(
        self, token: int, settings: GenerationSettings | None = None, name: str = "", *, paused: bool = False
    ) -> None:
        """Start a branch that shares all before timeline token ``token`` and runs on from there.

        Args:
            token: the first token that the branch runs through the model itself.
            settings: None for those of the run it leaves.
            name: as shown and typed; empty for one of the session's choice.
            paused: stand before that token instead of running on.

        Raises:
            UsageError: as for ``rewind``, or a name that is taken.
            UnsupportedError: as for ``rewind``.
        """


@runtime_checkable
class Branched(Protocol):
    """A session that knows how its runs and branches hang together."""

    @property
    def tree(self) -> BranchTree:
        """Runs and the branches forked from them, and the one that the session stands on."""


@runtime_checkable
class Writing(Protocol):
    """A session that knows which token a run wrote last: no step has passed it, so that no timeline holds it."""

    def last_text(self, branch: int) -> str:
        """Its text, not yet drawable; empty while the branch runs, and where it ended its text."""


@runtime_checkable
class Branching(Branched, Protocol):
    """A session whose branches can be gone to and put in order; each is meant by its number."""

    def switch_branch(self, branch: int) -> None:
        """Stand paused where this branch was left, whatever runs now; going on continues it exactly.

        Raises:
            UsageError: there is no such branch, or a run is about to stop.
            UnsupportedError: a model whose runs cannot go on from their middle.
        """

    def rename_branch(self, branch: int, name: str) -> None:
        """Give a branch another name.

        Raises:
            UsageError: there is no such branch, or the name will not do or is taken.
        """

    def promote_branch(self, branch: int) -> None:
        """Make a branch the main one of its run: others of the run are compared with it, and listed below it.

        Raises:
            UsageError: there is no such branch.
        """

    def delete_branch(self, branch: int) -> None:
        """Take a branch out of the tree, and its tokens out of the timeline as far as no other branch shares them.

        Raises:
            UsageError: there is no such branch, or the session stands on it.
        """


@runtime_checkable
class Breakable(Protocol):
    """A session whose runs stop where a condition holds."""

    @property
    def breakpoints(self) -> Sequence[Breakpoint]:
        """All breakpoints and log points, oldest first."""

    def add_breakpoint(
        self, expression: str, *, log_only: bool = False, temporary: bool = False, ignore: int = 0
    ) -> Breakpoint:
        """Add one, looked at after each step that ends from now on; ``BreakpointHit`` tells of its hits.

        Raises:
            QueryError: the expression does not parse.
            UnsupportedError: it asks for what a running step cannot tell; the message says what.
        """

    def change_breakpoint(
        self,
        number: int,
        *,
        expression: str | None = None,
        log_only: bool | None = None,
        temporary: bool | None = None,
        ignore: int | None = None,
        enabled: bool | None = None,
    ) -> Breakpoint:
        """Change what is not None of one; its number and its hits so far stay.

        Raises:
            QueryError, UnsupportedError: as for ``add_breakpoint``.
            UsageError: there is none of this number.
        """

    def remove_breakpoint(self, number: int) -> None:
        """Remove one.

        Raises:
            UsageError: there is none of this number.
        """


@runtime_checkable
class Halting(Protocol):
    """A session that knows at which breakpoint its run stands."""

    @property
    def hit(self) -> BreakpointHit | None:
        """Where the run stands, if it stands at a breakpoint."""


@runtime_checkable
class Pluggable(Protocol):
    """A session that users add functions of their own to."""

    @property
    def plugins(self) -> Plugins:
        """Measures, diagnostics, inspectors and pictures that they registered."""


@dataclass(frozen=True, slots=True, eq=False)
class Underway:
    """A step that stands before a site.

    Attributes:
        view: its tokens alone, numbered from 0, with the routing of the sites that they passed; at ``site`` that of the
            router itself. Probabilities and durations are unknown yet.
        site: index of the site that it stands before.
        first: the number that its first token will have in the timeline.
    """

    view: TimelineView
    site: int
    first: int


@runtime_checkable
class Layered(Protocol):
    """A session whose run can stand within a step."""

    @property
    def underway(self) -> Underway | None:
        """The step that the run stands within; None while it does not."""


@runtime_checkable
class Analysing(Protocol):
    """A session that runs analyses on its model, each by a name; ``moetui.session.analyses`` has their values."""

    @property
    def analyses(self) -> Sequence[str]:
        """The names known here, e.g. ``token_impact``, ``router_decomposition``, ``expert_similarity``."""

    def analyze(self, name: str, **arguments: Any) -> Future[Any]:
        """Run an analysis in the generation thread, between steps; its passes are not captured.

        The future's exception is a ``MoetuiError`` where a person can put it right.

        Raises:
            UsageError: no analysis of this name, or an argument that it does not take.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recording that was opened beside the session: what a comparison needs of it."""

    path: str
    info: ModelInfo
    timeline: TimelineSource
    tree: BranchTree


@runtime_checkable
class Filing(Protocol):
    """A session that reads and writes files for its user."""

    def save(self, path: str, *, overwrite: bool = False) -> int:
        """Write all tokens held, with what happened meanwhile, to a trace; return its bytes. Blocks while it writes.

        Raises:
            UsageError: the file exists (without ``overwrite``), or its folder does not.
            TraceError: it cannot be written.
        """

    def export(self, path: str, format: str, *, overwrite: bool = False) -> int:  # noqa: A002
        """Write all tokens held in one of the formats of ``moetui export``; return the bytes. Blocks while it writes.

        Raises:
            UsageError: an unknown format, or a path as for ``save``.
            TraceError: it cannot be written.
        """

    def load(self, path: str) -> Recording:
        """Open a recording beside this session.

        Raises:
            TraceError: no trace, or damaged beyond use.
        """
