"""One run without a screen: what ``moetui record`` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from moetui.routing import ModelError, ModelInfo, TimelineView, join_texts
from moetui.routing.branches import line_rows
from moetui.routing.events import Event, Finding, RunState
from moetui.routing.interventions import Intervention
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions


@dataclass(frozen=True, slots=True)
class HeadlessRun:
    """What a run left behind.

    Attributes:
        info: the model.
        view: the tokens held.
        text: of the run's tokens that went through the model, prompt and all, as a person reads it.
        reason: how the run ended.
        nbytes: of the recording; 0 without one.
        problem: what ended the recording early, or is missing in it; empty if nothing is.
    """

    info: ModelInfo
    view: TimelineView
    prompt: str
    text: str
    reason: str
    interventions: tuple[Intervention, ...]
    findings: tuple[Finding, ...]
    nbytes: int = 0
    problem: str = ""


def run_headless(
    options: LiveOptions,
    *,
    on_event: Callable[[Event], None] | None = None,
    prepare: Callable[[LiveSession], None] | None = None,
) -> HeadlessRun:
    """Load the model, run the prompt to its end, and close everything.

    The recording is closed properly in every case.

    Args:
        options: see ``LiveOptions``; ``prompt`` is what is run. It may be empty if ``prepare`` runs something itself.
        on_event: called with each event, in some thread; must be quick.
        prepare: called with the session before the run begins and with the model loaded.

    Raises:
        ModelError: the model could not be loaded or failed.
        UsageError: the prompt, a setting, an intervention or the recording's path will not do.
        KeyboardInterrupt: someone interrupted it.
    """
    session = LiveSession(replace(options, begin=False, linger=None), on_event=on_event)
    try:
        session.open()
        _await(session)
        if prepare is not None:
            prepare(session)
            _await(session)
        if options.prompt or prepare is None:
            session.generate(options.prompt, options.settings)
            _await(session)
        session.flush()
        return _result(session, options)
    finally:
        session.close()


def _await(session: LiveSession) -> None:
    session.wait()
    while session.state is RunState.PAUSED:  # at a breakpoint: its hit was told, and nobody is there to look
        session.resume()
        session.wait()
    if session.state is RunState.FAILED:
        error = session.error or ModelError(session.reason, session.hint)
        raise error


def _result(session: LiveSession, options: LiveOptions) -> HeadlessRun:
    info = session.info
    assert info is not None
    view = session.timeline.snapshot()
    tokens = view.tokens(view.first, view.end)
    tree = session.tree
    line = () if tree.current is None else tree.line(tree.current)
    keep = line_rows(tokens, line, view.stacks) & (tokens.token_id >= 0)
    nbytes, problem = session.recording
    lost = [finding for finding in session.findings if finding.loses_steps]
    if lost and not problem:
        problem = lost[-1].message if len(lost) == 1 else f"{len(lost)} steps could not be recorded"
    return HeadlessRun(
        info=info,
        view=view,
        prompt=options.prompt,
        text=join_texts([view.text(int(token)) for token in tokens.token_id[keep]]),
        reason=session.reason,
        interventions=tuple(session.interventions),
        findings=tuple(session.findings),
        nbytes=nbytes,
        problem=problem,
    )
