"""What is said when a person leaves: what would be lost; and has left: what was asked for, and did not come."""

from __future__ import annotations

from moetui.routing import ModelError, MoetuiError
from moetui.routing.errors import incomplete_recording
from moetui.routing.events import RunState
from moetui.session import Accountable, Losable, Session

LONG = 30.0  # s of the model's work that are worth a second thought
LONG_SPAN = 300.0  # s from the first to the last of what a person did


def shortfall(session: Session, hint: str, refused: MoetuiError | None) -> MoetuiError | None:
    """Why there was never a model, or never a run of the prompt given; else what the recording lacks.

    Args:
        session: as it was left; it may be closed.
        hint: what was said to do about its state.
        refused: what the prompt was refused with, where a script ran before it.
    """
    told = session if isinstance(session, Accountable) else None
    if session.state is RunState.FAILED and (session.info is None or not session.branches):
        error = None if told is None else told.error
        if isinstance(error, MoetuiError):
            return error
        return ModelError(session.reason or "the model could not be loaded", hint)
    if refused is not None:
        return refused
    if told is not None and (problem := told.recording[1]):
        return incomplete_recording(problem)
    return None


def at_stake(session: Session) -> str:
    """What leaving would lose that took long, in words; empty where a file has it, or where it is soon made again."""
    if not isinstance(session, Losable):
        return ""
    view, first = session.timeline.snapshot(), session.kept_until
    first = max(first, view.first)
    if first >= view.end:
        return ""
    steps = view.steps()
    mine = steps.first_token >= first
    if not mine.any():
        return ""
    started, took = steps.started[mine], steps.duration[mine] / 1e3
    work = float(took[took > 0].sum())
    span = float(started.max() - started.min()) + work
    if work < LONG and not span >= LONG_SPAN:
        return ""
    minutes = span / 60
    time = f"{minutes:.0f} minutes" if minutes >= 2 else f"{span:.0f} s"
    return f"{view.end - first:,} tokens, {time} of work"
