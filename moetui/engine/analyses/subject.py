"""What an analysis is made on: the model, its sites, and the sequences that went through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from moetui.engine.adapters import SiteHandle
from moetui.routing import TimelineView, UnsupportedError, UsageError
from moetui.routing.events import Branch


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model and what went through it.

    Attributes:
        handles: the model's sites.
        view: the tokens so far.
        branches: which runs they belong to; a branch that is not among them starts at position 0.
    """

    model: nn.Module
    tokenizer: Any
    handles: Sequence[SiteHandle]
    view: TimelineView
    branches: Sequence[Branch] = ()

    def handle(self, site: int) -> SiteHandle:
        """The site of this number.

        Raises:
            UsageError: there is none.
        """
        if not 0 <= site < len(self.handles):
            raise UsageError(f"there is no site {site}", f"sites are 0 to {len(self.handles) - 1}")
        return self.handles[site]

    def ids(self, branch: int, sequence: int) -> list[int]:
        """Token ids of a sequence from its first token to the newest that went through the decoder.

        What a branch shares with the one that it was forked from comes from there. Where several passes wrote the same
        positions (a model that its owner runs), the newest count.

        Raises:
            UsageError: no such sequence, or its beginning is not held any more.
            UnsupportedError: an encoder reads the prompt, or some tokens are no text.
        """
        return [token for token, _ in self.tokens(branch, sequence)]

    def tokens(self, branch: int, sequence: int) -> list[tuple[int, int]]:
        """The same with each token's number in the timeline.

        Raises:
            as ``ids``.
        """
        config = getattr(self.model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedError("an encoder reads the prompt, so the sequence alone does not tell the run")
        known = {each.id: each for each in self.branches}
        spans: list[tuple[int, int | None]] = []
        number: int | None = branch
        stop: int | None = None
        while number is not None:
            spans.append((number, stop))
            each = known.get(number)
            # A parent ran before its fork: ids fall, and a damaged lineage cannot turn in circles.
            parent = None if each is None or each.parent is None or each.parent >= number else each.parent
            stop = None if each is None else each.fork_position if stop is None else min(stop, each.fork_position)
            number = parent
        found: list[tuple[int, int]] = []
        for number, stop in reversed(spans):
            self._append(found, number, sequence, stop)
        if not found:
            raise UsageError(f"branch {branch} has no tokens of sequence {sequence}", "'branches' lists the runs")
        if min(token for token, _ in found) < 0:
            raise UnsupportedError("some of the tokens went in as embeddings, which are not held")
        return found

    def _append(self, found: list[tuple[int, int]], branch: int, sequence: int, stop: int | None) -> None:
        view = self.view
        columns = view.tokens(view.first, view.end)
        if "decoder" not in view.stacks:
            return
        here = (columns.branch == branch) & (columns.sequence == sequence) & ~columns.pad
        here &= columns.stack == view.stacks.index("decoder")
        if stop is not None:
            here &= columns.position < stop
        rows = np.flatnonzero(here)
        for row, position, token in zip(
            rows.tolist(), columns.position[rows].tolist(), columns.token_id[rows].tolist()
        ):
            if position > len(found):
                raise UsageError(
                    "the sequence's first tokens are not held any more", "a larger buffer keeps them: --buffer-tokens"
                )
            del found[position:]
            found.append((token, view.first + row))
        if stop is not None and len(found) < stop:
            raise UsageError("the tokens before the fork are not held any more", "--buffer-tokens keeps more")
