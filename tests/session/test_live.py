"""A live session: runs, what is asked of it in between, and how it ends."""

from __future__ import annotations

import asyncio
import random
import threading
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch

from moetui.routing import ModelError, Phase, UsageError, join_texts
from moetui.routing.events import (
    BranchAdded,
    Event,
    FindingRaised,
    GenerationSettings,
    InterventionsChanged,
    LoadProgress,
    ModelChanged,
    Notice,
    RunState,
    RunStateChanged,
    StepCaptured,
)
from moetui.routing.interventions import BanExperts, ForceExperts, Scope
from tests.session.live_sessions import LONG, PATIENCE, PROMPT, Live, Make, begin_paused, held_forward, reference

SLACK = 1.0  # a machine that is busy with other things


class TestRuns:
    def test_a_run_from_nothing_to_its_end(self, live: Make) -> None:
        session = live(PROMPT)
        assert session.state is RunState.FINISHED
        assert session.reason == "12 tokens"
        states = [RunState.LOADING, RunState.READY, RunState.RUNNING, RunState.FINISHED]
        assert session.log.states() == states
        kinds = [type(event) for event in session.log.events]
        assert kinds.index(LoadProgress) < kinds.index(ModelChanged) < kinds.index(BranchAdded)
        assert kinds.index(BranchAdded) < kinds.index(StepCaptured)
        assert session.info is not None
        assert session.info.architecture == "MixtralForCausalLM"
        assert any("random weights" in notice.message for notice in session.log.of(Notice))

    def test_the_timeline_holds_every_token_that_went_through(self, live: Make) -> None:
        session = live(PROMPT)
        view = session.timeline.snapshot()
        tokens = view.tokens(0, view.end)
        ids = tuple(int(token) for token in tokens.token_id[tokens.phase == Phase.PREFILL])
        assert session.ids() == reference(ids, 12)[:-1], "the last token never goes through the model"
        assert tokens.position.tolist() == list(range(view.end))
        texts = [view.text(int(token)) for token in tokens.token_id]
        assert join_texts(texts).startswith(PROMPT)
        assert session.log.of(StepCaptured)[-1].end == view.end

    def test_the_first_tokens_are_told_of_as_they_come_however_long_later_ones_may_take(self, live: Make) -> None:
        session = live(linger=600.0)
        begin_paused(session, lambda: session.generate(PROMPT))
        session.step(3)
        session.log.wait(lambda _: bool(session.log.of(StepCaptured)))
        assert session.state is not RunState.FINISHED

    def test_each_run_is_a_branch(self, live: Make) -> None:
        session = live(PROMPT)
        session.generate("other words", GenerationSettings(max_new_tokens=5))
        session.settle()
        first, second = session.branches
        assert (first.id, second.id, second.prompt) == (0, 1, "other words")
        assert second.first_token == len(session.ids(0))
        added = session.log.of(BranchAdded)
        assert [event.settings.max_new_tokens for event in added] == [12, 5]
        assert session.settings.max_new_tokens == 5

    def test_a_drawn_seed_is_told_and_repeats_the_run(self, live: Make) -> None:
        settings = GenerationSettings(max_new_tokens=12, temperature=3.0)
        session = live(PROMPT, settings=settings)
        told = session.log.of(BranchAdded)[0].settings
        assert told.seed is not None
        session.generate(PROMPT, told)
        session.settle()
        assert session.ids(1) == session.ids(0)
        session.generate(PROMPT, settings)
        session.settle()
        assert session.ids(2) != session.ids(0), "no seed was asked for: another is drawn"

    def test_sampling_is_not_disturbed_by_what_happens_in_between(self, live: Make) -> None:
        settings = GenerationSettings(max_new_tokens=12, temperature=3.0, seed=11)
        session = live(PROMPT, settings=settings)
        torch.rand(3)
        begin_paused(session, lambda: session.generate(PROMPT, settings))
        for _ in range(3):
            session.call(lambda *_: torch.rand(7)).result(PATIENCE)
            session.step()
        session.resume()
        session.settle()
        assert session.ids(1) == session.ids(0)

    @pytest.mark.parametrize(
        ("prompt", "settings", "message"),
        [
            ("", None, "the prompt is empty"),
            ("x", GenerationSettings(max_new_tokens=0), "must be at least 1"),
            ("x", GenerationSettings(max_new_tokens=10**30), "must be less than"),
            ("x", GenerationSettings(top_k_sampling=10**30), "must be less than"),
            ("many words " * 400, None, "the model's context is 512"),
        ],
    )
    def test_calls_that_will_not_do(
        self, live: Make, prompt: str, settings: GenerationSettings | None, message: str
    ) -> None:
        session = live()
        with pytest.raises(UsageError, match=message):
            session.generate(prompt, settings)
        assert session.state is RunState.READY
        assert session.branches == ()

    def test_a_first_prompt_that_will_not_do_fails_and_leaves_the_model(self, live: Make) -> None:
        session = live("many words " * 400)
        assert session.state is RunState.FAILED
        assert "context is 512" in session.reason
        session.generate(PROMPT)
        session.settle()
        assert session.state is RunState.FINISHED

    def test_the_context_cuts_a_run_and_says_so(self, live: Make) -> None:
        session = live()
        session.generate("0123456789" * 50, GenerationSettings(max_new_tokens=100))
        session.settle()
        assert session.reason == "12 tokens"
        assert any("leaves room for 12" in notice.message for notice in session.log.of(Notice))

    def test_one_run_at_a_time(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        with pytest.raises(UsageError, match="a run is going on"):
            session.generate(PROMPT)
        session.resume()
        session.settle()
        assert len(session.branches) == 1

    def test_findings_are_raised_and_kept(self, live: Make) -> None:
        session = live()
        session.set_interventions([ForceExperts((0, 1))])
        session.generate(PROMPT, GenerationSettings(max_new_tokens=60))
        session.settle()
        raised = [event.finding for event in session.log.of(FindingRaised)]
        assert {(one.kind, one.site) for one in session.findings} == {(one.kind, one.site) for one in raised}
        assert "router_collapse" in {finding.kind for finding in raised}

    def test_a_finding_that_no_longer_holds_goes_and_is_told_once(self, live: Make) -> None:
        session = live()
        session.set_interventions([ForceExperts((0, 1))])
        session.generate(PROMPT, GenerationSettings(max_new_tokens=60))
        session.settle()
        assert "router_collapse" in {finding.kind for finding in session.findings}
        session.set_interventions([])
        for _ in range(4):
            session.generate(PROMPT, GenerationSettings(max_new_tokens=120))
            session.settle()
        assert "router_collapse" not in {finding.kind for finding in session.findings}
        told = [(event.finding.kind, event.finding.site) for event in session.log.of(FindingRaised)]
        assert len(told) == len(set(told))

    def test_too_few_tokens_to_tell_are_no_finding(self, live: Make) -> None:
        session = live()
        session.generate(PROMPT, GenerationSettings(max_new_tokens=4))
        session.settle()
        assert session.findings == ()
        assert session.log.of(FindingRaised) == []

    def test_costs_are_measured(self, live: Make) -> None:
        session = live()
        assert session.costs == {}
        session.generate(PROMPT)
        session.settle()
        assert set(session.costs) == {"hooks", "copy", "recorder"}
        assert all(0 < share < 1 for share in session.costs.values())
        session.add_breakpoint("index > 100000")  # looked at behind each step, so that steps are recorded on the way
        session.generate(PROMPT)
        session.settle()
        assert 0 <= session.costs["recorder"] < session.costs["copy"] < 1

    @pytest.mark.parametrize("model", ["random:switch_transformers", "random:openai_privacy_filter"])
    def test_other_shapes_of_models(self, live: Make, model: str) -> None:
        session = live(PROMPT, n=4, model=model)
        assert session.state is RunState.FINISHED, session.reason
        assert session.timeline.snapshot().end > 4

    def test_a_model_that_breaks_does_not_break_the_session(self, live: Make) -> None:
        session = live()

        def explode(*_: Any) -> None:
            raise RuntimeError("shape\nmismatch")

        hook = session.call(lambda model, _: model.lm_head.register_forward_hook(explode)).result(PATIENCE)
        session.generate(PROMPT)
        session.settle()
        assert session.state is RunState.FAILED
        assert "RuntimeError" in session.reason
        assert "test_live.py" in session.reason
        assert isinstance(session.error, ModelError)
        hook.remove()
        session.generate(PROMPT)
        session.settle()
        assert session.state is RunState.FINISHED
        assert session.error is None

    def test_running_out_of_memory_has_a_hint(self, live: Make) -> None:
        session = live()

        def explode(*_: Any) -> None:
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")

        session.call(lambda model, _: model.lm_head.register_forward_hook(explode)).result(PATIENCE)
        session.generate(PROMPT)
        session.settle()
        assert session.reason == "out of memory in step 1"
        assert session.hint


class TestInBetween:
    def test_calls_run_in_the_generation_thread(self, live: Make) -> None:
        session = live()
        name = session.call(lambda *_: threading.current_thread().name).result(PATIENCE)
        assert name == "moetui-generation"
        with pytest.raises(ZeroDivisionError):
            session.call(lambda *_: 1 / 0).result(PATIENCE)

    @pytest.mark.parametrize("where", ["ready", "running", "paused", "between layers"])
    def test_passes_of_an_analysis_leave_no_trace(self, live: Make, where: str) -> None:
        session = live()
        if where == "running":
            session.generate(PROMPT)
        elif where != "ready":
            begin_paused(session, lambda: session.generate(PROMPT))
        if where == "between layers":
            for number in range(2, 4):
                session.step_layer()
                session.log.wait_state(RunState.PAUSED, number)
        passes = [session.call(lambda model, _: model(torch.tensor([[5, 6, 7]])).logits) for _ in range(2)]
        logits = [each.result(PATIENCE) for each in passes]
        assert torch.equal(*logits)
        session.resume()
        session.settle()
        if where == "ready":
            assert session.timeline.snapshot().end == 0
        else:
            ids = session.ids()
            prompt = len(ids) - 11
            assert ids == reference(tuple(ids[:prompt]), 12)[:-1]
            assert (session.timeline.snapshot().steps().index == np.arange(12)).all()

    def test_interventions(self, live: Make) -> None:
        session = live(PROMPT)
        plain = session.ids()
        session.set_interventions([ForceExperts((0, 3)), BanExperts((1,), Scope(layers=(0,)))])
        session.generate(PROMPT)
        session.settle()
        assert len(session.interventions) == 2
        changed = session.log.of(InterventionsChanged)
        assert changed[0].token == len(plain)
        assert changed[-1].rules, "how the weights were found is told once it is known"
        view = session.timeline.snapshot()
        routing = view.routing(len(plain), view.end)
        assert set(np.unique(routing.indices)) == {0, 3}
        session.set_interventions([])
        session.generate(PROMPT)
        session.settle()
        assert session.ids() == plain

    def test_interventions_that_will_not_do(self, live: Make) -> None:
        session = live(opened=False)
        with pytest.raises(UsageError, match="not loaded yet"):
            session.set_interventions([ForceExperts((0,))])
        session.open()
        session.settle()
        with pytest.raises(UsageError, match="no expert 8"):
            session.set_interventions([ForceExperts((8,))])
        assert session.interventions == ()

    def test_interventions_from_the_start(self, live: Make) -> None:
        session = live(PROMPT, interventions=(ForceExperts((2, 5)),))
        view = session.timeline.snapshot()
        assert set(np.unique(view.routing(0, view.end).indices)) == {2, 5}

    def test_calls_without_a_model_say_so(self, live: Make) -> None:
        session = live(model="random:nothing_like_it")
        assert session.state is RunState.FAILED
        assert session.hint
        with pytest.raises(UsageError, match="there is no model"):
            session.call(lambda *_: None).result(PATIENCE)
        with pytest.raises(UsageError, match="there is no model"):
            session.generate(PROMPT)


class TestEvents:
    def test_one_reader_gets_them_and_the_end(self, live: Make) -> None:
        session = live(PROMPT)

        async def read() -> list[Event]:
            seen = []
            async for event in session.events():
                seen.append(event)
                if isinstance(event, RunStateChanged) and event.state is RunState.FINISHED:
                    session.close()
            return seen

        seen = asyncio.run(asyncio.wait_for(read(), PATIENCE))
        assert [event for event in seen if isinstance(event, StepCaptured)][-1].end == len(session.ids())


class TestClosing:
    """Within a second, whatever goes on; ``live`` makes sure that no thread is left."""

    @staticmethod
    def close(session: Live) -> None:
        began = monotonic()
        session.close()
        assert monotonic() - began < 1.0 + SLACK

    def test_never_opened(self, live: Make) -> None:
        self.close(live(opened=False))

    def test_ready_finished_and_twice(self, live: Make) -> None:
        session = live(PROMPT)
        self.close(session)
        self.close(session)
        with pytest.raises(UsageError, match="closed"):
            session.generate(PROMPT)
        assert session.call(lambda *_: None).cancelled()

    def test_running(self, live: Make) -> None:
        session = live()
        session.generate(PROMPT, GenerationSettings(max_new_tokens=LONG))
        session.log.wait(lambda _: len(session.log.of(StepCaptured)) > 2)
        self.close(session)
        assert len(session.ids()) < LONG

    def test_paused(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        self.close(session)

    def test_paused_between_layers(self, live: Make) -> None:
        session = live(PROMPT, paused=True)
        session.log.wait_state(RunState.PAUSED)
        session.step_layer()
        session.log.wait_state(RunState.PAUSED, 2)
        self.close(session)

    def test_while_the_device_is_busy(self, live: Make) -> None:
        session = live()
        with held_forward(session) as hangs:
            session.generate(PROMPT)
            assert hangs.wait(PATIENCE)
            waiting = session.call(lambda *_: None)
            self.close(session)
            assert waiting.cancelled()

    def test_while_loading(self, live: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on, began = threading.Event(), threading.Event()

        def slowly(*_: Any) -> None:
            began.set()
            go_on.wait(PATIENCE)
            raise ModelError("nobody hears this")

        monkeypatch.setattr("moetui.engine.loading.load", slowly)
        session = live(opened=False)
        session.open()
        assert began.wait(PATIENCE)
        self.close(session)
        go_on.set()

    def test_from_several_threads_at_once(self, live: Make) -> None:
        session = live()
        session.generate(PROMPT, GenerationSettings(max_new_tokens=LONG))
        closers = [threading.Thread(target=session.close) for _ in range(4)]
        for each in closers:
            each.start()
        for each in closers:
            each.join(PATIENCE)
            assert not each.is_alive()

    def test_no_hook_is_left(self, live: Make) -> None:
        session = live(PROMPT)
        model = session.call(lambda model, _: model).result(PATIENCE)
        self.close(session)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    @pytest.mark.parametrize("seed", range(3))
    def test_after_any_commands_in_any_order(self, live: Make, seed: int) -> None:
        session = live(n=40)
        dice = random.Random(seed)

        def start() -> None:
            try:
                session.generate(PROMPT)
            except UsageError:
                session.stop()

        commands = [
            start,
            start,
            session.pause,
            session.resume,
            session.step,
            session.step_layer,
            session.stop,
            session.finish,
            lambda: session.run_to(30),
            lambda: session.call(lambda model, _: model(torch.tensor([[4, 5]]))),
            lambda: session.set_interventions([ForceExperts((dice.randrange(8),))]),
            lambda: session.set_interventions([]),
        ]

        def play() -> None:
            for _ in range(60):
                dice.choice(commands)()

        players = [threading.Thread(target=play) for _ in range(3)]
        for each in players:
            each.start()
        for each in players:
            each.join(PATIENCE)
            assert not each.is_alive()
        self.close(session)
        assert session.state is not RunState.FAILED, session.reason


@pytest.mark.parametrize(
    ("model", "asked", "threads"), [("demo", None, 1), ("demo", "2", 2), ("random:mixtral", None, 2)]
)
def test_the_demo_runs_by_one_thread_unless_more_are_asked_for(
    live: Make, monkeypatch: pytest.MonkeyPatch, model: str, asked: str | None, threads: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    torch.set_num_threads(2)
    try:
        session = live(PROMPT, model=model)
        assert session.call(lambda *_: torch.get_num_threads()).result(PATIENCE) == threads
    finally:
        torch.set_num_threads(before)
