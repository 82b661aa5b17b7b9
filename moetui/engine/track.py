"""What a run leaves behind to be taken back to any of its passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor

from moetui.engine.adapters import RoutingFunction
from moetui.engine.rewind import CacheCopy, RandomState, RewindMethod, can_crop, cropped, nbytes, will_crop

BUDGET: Final = 512 * 2**20
"""Bytes that the copies of one run's cache may take."""

MOST_REPEATS: Final = 512
"""Passes that are repeated rather than run as one."""

_FIRST_STRIDE = 4

Functions = tuple[RoutingFunction | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One forward pass of a run.

    Attributes:
        start, stop: sequence positions of the tokens that went through the model in it.
        random: generator states before it; None for a greedy run.
        functions: that changed the routing in it, by site number; empty if none did.
        steady: they were the same throughout the pass.
    """

    start: int
    stop: int
    random: RandomState | None = None
    functions: Functions = ()
    steady: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where a run goes on from.

    Attributes:
        ids: ``[1, n]`` the sequence, up to the last token of the pass that is next.
        given: tokens of it that generation is called with; those after it were chosen before and are chosen again.
        cache: holds what went before the first pass; None for nothing.
        repeats: passes that lie between the cache and the next pass.
        random: generator states before the next pass; None for a greedy run.
        exact: whether going on unchanged repeats the run bit for bit.
    """

    ids: Tensor
    given: int
    cache: Any
    repeats: tuple[Pass, ...]
    random: RandomState | None
    method: RewindMethod
    exact: bool

    @property
    def position(self) -> int:
        """Sequence position of the last token of the pass that is next."""
        return int(self.ids.shape[1]) - 1


class Track:
    """The passes of one run, from its prompt on, those that it shares with the run it was forked from included.

    The generating thread alone uses it, but for ``number_of``.

    Args:
        sampled: keep random states.
        cuts: caches may be cut and copied; else passes are repeated, however many they are.
        budget: bytes that copies of the cache may take.
    """

    def __init__(self, *, sampled: bool, cuts: bool = True, budget: int = BUDGET) -> None:
        self._sampled, self._cuts, self._budget = sampled, cuts, budget
        self._passes: list[Pass] = []
        self._numbers: dict[int, int] = {}
        self._ids: Tensor | None = None
        self._cache: Any = None
        self._copies: dict[int, CacheCopy] = {}
        self._anchor = -1
        self._stride = _FIRST_STRIDE
        self._left: RandomState | None = None
        self._moved = False

    @property
    def finished(self) -> int:
        """How many of its passes came to their end: what the first of the others begins with is known."""
        length = 0 if self._ids is None else int(self._ids.shape[1])
        return sum(each.stop < length for each in self._passes)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes so far, in order."""
        return tuple(self._passes)

    @property
    def copies(self) -> tuple[int, ...]:
        """Numbers of the passes before which the cache was copied."""
        return tuple(sorted(self._copies))

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps alive."""
        return nbytes(self._cache) + sum(kept.nbytes for kept in self._copies.values())

    def number_of(self, step: int) -> int | None:
        """Which of its passes a step of the timeline was; None if it was none of its own."""
        return self._numbers.get(step)

    def forked(self, number: int, *, sampled: bool) -> Track:
        """The track of a run that shares the passes before number ``number``."""
        track = Track(sampled=sampled, cuts=self._cuts, budget=self._budget)
        wanted = self._pass(number)
        assert self._ids is not None
        track._ids, track._left = self._ids[:, : wanted.stop], wanted.random
        track._passes = self._passes[:number]
        track._copies = {key: kept for key, kept in self._copies.items() if key <= number}
        track._anchor = self._anchor if self._anchor in track._copies else -1
        track._stride = self._stride
        return track

    def chosen(self, ids: Tensor) -> None:
        """The sequence ``[1, n]`` so far, the token chosen last included; one that is being repeated is known."""
        if self._ids is None or ids.shape[1] > self._ids.shape[1]:
            self._ids = ids

    def taken_up(self) -> None:
        """The run goes on at its first unfinished pass (``start(finished)``): forget what was begun."""
        number = self.finished
        del self._passes[number:]
        self._numbers = {step: each for step, each in self._numbers.items() if each < number}
        self._moved = False

    def left(self) -> None:
        """The run is left between two passes, perhaps to be taken up later: note the random state in which."""
        if self._sampled and self._moved:
            self._left = RandomState.now(self._passes[-1].random)

    def note(self, step: int, tokens: int, cache: Any, functions: Functions) -> None:
        """A pass is about to begin.

        Args:
            step: its number in the timeline.
            tokens: that go through it: the last of the sequence.
            cache: holds those before; None if there is none.
            functions: that change its routing.
        """
        stop = 0 if self._ids is None else int(self._ids.shape[1])
        number, start = len(self._passes), stop - tokens
        before = self._passes[-1].random if self._passes else None
        random = RandomState.now(before) if self._sampled else None
        self._passes.append(Pass(start, stop, random, functions if any(functions) else ()))
        self._numbers[step] = number
        self._moved = True
        self._cache = cache if self._cuts else None
        if self._cache is not None and start and not will_crop(cache, tokens):
            self._copy(number, cache, start)

    def changed_within(self) -> None:
        """The functions changed while the newest pass stood between two sites."""
        if self._passes:
            self._passes[-1] = replace(self._passes[-1], steady=False)

    def broke(self) -> None:
        """The newest pass was not finished: its cache cannot be used any more."""
        self._cache = None
        self._copies.clear()

    def forget_caches(self) -> None:
        """Free the memory that it keeps alive; going back will repeat the passes."""
        self.broke()

    def start(self, number: int) -> Start:
        """Where to go on from so that pass ``number`` is next; nothing that the track holds is changed.

        The one behind the last, if that is finished, has not been begun yet.
        """
        wanted = self._pass(number)
        assert self._ids is not None
        ids = self._ids[:, : wanted.stop]
        if wanted.start == 0:
            return Start(ids, wanted.stop, None, (), wanted.random, "prompt", True)
        found = None if self._cache is None else self._cut(wanted)
        if found is not None:
            return Start(ids, wanted.stop, found, (), wanted.random, "crop", True)
        before = [key for key in self._copies if key <= number]
        if self._cache is None or not before:
            return self._repeating(ids, 0, number, None)
        first = max(before)
        cache = self._copies[first].filled(self._cache, self._passes[-1].stop)
        return self._repeating(ids, first, number, cache)

    def _pass(self, number: int) -> Pass:
        if number < len(self._passes):
            return self._passes[number]
        assert self._ids is not None
        return Pass(self._passes[-1].stop if self._passes else 0, int(self._ids.shape[1]), self._left)

    def _cut(self, wanted: Pass) -> Any:
        """The live cache, or a copy of a later one, cut to what went before ``wanted``; None where none can be."""
        held = self._passes[-1].stop
        if can_crop(self._cache, held - wanted.start):
            return cropped(self._cache, held - wanted.start)
        later = [kept for kept in self._copies.values() if kept.length > wanted.start]
        for kept in sorted(later, key=lambda each: each.length):
            whole = kept.filled(self._cache, held)
            if can_crop(whole, kept.length - wanted.start):
                return cropped(whole, kept.length - wanted.start)
        return None

    def _repeating(self, ids: Tensor, first: int, number: int, cache: Any) -> Start:
        wanted, repeats = self._pass(number), tuple(self._passes[first:number])
        if cache is None and self._cuts and len(repeats) > MOST_REPEATS:
            whole = Pass(0, wanted.start, None, self._passes[0].functions)
            return Start(ids, wanted.start, None, (whole,), wanted.random, "prefill", False)
        given = repeats[0].stop if repeats else wanted.stop
        exact = all(each.steady for each in repeats)
        return Start(ids, given, cache, repeats, wanted.random, "repeat" if cache is None else "snapshot", exact)

    def _copy(self, number: int, cache: Any, length: int) -> None:
        if self._anchor < 0 and can_crop(cache, 0):
            self._anchor = number  # the last that all before can be cut from
        elif number % self._stride and self._copies:
            return
        self._copies[number] = CacheCopy.of(cache, length)
        while sum(kept.nbytes for kept in self._copies.values()) > self._budget and len(self._copies) > 1:
            self._stride *= 2
            kept = {key: each for key, each in self._copies.items() if key % self._stride == 0 or key == self._anchor}
            if self._stride > number or not kept:
                kept = {number: self._copies[number]}
            self._copies = kept
