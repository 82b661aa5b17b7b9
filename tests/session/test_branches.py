"""Branches of a live session: gone back to, gone on with, named, put first, deleted, and told of in a recording."""

from __future__ import annotations

import csv
from collections import Counter
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moetui.console import Console
from moetui.routing import TimelineView, UsageError
from moetui.routing.branches import line_rows
from moetui.routing.events import BranchAdded, BranchChanged, GenerationSettings, RunState
from moetui.routing.interventions import ForceExperts
from moetui.session import Branched, Branching, ReplaySession
from moetui.trace import export, kept, open_trace, trace_stats
from tests.session.live_sessions import PATIENCE, Live, Make, begin_paused

PROMPT = "some words to begin with"
GREEDY = GenerationSettings(max_new_tokens=14)
SAMPLED = GenerationSettings(max_new_tokens=14, temperature=2.0, seed=7)

# Plain, sliding window, mamba, gated delta rule, an own class of cache, an encoder.
FAMILIES = ("mixtral", "gpt_oss", "jamba", "qwen3_next", "minimax", "switch_transformers")


def written(session: Live, branch: int) -> list[tuple[int, int, bytes]]:
    """Position, token and router logits of a branch's own tokens in the decoder, by position."""
    session.flush()
    view = session.timeline.snapshot()
    tokens, block = view.tokens(0, view.end), view.routing(0, view.end)
    decoder = np.array([view.stacks[stack] == "decoder" for stack in tokens.stack.tolist()])
    rows = np.flatnonzero((tokens.branch == branch) & decoder)
    return sorted((int(tokens.position[r]), int(tokens.token_id[r]), block.logits[r].tobytes()) for r in rows)


def gone(view: TimelineView) -> list[int]:
    """Tokens that nothing shows or counts."""
    return np.flatnonzero(view.tokens(0, view.end).pad).tolist()


def branches_in(table: str) -> dict[str, int]:
    """Tokens by branch in a CSV file."""
    rows = {(row["branch"], row["position"]) for row in csv.DictReader(StringIO(table))}
    return dict(sorted(Counter(branch for branch, _ in rows).items()))


def resumed(session: Live) -> None:
    session.resume()
    session.settle()


class TestSwitching:
    @pytest.mark.parametrize(("name", "settings"), [("mixtral", GREEDY), *((name, SAMPLED) for name in FAMILIES)])
    def test_a_branch_that_was_left_goes_on_as_if_it_had_not_been(
        self, live: Make, name: str, settings: GenerationSettings
    ) -> None:
        session = live(PROMPT, settings=settings, model=f"random:{name}")
        assert isinstance(session, Branching)
        whole = written(session, 0)
        begin_paused(session, lambda: session.generate(PROMPT, settings))
        session.step(5)
        session.settle()
        left = written(session, 1)
        assert 0 < len(left) < len(whole)
        end = session.timeline.snapshot().end
        session.fork(end - 2, name="aside")  # leaves run 1 in its middle
        session.settle()
        session.switch_branch(1)
        session.settle()
        assert (session.state, session.reason) == (RunState.PAUSED, "on run 1")
        assert session.tree.current == 1
        assert session.tree.chosen
        assert written(session, 1) == left
        session.step()
        session.settle()
        assert len(written(session, 1)) == len(left) + 1
        session.switch_branch(2)  # left again, for one that is over
        session.settle()
        assert session.state is RunState.FINISHED
        session.switch_branch(1)
        session.settle()
        resumed(session)
        assert session.state is RunState.FINISHED
        assert written(session, 1) == whole
        assert [branch.id for branch in session.branches] == [0, 1, 2]

    def test_one_that_is_over_is_over_as_soon_as_it_is_waited_for(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        runs = session._worker.started()
        wake, seen = runs._wake, []

        def woken() -> None:
            seen.append((runs.busy, session.state))
            wake()

        session.generate(PROMPT, GREEDY)
        session.settle()
        runs._wake = woken
        session.switch_branch(0)
        session.settle()
        session.call(lambda *_: None).result(PATIENCE)  # the generating thread has come to its end with it
        assert seen == [(False, RunState.FINISHED)]

    def test_while_it_runs_and_without_having_begun(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        whole = written(session, 0)
        session.generate(PROMPT, SAMPLED)
        session.switch_branch(0)  # amid the prompt or before it
        session.settle()
        assert (session.state, session.reason) == (RunState.FINISHED, "14 tokens")
        session.switch_branch(1)
        session.settle()
        resumed(session)
        assert written(session, 1) == whole

    def test_a_branch_with_a_seed_of_its_own_left_before_its_first_token(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        token = session.timeline.snapshot().end - 8
        other = GenerationSettings(max_new_tokens=14, temperature=2.0, seed=8)
        session.fork(token, other)
        session.settle()
        session.rewind(token)
        session.settle()
        rewound = session.tree.current
        session.switch_branch(0)
        session.settle()
        session.switch_branch(rewound)
        session.settle()
        resumed(session)
        assert written(session, rewound) == written(session, 0)[-8:]
        assert written(session, 1) != written(session, 0)[-8:]

    def test_a_stopped_run_is_taken_up(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        begin_paused(session, session.restart)
        session.step(3)
        session.settle()
        session.stop()
        session.settle()
        assert session.reason == "stopped"
        session.switch_branch(1)
        session.settle()
        assert session.state is RunState.PAUSED
        resumed(session)
        assert written(session, 1) == written(session, 0)

    def test_a_run_that_failed_is_taken_up_before_the_step_that_broke(self, live: Make) -> None:
        session = live(PROMPT, settings=SAMPLED)
        passes: list[int] = []

        def break_down(*_: Any) -> None:
            passes.append(1)
            if len(passes) == 5:
                raise RuntimeError("the device is gone")

        hooked = session.call(lambda model, _: model.model.layers[2].register_forward_pre_hook(break_down))
        hook = hooked.result(PATIENCE)
        session.restart()
        session.settle()
        assert session.state is RunState.FAILED
        hook.remove()
        left = len(written(session, 1))
        session.switch_branch(1)
        session.settle()
        assert session.state is RunState.PAUSED
        assert len(written(session, 1)) == left
        resumed(session)
        assert session.state is RunState.FINISHED
        assert written(session, 1) == written(session, 0)

    def test_interventions_of_now_act_on_what_follows(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        begin_paused(session, session.restart)
        session.step(4)
        session.settle()
        before = written(session, 1)
        session.fork(session.timeline.snapshot().end - 1)
        session.settle()
        session.switch_branch(1)
        session.settle()
        session.set_interventions([ForceExperts((1,))])
        resumed(session)
        assert written(session, 1)[: len(before)] == before
        view = session.timeline.snapshot()
        columns, block = view.tokens(0, view.end), view.routing(0, view.end)
        late = (columns.branch == 1) & (columns.position >= len(before))
        assert set(block.indices[late][..., 0].ravel().tolist()) == {1}

    def test_where_there_is_nothing(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        with pytest.raises(UsageError, match="branch 7 is not there") as error:
            session.switch_branch(7)
        assert error.value.hint == "branches: run 0"
        with pytest.raises(UsageError, match="not loaded"):
            live(opened=False).switch_branch(0)


class TestTree:
    def test_names_main_branches_and_deletion(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        token = session.timeline.snapshot().end - 6
        session.fork(token, name="a")
        session.settle()
        session.fork(token, name="b")
        session.settle()
        with pytest.raises(UsageError, match="there is a branch called a already"):
            session.rename_branch(2, "A")
        with pytest.raises(UsageError, match="3 is a number"):
            session.rename_branch(2, "3")
        with pytest.raises(UsageError, match="there is a branch called b already"):
            session.fork(token, name="b")
        session.rename_branch(2, " better ")
        session.promote_branch(2)
        session.promote_branch(2)
        assert session.tree.main(0) == 2
        with pytest.raises(UsageError, match="better is the branch that you are on"):
            session.delete_branch(2)
        session.delete_branch(0)  # those forked from it stay, with all that they share
        assert [branch.name for branch in session.branches] == ["a", "better"]
        assert session.tree.parent(session.branches[1]) is None
        with pytest.raises(UsageError, match="branch 0 was deleted"):
            session.switch_branch(0)
        with pytest.raises(UsageError, match="of a branch that was deleted"):
            session.rewind(token)
        session.switch_branch(1)
        session.settle()
        session.fork(session.timeline.snapshot().end - 2)  # a token of "better"
        session.settle()
        assert session.branches[-1].parent == 2
        told = [(event.change, event.branch, event.name) for event in session.log.of(BranchChanged)]
        assert told == [
            ("renamed", 2, "better"),
            ("promoted", 2, ""),
            ("deleted", 0, ""),
            ("switched", 1, ""),
        ]

    @pytest.mark.parametrize("how", ["recorded", "saved"])
    def test_a_recording_tells_it_and_a_replay_shows_it(self, live: Make, tmp_path: Path, how: str) -> None:
        path = tmp_path / "x.msgpack"
        options: dict[str, Any] = {"record": path} if how == "recorded" else {}
        session = live(PROMPT, settings=GREEDY, **options)
        token = session.timeline.snapshot().end - 6
        for name in ("a", "b"):
            session.fork(token, name=name)
            session.settle()
        session.rename_branch(2, "better")
        session.promote_branch(2)
        session.delete_branch(1)
        session.switch_branch(0)
        session.settle()
        if how == "saved":
            session.save(str(path))
        tree = session.tree
        session.close()
        replay = ReplaySession(path, start="end", paused=True)
        try:
            replay.open()
            assert isinstance(replay, Branched)
            assert not isinstance(replay, Branching)
            assert replay.tree == tree
            assert [branch.name for branch in replay.branches] == ["run 0", "better"]
            replay.seek(token)
            assert [branch.name for branch in replay.branches] == ["run 0"]
            assert replay.tree.current == 0
            marks = [mark.text for mark in replay.marks if mark.kind == "branch"]
            assert marks[:3] == ["run 0", "a", "b"]
            assert marks[3:] == [
                "b is called better from here on",
                "better is the main branch of its run",
                "a is deleted",
                "back to run 0",
            ]
            assert replay.load(str(path)).tree == tree
        finally:
            replay.close()

    @pytest.mark.parametrize("how", ["recorded", "saved"])
    def test_a_deleted_one_is_shown_and_counted_no_more(self, live: Make, tmp_path: Path, how: str) -> None:
        path = tmp_path / "x.msgpack"
        options: dict[str, Any] = {"record": path} if how == "recorded" else {}
        session = live(PROMPT, settings=GREEDY, **options)
        end = session.timeline.snapshot().end
        token = end - 6
        session.fork(token, name="a")
        session.settle()
        before = session.timeline.snapshot()
        session.delete_branch(0)
        after = session.timeline.snapshot()
        assert gone(before) == []
        assert gone(after) == list(range(token, end))  # what the branch shares with it stays
        assert after.sites is not before.sites  # sums that are kept by them begin anew
        assert len(before.steps().index) - len(after.steps().index) == 6
        console = Console(session, python=False)
        assert console.run("stats").data["tokens"] == before.end - 6
        assert console.run(f"why {end - 1}").error == f"token: {end - 1} is padding, or of a branch that was deleted"
        if how == "saved":
            session.save(str(path))
            session.export(str(tmp_path / "x.csv"), "csv")
            assert branches_in((tmp_path / "x.csv").read_text()) == {"0": token, "1": before.end - end}
        session.close()
        everything, counted = trace_stats(path, deleted=True), trace_stats(path)
        assert (everything["tokens"], counted["tokens"]) == (before.end, before.end - 6)
        assert everything["steps"] - counted["steps"] == 6
        with open_trace(path) as trace:
            assert gone(trace.timeline) == []  # nothing leaves a file
            stream = BytesIO()
            export(kept(trace), "csv", stream)
            assert branches_in(stream.getvalue().decode()) == {"0": token, "1": before.end - end}
        replay = ReplaySession(path, start="end", paused=True)
        try:
            replay.open()
            assert gone(replay.snapshot()) == list(range(token, end))
            assert gone(replay.load(str(path)).timeline.snapshot()) == list(range(token, end))
            replay.seek(end)
            assert gone(replay.snapshot()) == []  # it was there then
        finally:
            replay.close()

    def test_a_branch_shares_all_that_an_encoder_read(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY, model="random:switch_transformers")
        view = session.timeline.snapshot()
        tokens = view.tokens(0, view.end)
        read = np.flatnonzero(tokens.stack == view.stacks.index("encoder"))
        assert len(read) > 4
        session.fork(view.end - 10, name="a")  # at a position of the decoder that is below the encoder's length
        session.settle()
        view = session.timeline.snapshot()
        keep = line_rows(view.tokens(0, view.end), session.tree.line(1), view.stacks)
        assert keep[read].all()
        before = view.end
        session.delete_branch(0)
        assert gone(session.timeline.snapshot()) == list(range(before - 20, before - 10))

    def test_a_token_that_a_deleted_branch_shares_is_gone_back_to_by_its_heir(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        end = session.timeline.snapshot().end
        session.fork(end - 4, name="a")
        session.settle()
        written_ = session.timeline.snapshot().tokens(0, end).token_id.tolist()
        session.delete_branch(0)
        session.rewind(end - 8)
        session.settle()
        assert session.tree.parent(session.branches[-1]) == session.branches[0]
        resumed(session)
        assert session.ids() == written_[end - 8 :]

    def test_the_settings_of_each_are_told_once(self, live: Make) -> None:
        session = live(PROMPT, settings=GREEDY)
        session.switch_branch(0)
        session.settle()
        assert len(session.log.of(BranchAdded)) == 1
        assert session.settings == GREEDY
