"""Random commands on live sessions: never stuck, and what a branch writes is what a plain run writes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from moetui.routing import UsageError
from moetui.routing.events import GenerationSettings, RunState
from tests.session.live_sessions import PATIENCE, Live, Make

PROMPT = "some words"
SETTINGS = GenerationSettings(max_new_tokens=14, temperature=2.0, seed=5)

# Plain, sliding window, mamba, gated delta rule, an own class of cache, convolutions.
FAMILIES = ("mixtral", "gpt_oss", "jamba", "qwen3_next", "minimax", "lfm2_moe")
COMMANDS = 170
REFUSALS = ("a run is going on", "the run is about to stop")


class Person:
    """Gives random commands, mostly without waiting, and checks what stands in the timeline when all is quiet.

    Args:
        session: a session whose first run has ended: nothing is ever changed in it, so that every later branch must
            write the same tokens with the same routing.
    """

    def __init__(self, session: Live, seed: int) -> None:
        self.session, self.random = session, random.Random(seed)
        self.given = 0
        view = session.timeline.snapshot()
        tokens, block = view.tokens(0, view.end), view.routing(0, view.end)
        self.end = view.end
        self.truth = {
            int(position): (int(token), indices.tobytes(), logits.tobytes())
            for position, token, indices, logits in zip(tokens.position, tokens.token_id, block.indices, block.logits)
        }

    def act(self) -> None:
        session, view = self.session, self.session.timeline.snapshot()
        token = self.random.randrange(view.end)
        commands: list[Any] = [
            session.pause,
            session.resume,
            session.step,
            lambda: session.step(3),
            session.step_layer,
            session.step_layer,
            lambda: session.run_to(self.random.randrange(self.end)),
            session.finish,
            lambda: session.rewind(token),
            lambda: session.rewind(token),
            lambda: session.fork(token),
            lambda: session.switch_branch(self.random.choice(session.branches).id),
            lambda: session.switch_branch(self.random.choice(session.branches).id),
            session.stop,
            session.restart,
            lambda: session.generate(PROMPT, SETTINGS),
            lambda: session.call(lambda *_: self.random.random()).result(PATIENCE),
            lambda: session.set_interventions([]),
            self.breakpoint,
            self.rest,
        ]
        command = self.random.choice(commands)
        self.given += 1
        refused = ""
        try:
            command()
        except UsageError as error:
            refused = error.message
        assert refused in ("", *REFUSALS)

    def breakpoint(self) -> None:
        for point in list(self.session.breakpoints)[1:]:
            self.session.remove_breakpoint(point.id)
        self.session.add_breakpoint(f"position == {self.random.randrange(self.end)}", temporary=True)

    def rest(self) -> None:
        """Until the session waits for a command."""
        assert self.session.wait(PATIENCE), (self.session.state, self.session.reason)
        if self.random.random() < 0.2:
            self.check()

    def check(self) -> None:
        """Every token of every branch is the one that the first run had there, chosen by the same experts."""
        self.session.flush()
        view = self.session.timeline.snapshot()
        tokens, block = view.tokens(0, view.end), view.routing(0, view.end)
        for row in range(view.end):
            found = (int(tokens.token_id[row]), block.indices[row].tobytes(), block.logits[row].tobytes())
            assert found == self.truth[int(tokens.position[row])], (row, int(tokens.branch[row]))
        for branch in self.session.branches:
            own = tokens.position[tokens.branch == branch.id].tolist()
            assert own == list(range(branch.fork_position, branch.fork_position + len(own))), branch

    def finish(self) -> None:
        """Let everything end, and look at it."""
        session = self.session
        for point in session.breakpoints:
            session.remove_breakpoint(point.id)
        session.finish()
        while session.wait(PATIENCE) and session.state is RunState.PAUSED:
            session.finish()
        assert session.state is RunState.FINISHED, session.reason
        self.check()


@pytest.mark.parametrize("name", FAMILIES)
def test_random_commands(live: Make, name: str) -> None:
    session = live(PROMPT, settings=SETTINGS, model=f"random:{name}")
    person = Person(session, seed=sum(map(ord, name)))
    for _ in range(COMMANDS):
        person.act()
    person.finish()
    assert len(session.branches) > 5
    session.rewind(0)
    session.resume()
    session.settle()
    assert len(session.ids()) == person.end


@pytest.mark.parametrize("seed", range(6))
def test_closing_amid_random_commands(live: Make, seed: int) -> None:
    session = live(PROMPT, settings=replace(SETTINGS, max_new_tokens=40), model=f"random:{FAMILIES[seed]}")
    person = Person(session, seed)
    for _ in range(5 + 4 * seed):
        person.act()
    session.close()
    session._thread.join(PATIENCE)  # longer than closing waits, where the machine is busy
    assert not session._thread.is_alive()
