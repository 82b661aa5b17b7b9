"""Which branch came from which, and what each left behind to be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from moetui.routing import TimelineView, UsageError
from moetui.routing.events import Branch, GenerationSettings

if TYPE_CHECKING:
    from moetui.engine.generation import Prompt
    from moetui.engine.track import Track

_KEPT_BYTES = 2**30
"""Bytes of caches that branches which do not run any more may keep."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A pass of a branch that is to run anew, and what it ran with.

    Attributes:
        branch: the branch's number.
        number: which of the branch's passes it is, those shared with its parent included.
    """

    branch: int
    prompt: Prompt
    settings: GenerationSettings
    track: Track
    number: int


class Lineage:
    """The branches of a session, oldest first."""

    def __init__(self) -> None:
        self._branches: list[Branch] = []
        self._ran: dict[int, tuple[Prompt, GenerationSettings, Track]] = {}

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All of them, oldest first."""
        return tuple(self._branches)

    def add(
        self,
        prompt: Prompt,
        settings: GenerationSettings,
        track: Track,
        first_token: int,
        origin: Origin | None,
        name: str,
    ) -> Branch:
        """A run begins on a branch of its own.

        Args:
            first_token: timeline number of its first token.
            origin: where it is forked from; None for a run from its prompt.
            name: as shown; empty for one that tells where it comes from.
        """
        number = len(self._branches)
        if origin is None:
            run = 1 + max((branch.run for branch in self._branches), default=-1)
            branch = Branch(number, run, name or f"run {run + 1}", first_token=first_token, prompt=prompt.text)
        else:
            parent, position = self._branches[origin.branch], origin.track.passes[origin.number].start
            name = name or self._free(f"{parent.name.partition(' @')[0]} @{position}")
            branch = Branch(number, parent.run, name, parent.id, position, first_token, prompt.text)
        self._branches.append(branch)
        self._ran[number] = prompt, settings, track
        self._let_go()
        return branch

    def find(self, token: int, view: TimelineView) -> Origin:
        """The pass in which a token of the timeline went through the model.

        Raises:
            UsageError: a token that is not held, is padding or no token of the decoder, or that no run here wrote.
        """
        if not view.first <= token < view.end:
            held = f"{view.first} to {view.end - 1} are" if view.end > view.first else "none is yet"
            raise UsageError(f"token {token} is not held", held)
        columns = view.tokens(token, token + 1)
        stack = view.stacks[int(columns.stack[0])]
        if columns.pad[0] or stack != "decoder":
            what = "is padding" if columns.pad[0] else f"went through the {stack}"
            raise UsageError(f"token {token} {what}", "name a token of the decoder")
        branch = int(columns.branch[0])
        prompt, settings, track = self._ran.get(branch, (None, None, None))
        number = None if track is None else track.number_of(int(columns.step[0]))
        if prompt is None or settings is None or track is None or number is None:
            raise UsageError(f"token {token} was written by no run of this session", "'generate' begins one")
        return Origin(branch, prompt, settings, track, number)

    def forget_caches(self) -> None:
        """Free all memory that branches keep for going back; that takes longer from then on."""
        for _, _, track in self._ran.values():
            track.forget_caches()

    def _free(self, name: str) -> str:
        taken = {branch.name for branch in self._branches}
        names = (name if count == 1 else f"{name} ({count})" for count in range(1, len(taken) + 2))
        return next(each for each in names if each not in taken)

    def _let_go(self) -> None:
        """Branches that have run keep their caches, the newest first, as far as there is room."""
        room = _KEPT_BYTES
        for number in sorted(self._ran, reverse=True)[1:]:
            track = self._ran[number][2]
            room -= track.nbytes
            if room < 0:
                track.forget_caches()
