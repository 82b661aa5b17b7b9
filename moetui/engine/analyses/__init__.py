"""Analyses of a loaded model by name, one a file. Importing this package imports no torch; running one does.

Their passes leave nothing on the model, and what they answer with is in ``moetui.routing.analyses``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moetui.routing import UsageError

if TYPE_CHECKING:
    from moetui.engine.analyses.subject import Subject

__all__ = ["ANALYSES", "Analysis", "find_analysis", "run_analysis"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """An analysis that can be asked for: ``moetui.engine.analyses.<name>.<name>(subject, **arguments)``.

    Attributes:
        required: arguments that it cannot do without.
        optional: arguments that it may get besides.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


ANALYSES: Mapping[str, Analysis] = {
    analysis.name: analysis
    for analysis in (
        Analysis("token_impact", ("branch", "positions"), ("sequence", "replacement")),
        Analysis("router_decomposition", ("branch", "position", "site"), ("sequence",)),
        Analysis("expert_similarity", ("site",), ("by", "branch", "sequence")),
        Analysis("ablation", ("branch", "site", "expert"), ("sequence",)),
        Analysis("attention", ("branch", "position"), ("sequence",)),
        Analysis("attribution", ("branch", "position"), ("sequence", "most")),
        Analysis("time_by_part", ("branch",), ("sequence", "steps")),
    )
}


def find_analysis(name: str, arguments: Mapping[str, Any]) -> Analysis:
    """The analysis of this name, if it takes these arguments.

    Raises:
        UsageError: no such analysis, an argument that it does not take, or one that is missing.
    """
    analysis = ANALYSES.get(name)
    if analysis is None:
        near = difflib.get_close_matches(name, ANALYSES, n=1)
        raise UsageError(
            f"there is no analysis {name}", f"did you mean {near[0]}?" if near else f"one of {', '.join(ANALYSES)}"
        )
    known = (*analysis.required, *analysis.optional)
    odd = [argument for argument in arguments if argument not in known]
    if odd:
        raise UsageError(f"{name} takes no {odd[0]}", f"it takes {', '.join(known)}")
    missing = [argument for argument in analysis.required if argument not in arguments]
    if missing:
        raise UsageError(f"{name} needs {missing[0]}", f"it takes {', '.join(known)}")
    return analysis


def run_analysis(analysis: Analysis, subject: Subject, arguments: Mapping[str, Any]) -> Any:
    """Run an analysis in this thread, which must be the one that runs the model.

    Raises:
        UsageError: a token, site or expert that there is not.
        UnsupportedError: an architecture that it cannot be done on; the message says why.
        ModelError: the model failed or ran out of memory.
    """
    module = importlib.import_module(f"moetui.engine.analyses.{analysis.name}")
    return getattr(module, analysis.name)(subject, **arguments)
