"""Errors that a person can cause, where a script meets them."""

from __future__ import annotations

import pickle
import sys
import traceback

import pytest

from moetui.routing import MoetuiError, QueryError, TraceError, UsageError


@pytest.mark.parametrize(
    "error", [UsageError("no such", "try that"), TraceError("gone"), QueryError("what is that", 4, "a number")]
)
def test_they_come_back_from_other_processes_whole(error: MoetuiError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == error.message
    assert vars(again) == vars(error)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tracebacks have no notes")
def test_a_traceback_ends_with_the_hint() -> None:
    assert traceback.format_exception_only(UsageError("no such", "try that"))[-1] == "hint: try that\n"
    assert len(traceback.format_exception_only(UsageError("no such"))) == 1
