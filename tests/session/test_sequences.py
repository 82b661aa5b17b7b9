"""A thousand short sequences of commands, each on a session of its own: never stuck, never other than a plain run."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moetui.debugger import MoEDebugger
from moetui.engine.generation import encode, generate, settle
from moetui.engine.loading import load
from moetui.engine.models import LoadRequest
from moetui.routing import UsageError
from moetui.routing.branches import line_rows
from moetui.routing.events import Branch, GenerationSettings, RunState
from moetui.session.live import LiveSession
from moetui.session.options import LiveOptions
from tests.session.live_sessions import PATIENCE

PROMPT = "some words"
SETTINGS = GenerationSettings(max_new_tokens=6, temperature=2.0, seed=5)

# Plain, sliding window, mamba, linear attention, an own class of cache; and the model that ships inside the package.
MODELS = ("random:mixtral", "random:gpt_oss", "random:jamba", "random:qwen3_next", "random:minimax", "demo")
SEQUENCES = 168  # of each: 1,008 together
QUITS = 0.25  # share of the sequences that end in closing the session wherever it stands
REFUSALS = ("the run is about to stop", "nothing has run yet", "the model is not loaded yet")

Truth = dict[int, tuple[int, bytes, bytes]]


def at_positions(debugger: MoEDebugger, keep: Callable[[Any], Any]) -> Truth:
    """Position → token, experts, router logits of the tokens kept."""
    view = debugger.timeline.snapshot()
    tokens, block = view.tokens(view.first, view.end), view.routing(view.first, view.end)
    return {
        int(tokens.position[row]): (
            int(tokens.token_id[row]),
            block.indices[row].tobytes(),
            block.logits[row].tobytes(),
        )
        for row in np.flatnonzero(keep(tokens)).tolist()
    }


def plain_run(debugger: MoEDebugger) -> Truth:
    """What the model does when nobody commands it: no session, no gate."""
    prompt = encode(debugger.tokenizer, PROMPT, SETTINGS)
    with debugger:
        generate(debugger.model, prompt, settle(SETTINGS, prompt, None))
        truth = at_positions(debugger, lambda tokens: np.ones(len(tokens.position), np.bool_))
    debugger.clear_buffer()
    return truth


class Sequence:
    """A few random commands on a fresh session, given as fast as they come or each after the last has taken effect."""

    def __init__(self, debugger: MoEDebugger, truth: Truth, chance: random.Random) -> None:
        self.debugger, self.truth, self.random = debugger, truth, chance
        options = LiveOptions(LoadRequest(""), prompt=PROMPT, settings=SETTINGS, paused=chance.random() < 0.7)
        self.session = LiveSession(options, debugger=debugger)
        self.given: list[str] = []

    def run(self) -> None:
        session = self.session
        session.open()
        if self.random.random() < 0.9:
            self.rest()
            session.step(self.random.randint(1, 2))
            self.rest()
        for _ in range(self.random.randint(2, 4)):
            self.act()
        if self.random.random() < QUITS:
            self.given.append("quit")
        else:
            self.complete()
        began = time.monotonic()
        session.close()
        # One second, and one for a machine that is busy with other things; a thread that nobody wakes never ends.
        assert time.monotonic() - began < 2.0, self.given
        session._thread.join(PATIENCE)
        assert not session._thread.is_alive(), self.given
        self.debugger.clear_buffer()

    def act(self) -> None:
        session, chance = self.session, self.random
        view = session.timeline.snapshot()
        commands: dict[str, Callable[[], Any]] = {
            "pause": session.pause,
            "resume": session.resume,
            "step": lambda: session.step(chance.randint(1, 3)),
            "step_layer": session.step_layer,
            "run_to": lambda: session.run_to(chance.randrange(len(self.truth))),
            "stop": session.stop,
            "restart": session.restart,
            "rest": self.rest,
        }
        if view.end > view.first and session.branches:
            token = chance.randrange(view.first, view.end)
            branch = chance.choice(session.branches).id
            commands |= {
                "rewind": lambda: session.rewind(token),
                "fork": lambda: session.fork(token),
                "fork and wait": lambda: session.fork(token, paused=True),
                "switch": lambda: session.switch_branch(branch),
            }
        going = [name for name in commands if name not in ("stop", "restart")]
        name = chance.choice([*commands, *going, *going])
        self.given.append(name)
        refused = ""
        try:
            commands[name]()
        except UsageError as error:
            refused = error.message
        assert refused in ("", *REFUSALS), self.given
        if chance.random() < 0.5:
            self.rest()

    def rest(self) -> None:
        assert self.session.wait(PATIENCE), (self.session.state, self.given)

    def to_the_end(self) -> None:
        self.session.finish()
        while self.session.wait(PATIENCE) and self.session.state is RunState.PAUSED:
            self.session.finish()
        assert self.session.state in (RunState.FINISHED, RunState.READY), (self.session.reason, self.given)

    def complete(self) -> None:
        """Some branch, wherever it was left, goes on to its end; and nothing anywhere is other than in a plain run."""
        self.to_the_end()
        session = self.session
        if session.branches:
            session.switch_branch(self.random.choice(session.branches).id)
            self.rest()
            self.to_the_end()
            tree = session.tree
            assert tree.current is not None
            line = tree.line(tree.current)
            assert at_positions(self.debugger, lambda tokens: line_rows(tokens, line)) == self.truth, self.given
        for branch in session.branches:
            found = at_positions(self.debugger, lambda tokens, number=branch.id: tokens.branch == number)
            assert found.items() <= self.truth.items(), (branch, self.given)
            assert self.own(branch) == list(range(branch.fork_position, branch.fork_position + len(found))), (
                branch,
                self.given,
            )

    def own(self, branch: Branch) -> list[int]:
        """Positions of a branch's own tokens, in the order in which they went through the model."""
        view = self.debugger.timeline.snapshot()
        tokens = view.tokens(view.first, view.end)
        positions: list[int] = tokens.position[tokens.branch == branch.id].tolist()
        return positions


@pytest.mark.parametrize("model", MODELS)
def test_sequences_of_commands(model: str) -> None:
    threads = set(threading.enumerate())
    loaded = load(LoadRequest(model), lambda *_: None)
    debugger = MoEDebugger(loaded.model, loaded.tokenizer, name=model)
    truth = plain_run(debugger)
    assert len(truth) > SETTINGS.max_new_tokens
    for number in range(SEQUENCES):
        Sequence(debugger, truth, random.Random(f"{model} {number}")).run()
    left = [thread for thread in threading.enumerate() if thread not in threads and thread.name.startswith("moetui")]
    assert not left
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())
