"""The one language of the filter line, of ``find`` and of breakpoints."""

from __future__ import annotations

from moetui.routing.query.complete import Completion, complete, field_before
from moetui.routing.query.explain import Explanation, TermTruth
from moetui.routing.query.fields import FIELDS, FieldSpec
from moetui.routing.query.language import Needs, Query, match_all, parse

__all__ = [
    "FIELDS",
    "Completion",
    "Explanation",
    "FieldSpec",
    "Needs",
    "Query",
    "TermTruth",
    "complete",
    "field_before",
    "match_all",
    "parse",
]
