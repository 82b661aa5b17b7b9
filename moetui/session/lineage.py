"""Which branch came from which, and what each left behind to be taken back or taken up."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moetui.routing import TimelineView, UsageError
from moetui.routing.branches import BranchTree
from moetui.routing.events import Branch, BranchAdded, BranchChanged, Event, GenerationSettings

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


@dataclass(frozen=True, slots=True)
class Ran:
    """What a branch runs with, and what its passes left behind."""

    prompt: Prompt
    settings: GenerationSettings
    track: Track


class Lineage:
    """The branches of a session: their tree, and their passes. Any thread may read it and change the tree."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tree = BranchTree()
        self._ran: dict[int, Ran] = {}
        self._ends: dict[int, str] = {}
        self._last: dict[int, str] = {}

    @property
    def tree(self) -> BranchTree:
        """As it is now."""
        return self._tree

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Those that were not deleted, oldest first."""
        return self._tree.branches

    def grow(self, event: Event) -> None:
        """Let the tree be what an event makes of it."""
        with self._lock:
            self._tree = self._tree.after(event)

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
        tree = self._tree
        number = len(tree.every)
        if origin is None:
            name = self._free(name or f"run {number}")
            branch = Branch(number, number, name, first_token=first_token, prompt=prompt.text)
        else:
            parent, position = tree.every[origin.branch], origin.track.passes[origin.number].start
            name = self._free(name or f"{parent.name.partition(' @')[0]} @{position}")
            branch = Branch(number, parent.run, name, parent.id, position, first_token, prompt.text)
        self._ran[number] = Ran(prompt, settings, track)
        self.grow(BranchAdded(branch, settings))
        self.let_go()
        return branch

    def switch(self, number: int) -> BranchChanged:
        """The session stands on this branch from now on."""
        event = BranchChanged(number, "switched")
        self.grow(event)
        self.let_go()
        return event

    def ran(self, number: int) -> Ran:
        """What a branch runs with.

        Raises:
            UsageError: there is none of this number.
        """
        self._tree.get(number)
        return self._ran[number]

    def end(self, number: int, reason: str) -> None:
        """A branch has come to its end: nothing follows on it."""
        self._ends[number] = reason

    def ended(self, number: int) -> str | None:
        """How a branch came to its end; None if it did not and may be taken up."""
        return self._ends.get(number)

    def wrote(self, number: int, text: str) -> None:
        """A branch was left behind this token, which no step has passed; empty once one is to pass it."""
        self._last[number] = text

    def last_text(self, number: int) -> str:
        """The text of that token; empty if there is none."""
        return self._last.get(number, "")

    def find(self, token: int, view: TimelineView) -> Origin:
        """The pass in which a token of the timeline went through the model.

        Raises:
            UsageError: a token that is not held, is padding or no token of the decoder, is of a deleted branch and
                shared by no other, or that no run here wrote.
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
        ran = self._ran.get(branch)
        number = None if ran is None else ran.track.number_of(int(columns.step[0]))
        if branch in self._tree.deleted:
            heir = self._tree.heir(branch, int(columns.position[0]))
            if heir is None:
                raise UsageError(f"token {token} is of a branch that was deleted", self._tree.listed)
            branch, ran = heir, self._ran[heir]  # which shares that pass, by the same number
        if ran is None or number is None:
            raise UsageError(f"token {token} was written by no run of this session", "'generate' begins one")
        return Origin(branch, ran.prompt, ran.settings, ran.track, number)

    def forget_caches(self) -> None:
        """Free all memory that branches keep for going back; that takes longer from then on."""
        for ran in self._ran.values():
            ran.track.forget_caches()

    def _free(self, name: str) -> str:
        taken = {branch.name.casefold() for branch in self._tree.branches}
        names = (name if count == 1 else f"{name} ({count})" for count in range(1, len(taken) + 2))
        return next(each for each in names if each.casefold() not in taken)

    def let_go(self) -> None:
        """Branches that do not run keep their caches, the newest first, as far as there is room.

        Only in the thread that runs the model.
        """
        room = _KEPT_BYTES
        for number in sorted(self._ran, reverse=True):
            if number == self._tree.current:
                continue
            track = self._ran[number].track
            room -= track.nbytes
            if room < 0 or number in self._tree.deleted:
                track.forget_caches()
