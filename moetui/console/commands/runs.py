"""Commands that run prompts and control the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from rich.text import Text

from moetui.console.context import Context
from moetui.console.draw import lines, text
from moetui.console.kinds import TEXT, Flag, MaybeToken, Prompt, Token, integer, real
from moetui.console.needs import GENERATE, GO_BACK, REWIND, SEND, STEP, STEP_LAYER
from moetui.console.outcome import outcome
from moetui.console.registry import command
from moetui.console.result import Result
from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings, RunState
from moetui.routing.kept import before_token
from moetui.session import Capability, Rewindable, Sendable

GROUP = "runs"
_AT_REST = (RunState.READY, RunState.FINISHED, RunState.FAILED)

NewTokens = Annotated[int | None, replace(integer(1), about="tokens to generate at most")]
Temperature = Annotated[float | None, replace(real(0, above=True), about="sample with this temperature")]
TopP = Annotated[float | None, replace(real(0, 1, above=True), about="sample from the nucleus of this mass")]
TopK = Annotated[int | None, replace(integer(1), about="sample from this many candidates")]
Seed = Annotated[int | None, replace(integer(0, 2**63 - 1), about="repeats a sampled run exactly")]


@command(GROUP, GENERATE)
def generate(
    console: Context,
    prompt: Prompt,
    *,
    max_new_tokens: NewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k_sampling: TopK = None,
    seed: Seed = None,
    greedy: Flag = False,
) -> Result:
    """Run a prompt; what is not said is as in 'config'.

    In a script it returns when the run is over, else at once.

    Args:
        greedy: take the likeliest token each time, whatever 'config' says.

    Examples:
        generate Once there was
        generate "Once there was" -n 24 --temperature 0.8 --seed 1
    """
    settings = _settings(
        console.settings,
        greedy,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k_sampling=top_k_sampling,
        seed=seed,
    )
    before = len(console.session.branches)
    console.session.generate(prompt, settings)
    if not console.blocking:
        return Result((Text("running"),), {"state": RunState.RUNNING.value})
    console.await_run()
    return _outcome(console, before)


@command(GROUP, STEP)
def continue_(console: Context) -> Result:
    """Go on until the end or the next breakpoint; a recording plays on."""
    return _commanded(console, console.session.resume)


@command(GROUP, STEP)
def step(console: Context, count: Annotated[int, integer(-100_000, 100_000)] = 1) -> Result:
    """Let steps pass and pause again.

    Args:
        count: how many; a negative number steps a recording back.

    Examples:
        step
        step 5
    """
    if count < 0 and Capability.SEEK not in console.session.capabilities:
        raise UsageError("count: a model does not run backwards", "'rewind' takes it back, where that is possible")
    return _commanded(console, lambda: console.session.step(count) if count else None)


@command(GROUP, STEP_LAYER)
def step_layer(console: Context) -> Result:
    """Let the model go on to the next router and pause there."""
    return _commanded(console, console.session.step_layer)


@command(GROUP, STEP)
def pause(console: Context) -> Result:
    """Pause before the next step; a recording stands still."""
    return _commanded(console, console.session.pause)


@command(GROUP, SEND)
def run_to(console: Context, position: Annotated[int, integer(0)]) -> Result:
    """Go on until the token at this position of its sequence is the next to go through the model, and pause there.

    Args:
        position: counted from the prompt's first token, 0.

    Examples:
        run_to 20
    """
    return _commanded(console, lambda: _sendable(console).run_to(position))


@command(GROUP, SEND)
def finish(console: Context) -> Result:
    """Go on to the run's end, past every breakpoint; their hits are counted."""
    return _commanded(console, _sendable(console).finish)


@command(GROUP, SEND)
def restart(console: Context) -> Result:
    """Run the last prompt again from its start, with its settings; a run that is going on is stopped first."""
    _sendable(console).restart()
    console.settle()
    return _state(console)


@command(GROUP, STEP)
def stop(console: Context) -> Result:
    """End the run; what was generated stays."""
    return _commanded(console, console.session.stop)


@command(GROUP, GO_BACK)
def rewind(console: Context, token: Token) -> Result:
    """Take the run back, so that this token is the next to go through the model; a recording shows it next.

    Examples:
        rewind 12
        rewind -3
    """
    place = f"before token {token}"
    if isinstance(console.session, Rewindable):
        place = before_token(console.view, token)
        console.session.rewind(token)
        console.settle()
    else:
        console.session.seek(token - 1)
    return Result((text(f"{place}; continue goes on from there"),), {"token": token})


@command(GROUP, REWIND)
def fork(
    console: Context,
    token: MaybeToken = None,
    *,
    name: Annotated[str, TEXT] = "",
    max_new_tokens: NewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k_sampling: TopK = None,
    seed: Seed = None,
    greedy: Flag = False,
) -> Result:
    """Run on from an earlier token on a branch of its own, under the interventions now in force.

    Where the run is paused the branch waits before that token for 'continue', so that the routing can be changed first.

    Args:
        token: the first that the branch runs itself; the one that a breakpoint stopped at, or the newest.
        name: of the branch, as shown and typed.
        greedy: take the likeliest token each time.

    Examples:
        fork
        fork 12 --name without-3
    """
    given: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k_sampling": top_k_sampling,
        "seed": seed,
    }
    changed = greedy or any(value is not None for value in given.values())
    before = len(console.session.branches)
    settings = _settings(console.settings, greedy, **given) if changed else None
    at = console.place if token is None else token
    place = before_token(console.view, at)
    if console.session.state is RunState.PAUSED:
        _rewindable(console).fork(at, settings, name, paused=True)
        console.settle()
        return Result((text(f"forked {place}; continue runs it on"),), {"token": at, "paused": True})
    _rewindable(console).fork(at, settings, name)
    if not console.blocking:
        return Result((text(f"forked {place}"),), {"token": at})
    console.await_run()
    return _outcome(console, before)


def _rewindable(console: Context) -> Rewindable:
    assert isinstance(console.session, Rewindable)  # the registry has checked the need
    return console.session


def _settings(base: GenerationSettings, greedy: bool, **given: Any) -> GenerationSettings:
    if greedy:
        base = replace(base, temperature=None, top_p=None, top_k_sampling=None)
        if any(given.get(name) is not None for name in ("temperature", "top_p", "top_k_sampling")):
            raise UsageError("--greedy and a sampling option contradict each other", "give one of them")
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _outcome(console: Context, before: int) -> Result:
    """What a finished run came to."""
    branches_ = list(console.session.branches)
    session = console.session
    if len(branches_) <= before:
        return _state(console)
    found = outcome(session, console.tree, branches_[-1])
    data = {
        "branch": found.branch.id,
        "tokens": found.tokens,
        "text": found.text,
        "state": found.state,
        "reason": found.reason,
    }
    return Result((*lines(found.text), text(found.note, "dim")), data)


def _commanded(console: Context, act: Callable[[], None]) -> Result:
    """What a command to a run led to; where none goes on, that it led to nothing."""
    idle = Capability.GENERATE in console.session.capabilities and console.session.state in _AT_REST
    act()
    console.settle()
    told = _state(console)
    if not idle:
        return told
    return Result((*told.renderables, Text("nothing goes on: 'generate' begins a run", "dim")), told.data)


def _state(console: Context) -> Result:
    state, reason = console.session.state, console.session.reason
    shown = f"{state.value}{': ' + reason if reason else ''}"
    return Result((text(shown),), {"state": state.value, "reason": reason})


def _sendable(console: Context) -> Sendable:
    assert isinstance(console.session, Sendable)  # the registry has checked the need
    return console.session
