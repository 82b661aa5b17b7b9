"""The runs of a session and the branches forked from them, as a tree: what events make of it, step by step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from moetui.routing.errors import UsageError
from moetui.routing.events import Branch, BranchAdded, BranchChanged, Event
from moetui.routing.step import Bool
from moetui.routing.timeline import TokenColumns

_MOST_LETTERS = 60
_MOST_LISTED = 12
_RUN = re.compile(r"run ([0-9]+)", re.IGNORECASE)

Line: TypeAlias = tuple[tuple[int, int | None], ...]
"""What a sequence is made of, from its start: branches, each up to this position (None: to its end)."""


@dataclass(frozen=True, slots=True)
class BranchRow:
    """A branch as the tree is drawn.

    Attributes:
        depth: how many branches lie between it and its run's first.
        last: no other follows on its level, for it and for each branch above it, from the top.
    """

    branch: Branch
    last: tuple[bool, ...] = ()

    @property
    def depth(self) -> int:
        """How deep it hangs; a run's first is 0."""
        return len(self.last)


@dataclass(frozen=True, slots=True)
class BranchTree:
    """All branches of a session, and where it stands among them.

    Attributes:
        every: oldest first, those that were deleted included: others share tokens with them.
        deleted: numbers of those that are gone from the tree.
        promoted: the main branch of a run, by the run's number, where it is not its first.
        current: the branch that the session stands on; None before the first.
        chosen: it was switched to, and nothing has begun since.
    """

    every: tuple[Branch, ...] = ()
    deleted: frozenset[int] = frozenset()
    promoted: Mapping[int, int] = field(default_factory=dict)
    current: int | None = None
    chosen: bool = False

    @classmethod
    def of(cls, events: Iterable[Event]) -> BranchTree:
        """The tree after all of these events."""
        tree = cls()
        for event in events:
            tree = tree.after(event)
        return tree

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Those that are there, oldest first."""
        return tuple(branch for branch in self.every if branch.id not in self.deleted)

    @property
    def gone(self) -> Mapping[int, int]:
        """Of which branches tokens are gone with them, and from which position: those before are shared by others."""
        if not self.deleted:
            return {}
        out = dict.fromkeys(sorted(self.deleted), 0)
        for branch in self.branches:
            for number, stop in self.line(branch.id):
                if number in out and stop is not None:
                    out[number] = max(out[number], stop)
        return out

    def heir(self, number: int, position: int) -> int | None:
        """The oldest branch that shares a deleted one's token at this position; None if none does."""
        for branch in self.branches:
            if any(each == number and stop is not None and position < stop for each, stop in self.line(branch.id)):
                return branch.id
        return None

    def after(self, event: Event) -> BranchTree:
        """The tree after an event; of one that is not about branches, or about one not known, as it was."""
        if isinstance(event, BranchAdded):
            added = event.branch
            if any(branch.id == added.id for branch in self.every):  # of a damaged file
                return self
            return replace(self, every=(*self.every, added), current=added.id, chosen=False)
        if not isinstance(event, BranchChanged):
            return self
        branch = self.find(event.branch)
        if branch is None:
            return self
        match event.change:
            case "renamed":
                renamed = replace(branch, name=event.name)
                return replace(self, every=tuple(renamed if each is branch else each for each in self.every))
            case "promoted":
                return replace(self, promoted={**self.promoted, branch.run: branch.id})
            case "switched":
                return replace(self, current=branch.id, chosen=True)
            case "deleted":
                promoted = {run: main for run, main in self.promoted.items() if main != branch.id}
                return replace(self, deleted=self.deleted | {branch.id}, promoted=promoted)
            case _:
                return self

    def find(self, number: int) -> Branch | None:
        """The branch of this number, if it is there."""
        return next((branch for branch in self.branches if branch.id == number), None)

    def get(self, number: int) -> Branch:
        """The branch of this number.

        Raises:
            UsageError: there is none, or it was deleted; the hint names those that there are.
        """
        branch = self.find(number)
        if branch is None:
            what = "was deleted" if number in self.deleted else "is not there"
            raise UsageError(f"branch {number} {what}", self.listed)
        return branch

    @property
    def listed(self) -> str:
        """The branches by name, for a hint."""
        names = [branch.name for branch in self.branches]
        if not names:
            return "nothing has run yet"
        return "branches: " + ", ".join(names[:_MOST_LISTED]) + (" …" if len(names) > _MOST_LISTED else "")

    def main(self, run: int) -> int | None:
        """The main branch of a run: the one promoted last, or else its oldest."""
        found = self.promoted.get(run)
        return found if found is not None else next((each.id for each in self.branches if each.run == run), None)

    def parent(self, branch: Branch) -> Branch | None:
        """The branch that this one hangs from: the nearest above it that was not deleted."""
        known = {each.id: each for each in self.every}
        number = _above(branch)
        while number is not None and number in known:
            if number not in self.deleted:
                return known[number]
            number = _above(known[number])
        return None

    def rows(self) -> tuple[BranchRow, ...]:
        """The tree from the top: each branch is followed by those forked from it, a run's main one first."""
        below: dict[int | None, list[Branch]] = {}
        mains = {self.main(branch.run) for branch in self.branches}
        for branch in self.branches:
            parent = self.parent(branch)
            below.setdefault(None if parent is None else parent.id, []).append(branch)
        for level in below.values():
            level.sort(key=lambda branch: (branch.run, branch.id not in mains, branch.id))

        def under(number: int | None, last: tuple[bool, ...]) -> Iterator[BranchRow]:
            level = below.get(number, [])
            for branch in level:
                here = () if number is None else (*last, branch is level[-1])
                yield BranchRow(branch, here)
                yield from under(branch.id, here)

        return tuple(under(None, ()))

    def line(self, number: int) -> Line:
        """A branch's whole sequence: what it shares with those that it was forked from, and its own tokens."""
        known = {each.id: each for each in self.every}
        spans: list[tuple[int, int | None]] = []
        at: int | None = number
        stop: int | None = None
        while at is not None:
            spans.append((at, stop))
            each = known.get(at)
            if each is None:
                break
            stop = each.fork_position if stop is None else min(stop, each.fork_position)
            at = _above(each)
        return tuple(reversed(spans))

    def check_name(self, name: str, *, renamed: int | None = None) -> str:
        """A name for a branch, without the spaces around it.

        Args:
            renamed: the branch that may be called so already.

        Raises:
            UsageError: it is empty, too long or a number, or another branch is, or might be, called so.
        """
        name = name.strip()
        if not name:
            raise UsageError("the name is empty", "a word or two")
        if len(name) > _MOST_LETTERS:
            raise UsageError(f"the name has {len(name)} letters", f"{_MOST_LETTERS} at most")
        if not name.isprintable():
            raise UsageError("the name has characters that cannot be typed", "letters, digits, spaces and signs")
        if name.lstrip("-").isdigit():
            raise UsageError(f"{name} is a number", "branches have numbers of their own; choose a word")
        for branch in self.branches:
            if branch.id != renamed and branch.name.casefold() == name.casefold():
                raise UsageError(f"there is a branch called {branch.name} already", "choose another name")
        numbered = _RUN.fullmatch(name)
        if numbered is not None and int(numbered[1]) != renamed:
            raise UsageError(f"{name} is what branch {numbered[1]} is called by itself", "choose another name")
        return name


def _above(branch: Branch) -> int | None:
    """A parent ran before its forks: numbers fall, and the tree of a damaged file cannot turn in circles."""
    return branch.parent if branch.parent is not None and branch.parent < branch.id else None


def line_rows(columns: TokenColumns, line: Line, stacks: Sequence[str] = ()) -> Bool:
    """``[n]`` tokens that are part of a sequence; padding is none.

    Args:
        stacks: names that ``columns.stack`` indexes; none for a decoder alone. A branch counts positions of the
            decoder, and shares what an encoder read as a whole.
    """
    others = [number for number, name in enumerate(stacks) if name != "decoder"]
    beside = np.isin(columns.stack, others) if others else None
    keep = np.zeros(len(columns.branch), np.bool_)
    for branch, stop in line:
        own = columns.branch == branch
        if stop is not None:
            shared = columns.position < stop
            if beside is not None:
                shared = np.where(beside, stop > 0, shared)
            own = own & shared
        keep |= own
    return np.asarray(keep & ~columns.pad, np.bool_)
