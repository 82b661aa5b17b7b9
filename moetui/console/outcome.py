"""What a run has come to: its text, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from moetui.routing import TimelineView, join_texts
from moetui.routing.branches import BranchTree, Line, line_rows
from moetui.routing.events import Branch
from moetui.session import Session, Writing


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a branch.

    Attributes:
        branch: which it is.
        tokens: its own, padding left out.
        text: of all tokens on the way to its end, as a person reads them; live, with the one that no step passed.
        state, reason: of the session.
    """

    branch: Branch
    tokens: int
    text: str
    state: str
    reason: str

    @property
    def note(self) -> str:
        """All but the text, in a line."""
        end = f"{self.state}{': ' + self.reason if self.reason else ''}"
        return f"{self.branch.name} · {self.tokens:,} tokens · {end}"


def outcome(session: Session, tree: BranchTree, branch: Branch) -> Outcome:
    """What a branch holds now."""
    view = session.timeline.snapshot()
    own = view.tokens(view.first, view.end)
    count = int(((own.branch == branch.id) & ~own.pad).sum())
    last = session.last_text(branch.id) if isinstance(session, Writing) else ""
    return Outcome(branch, count, _text(view, tree.line(branch.id), last), session.state.value, session.reason)


def _text(view: TimelineView, line: Line, last: str) -> str:
    """A sequence's tokens that went through the model, and the one behind them, as a person reads them."""
    columns = view.tokens(view.first, view.end)
    keep = line_rows(columns, line, view.stacks) & (columns.token_id >= 0) & (columns.sequence == 0)
    return join_texts([*(view.text(token) for token in columns.token_id[keep].tolist()), last])
