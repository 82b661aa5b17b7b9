"""Live runs taken back and forked: what is shared, what is chosen anew, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moetui import open_trace
from moetui.routing import UsageError
from moetui.routing.events import BranchAdded, GenerationSettings, Notice, RunState
from moetui.routing.interventions import BanExperts, ForceExperts
from moetui.session import Capability, Rewindable
from tests.releases import since_5_21
from tests.session.live_sessions import Live, Make

PROMPT = "some words to begin with"
GREEDY = GenerationSettings(max_new_tokens=12)
SAMPLED = GenerationSettings(max_new_tokens=12, temperature=2.0, seed=7)


def length_of_prompt(session: Live) -> int:
    return int(session.timeline.snapshot().steps().num_tokens[0])


def routing(session: Live, branch: int) -> dict[int, Any]:
    """Experts and logits of a branch's own tokens, by position."""
    view = session.timeline.snapshot()
    tokens, block = view.tokens(0, view.end), view.routing(0, view.end)
    rows = np.flatnonzero(tokens.branch == branch)
    return {int(tokens.position[row]): (block.indices[row], block.logits[row]) for row in rows}


def same_routing(session: Live, branch: int, other: int) -> bool:
    here, there = routing(session, branch), routing(session, other)
    return all(np.array_equal(a, b, equal_nan=True) for at in here for a, b in zip(here[at], there[at]))


def own(session: Live, number: int) -> list[int]:
    """Token ids of a branch's own tokens."""
    return session.ids(number)


class TestRewind:
    def test_what_stands_within_a_step_is_told_by_the_number_that_it_will_have(self, live: Make) -> None:
        session = live(PROMPT)
        end = session.timeline.snapshot().end
        session.rewind(end - 3)
        session.settle()
        session.step_layer()
        session.settle()
        assert session.reason == f"before L0 · token {end}"
        assert session.underway is not None
        assert session.underway.first == end
        session.step(2)
        session.settle()
        begin = session.timeline.snapshot().end
        session.rewind(0)
        session.settle()
        session.step_layer()
        session.settle()
        assert session.reason == f"before L0 · tokens {begin} to {begin + length_of_prompt(session) - 1}"

    @pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
    @pytest.mark.parametrize("model", ["random:mixtral", "random:qwen3_next"])
    def test_going_on_unchanged_repeats_the_run(self, live: Make, model: str, settings: GenerationSettings) -> None:
        session = live(PROMPT, settings=settings, model=model)
        assert isinstance(session, Rewindable)
        assert Capability.REWIND in session.capabilities
        whole, prompt = own(session, 0), length_of_prompt(session)
        token = prompt + 5
        session.rewind(token)
        assert session.state is RunState.PAUSED
        assert session.reason == f"before token {token}"
        session.settle()
        assert session.state is RunState.PAUSED
        branch = session.branches[1]
        assert (branch.parent, branch.run, branch.fork_position, branch.first_token) == (0, 0, token, len(whole))
        assert own(session, 1) == [], "it has not gone through the model yet"
        session.resume()
        session.settle()
        assert own(session, 1) == whole[token:]
        assert own(session, 0) == whole, "what came after stays as the branch it was"
        assert same_routing(session, 1, 0)
        assert session.log.of(BranchAdded)[1].settings == session.log.of(BranchAdded)[0].settings
        assert session.reason == "12 tokens"

    def test_a_token_of_the_prompt_takes_the_prompt_with_it(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        session.rewind(3)
        assert session.reason == "before the prompt, which token 3 is of"
        session.resume()
        session.settle()
        assert own(session, 1) == own(session, 0)
        assert session.branches[1].fork_position == 0
        assert same_routing(session, 1, 0)

    def test_while_it_runs_and_within_a_step(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.run_to(30)
        session.log.wait_state(RunState.PAUSED, 2)
        session.step_layer()
        session.log.wait_state(RunState.PAUSED, 3)
        session.flush()
        session.rewind(25)
        session.settle()
        session.step(2)
        session.settle()
        assert (session.state, session.reason) == (RunState.PAUSED, "stepped")
        assert list(routing(session, 1)) == [25, 26]
        assert own(session, 0)[25:27] == own(session, 1)
        session.finish()
        session.settle()
        assert session.state is RunState.FINISHED

    def test_commands_that_follow_at_once_are_not_lost(self, live: Make) -> None:
        session = live(PROMPT)
        for number in range(6):
            session.rewind(25 + number)
            session.resume()
            session.settle()
            assert session.state is RunState.FINISHED
            assert own(session, number + 1) == own(session, 0)[25 + number :]
        session.rewind(30)
        session.rewind(26)
        session.step()
        session.settle()
        assert session.state is RunState.PAUSED
        assert list(routing(session, session.branches[-1].id)) == [26]
        session.stop()
        session.settle()
        assert (session.state, session.reason) == (RunState.FINISHED, "stopped")

    def test_what_is_chosen_anew_obeys_what_is_in_force_now(self, live: Make) -> None:
        session = live(PROMPT)
        prompt = length_of_prompt(session)
        session.rewind(prompt + 4)
        session.set_interventions([ForceExperts((1, 2))])
        session.resume()
        session.settle()
        experts = np.sort([indices for indices, _ in routing(session, 1).values()], -1)
        assert (experts == (1, 2)).all()
        assert min(routing(session, 1)) == prompt + 4
        session.set_interventions([])
        session.rewind(prompt + 4)
        session.resume()
        session.settle()
        assert own(session, 2) == own(session, 0)[prompt + 4 :]
        assert same_routing(session, 2, 0)

    @pytest.mark.parametrize("model", ["random:mixtral", pytest.param("random:jamba", marks=since_5_21)])
    def test_what_went_before_is_as_it_was_under_the_interventions_of_then(self, live: Make, model: str) -> None:
        session = live(model=model)
        session.set_interventions([BanExperts((0, 1, 2))])
        session.generate(PROMPT, SAMPLED)
        session.settle()
        session.set_interventions([])
        prompt = length_of_prompt(session)
        session.rewind(prompt + 7)
        session.set_interventions([BanExperts((0, 1, 2))])
        session.resume()
        session.settle()
        assert own(session, 1) == own(session, 0)[prompt + 7 :]
        assert same_routing(session, 1, 0), "the tokens before went through under the ban"
        session.set_interventions([])
        session.rewind(prompt + 7)
        session.resume()
        session.settle()
        assert not same_routing(session, 2, 0)

    def test_a_rewound_branch_is_rewound_again(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED, model="random:lfm2_moe")
        whole = own(session, 0)
        session.rewind(25)
        session.resume()
        session.settle()
        view = session.timeline.snapshot()
        session.rewind(view.end - 3)
        session.resume()
        session.settle()
        assert session.branches[2].parent == 1
        assert own(session, 2) == whole[-3:]
        assert same_routing(session, 2, 0)

    def test_an_encoder_reads_its_text_again(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED, model="random:switch_transformers")
        view = session.timeline.snapshot()
        end = view.end
        with pytest.raises(UsageError, match="went through the encoder"):
            session.rewind(0)
        session.rewind(end - 4)
        session.resume()
        session.settle()
        assert own(session, 1) == own(session, 0)[-4:]
        assert session.timeline.snapshot().end == end + 4, "passes that are repeated are not shown again"

    def test_wrong_tokens(self, live: Make) -> None:
        session = live()
        with pytest.raises(UsageError, match="token 0 is not held"):
            session.rewind(0)
        session.generate(PROMPT)
        session.settle()
        for token in (-1, 999):
            with pytest.raises(UsageError, match=f"token {token} is not held"):
                session.rewind(token)
        assert session.state is RunState.FINISHED
        assert len(session.branches) == 1

    def test_before_there_is_a_model(self, live: Make) -> None:
        session = live(opened=False)
        with pytest.raises(UsageError, match="not loaded yet"):
            session.rewind(0)


class TestFork:
    def test_it_runs_on_at_once(self, live: Make) -> None:
        session = live(PROMPT)
        session.fork(27, name="mine")
        session.settle()
        assert session.state is RunState.FINISHED
        assert session.branches[1].name == "mine"
        assert own(session, 1) == own(session, 0)[27:]
        assert session.log.states()[-2:] == [RunState.RUNNING, RunState.FINISHED]

    def test_other_settings(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        session.fork(27, GenerationSettings(max_new_tokens=30))
        session.settle()
        prompt = length_of_prompt(session)
        assert len(routing(session, 1)) == prompt + 30 - 1 - 27, "the length counts from the prompt"
        again = GenerationSettings(max_new_tokens=12, temperature=2.0, seed=8)
        for _ in range(2):
            session.fork(27, again)
            session.settle()
        assert own(session, 2) == own(session, 3), "a seed repeats a fork"
        assert own(session, 2) != own(session, 0)[27:]
        session.fork(27, SAMPLED)
        session.settle()
        assert own(session, 4) == own(session, 0)[27:], "the same seed goes on drawing as the run did"

    def test_names(self, live: Make) -> None:
        session = live(PROMPT)
        for _ in range(2):
            session.fork(27)
            session.settle()
        assert [branch.name for branch in session.branches] == ["run 0", "run 0 @27", "run 0 @27 (2)"]
        with pytest.raises(UsageError, match="there is a branch called run 0 already"):
            session.fork(27, name="run 0")

    def test_settings_that_leave_nothing_to_write(self, live: Make) -> None:
        session = live(PROMPT)
        with pytest.raises(UsageError, match="tokens are written there already, of 2"):
            session.fork(30, GenerationSettings(max_new_tokens=2))
        with pytest.raises(UsageError):
            session.fork(30, GenerationSettings(max_new_tokens=0))
        assert len(session.branches) == 1

    def test_a_later_run_counts_as_one_of_its_own(self, live: Make) -> None:
        session = live(PROMPT)
        session.fork(27)
        session.settle()
        session.generate("other words", GREEDY)
        session.settle()
        assert [(branch.run, branch.name) for branch in session.branches][-1] == (2, "run 2"), "what --branch 2 names"
        session.restart()
        session.settle()
        assert own(session, 3) == own(session, 2)
        session.fork(26)
        session.settle()
        assert (session.branches[4].parent, session.branches[4].run) == (0, 0)
        assert own(session, 4) == own(session, 0)[26:]
        session.restart()
        session.settle()
        assert own(session, 5) == own(session, 0), "the prompt of the branch that ran last"

    def test_run_to_and_finish_on_a_branch(self, live: Make) -> None:
        session = live(PROMPT)
        session.add_breakpoint("position >= 29")
        session.rewind(24)
        session.run_to(27)
        session.settle()
        assert session.reason == "before position 27"
        assert list(routing(session, 1)) == [24, 25, 26]
        session.resume()
        session.settle()
        assert session.reason.startswith("position >= 29")
        session.finish()
        session.settle()
        assert session.state is RunState.FINISHED
        assert own(session, 1) == own(session, 0)[24:]

    def test_the_recording_has_the_branches(self, live: Make, tmp_path: Any) -> None:
        session = live(PROMPT, record=tmp_path / "run.msgpack")
        session.rewind(27)
        session.settle()
        session.resume()
        session.settle()
        session.close()
        trace = open_trace(tmp_path / "run.msgpack")
        added = [each.event.branch for each in trace.events if isinstance(each.event, BranchAdded)]
        assert [(branch.parent, branch.fork_position) for branch in added] == [(None, 0), (0, 27)]
        view = trace.timeline
        assert view.tokens(0, view.end).branch.tolist() == session.timeline.snapshot().tokens(0, 999).branch.tolist()
        trace.close()


def test_old_branches_let_go_of_their_caches(live: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr("moetui.session.lineage._KEPT_BYTES", 0)
    session = live(PROMPT, settings=SAMPLED)
    for _ in range(3):
        session.generate(PROMPT, GREEDY)
        session.settle()
    kept = [ran.track.nbytes for ran in session._worker.runs.lineage._ran.values()]
    assert [size > 0 for size in kept] == [False, False, False, True]
    session.fork(27)
    session.settle()
    assert own(session, 4) == own(session, 0)[27:], "it repeats the passes instead"
    assert same_routing(session, 4, 0)


def test_what_cannot_be_exact_is_told(live: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr("moetui.engine.track.MOST_REPEATS", 2)
    monkeypatch.setattr("moetui.session.lineage._KEPT_BYTES", 0)
    session = live(PROMPT)
    session.generate(PROMPT, GREEDY)
    session.settle()
    session.fork(30)
    session.settle()
    assert any("last digits" in notice.message for notice in session.log.of(Notice))
    assert own(session, 2) == own(session, 0)[30:]


def test_a_model_that_does_not_repeat_itself_is_told(live: Make) -> None:
    session = live(PROMPT, model="random:jamba")
    prompt = length_of_prompt(session)

    def notices() -> list[str]:
        return [notice.message for notice in session.log.of(Notice) if "repeat itself" in notice.message]

    session.fork(prompt + 2)
    session.settle()
    assert notices() == []

    def shift(_: Any, __: Any, output: Any) -> None:
        output.logits.copy_(output.logits.roll(1, -1))

    hook = session.call(lambda model, _: model.register_forward_hook(shift)).result(30.0)
    session.fork(prompt + 2)
    session.settle()
    hook.remove()
    assert len(notices()) == 1
