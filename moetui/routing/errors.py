"""Errors that a person can cause: one line, a hint, an exit status."""

from __future__ import annotations


class MoetuiError(Exception):
    """Something a person can put right.

    Args:
        message: one line, no full stop needed, no traceback wanted.
        hint: what to do about it, one line; empty if there is nothing to say. A traceback ends with it.

    Attributes:
        exit_status: what the command line exits with (1: it failed, 2: the call was wrong).
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.__notes__ = [f"hint: {hint}"]  # before Python 3.11 there is nothing that shows it


class UsageError(MoetuiError):
    """The call itself was wrong."""

    exit_status = 2


class ModelError(MoetuiError):
    """A model could not be found, loaded, hooked or run."""


class UnsupportedError(MoetuiError):
    """An architecture, a site or a session cannot do what was asked; the message gives the reason."""


class TraceError(MoetuiError):
    """A file is no trace, is damaged beyond use, or cannot be written."""


REMOVED = "was removed while it was written"
"""How it is said of a recording that its file is gone."""


def incomplete_recording(problem: str) -> TraceError:
    """The error of a recording that broke off, for the reason ``problem``."""
    rest = "nothing of it is left" if problem.endswith(REMOVED) else "what was written until then can be read"
    return TraceError(f"the recording is incomplete: {problem}", rest)


class QueryError(UsageError):
    """A filter or breakpoint expression does not parse.

    Args:
        message: what is wrong.
        position: index of the offending character in the expression.
        hint: what would be valid there.
    """

    def __init__(self, message: str, position: int = 0, hint: str = "") -> None:  # copies begin with a message
        super().__init__(message, hint)
        self.position = position
