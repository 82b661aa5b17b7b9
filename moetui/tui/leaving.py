"""What is said when a person has left: what the command line asked for, and did not get."""

from __future__ import annotations

from moetui.routing import ModelError, MoetuiError
from moetui.routing.errors import incomplete_recording
from moetui.routing.events import RunState
from moetui.session import Accountable, Session


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
