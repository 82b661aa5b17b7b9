"""``MoEAnalyzer``: the numbers of what a model did, without a screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moetui.debugger.core import MoEDebugger
from moetui.routing import TimelineView, UsageError, join_texts
from moetui.routing.events import Finding
from moetui.routing.stats import compute_stats
from moetui.routing.timeline import read_ids


class MoEAnalyzer:
    """Counts the routing of everything that a model does within ``trace``.

    Args:
        model: any transformers model with routers.
        tokenizer: for the text of tokens.
        options: as ``MoEDebugger`` takes them.

    Raises:
        ModelError: the model has no router.
    """

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any) -> None:
        self._debugger = MoEDebugger(model, tokenizer, **options)
        self._traced = False

    def __repr__(self) -> str:
        info = self._debugger.info
        return f"<analyzer of {info.architecture}, {len(info.sites)} sites>"

    @contextmanager
    def trace(self) -> Iterator[MoEDebugger]:
        """Within it the model's forward passes are captured; no hook is left behind. Traces add up."""
        with self._debugger:
            self._traced = True
            yield self._debugger

    def get_routing_stats(self) -> dict[str, Any]:
        """The document of ``moetui stats --json`` over all that was traced, with findings of one's own diagnostics.

        Where more tokens were traced than ``buffer_tokens``, it is over the newest of them, and a finding says so.

        Raises:
            UsageError: nothing was traced yet.
        """
        if not self._traced:
            raise UsageError("nothing was traced yet", "with analyzer.trace(): model.generate(...)")
        plugins = self._debugger.plugins
        problems = [
            Finding("plugin_failed", "warning", line, "update or remove it") for line in plugins.load_entry_points()
        ]
        view = self._debugger.timeline.snapshot()
        if view.first:
            message = f"the first {view.first:,} tokens are no longer held, and not counted"
            problems.append(Finding("tokens_left", "warning", message, "a larger buffer_tokens holds more"))
        stats = compute_stats(
            view,
            self._debugger.info,
            text=text_of(view),
            interventions=self._debugger.interventions.current,
            findings=[*self._debugger.findings, *problems],
            diagnostics=plugins.diagnostics,
        )
        layers = self._debugger.capture.options.layers
        if layers is not None:
            unwatched = {site.name for site in self._debugger.info.sites if site.layer not in layers}
            stats["findings"] = [
                found for found in stats["findings"] if found["kind"] != "site_silent" or found["site"] not in unwatched
            ]
        return stats


def text_of(view: TimelineView, branch: int | None = None) -> str:
    """Readable text of the tokens held that are no padding; of one branch's own tokens if ``branch`` is given."""
    tokens = view.tokens(view.first, view.end)
    keep = ~tokens.pad & (tokens.token_id >= 0)
    if branch is not None:
        keep &= tokens.branch == branch
    return join_texts([view.text(token) for token in read_ids([(tokens, keep)])])
