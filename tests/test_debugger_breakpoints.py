"""Breakpoints on a model that the user's own code runs."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from moetui import MoEDebugger
from moetui.debugger import BreakpointSet
from moetui.engine import CaptureOptions
from moetui.engine.zoo import BuiltModel, build
from moetui.routing import QueryError, UnsupportedError, UsageError
from moetui.routing.events import BreakpointHit, Event, Notice
from moetui.routing.interventions import BanExperts, ForceExperts, Scope
from moetui.routing.query import Query
from moetui.routing.steps import Steps
from moetui.trace import TraceWriter, open_trace


@pytest.fixture(scope="module")
def built() -> BuiltModel:
    return build("mixtral")


def run(built: BuiltModel, n: int = 8) -> Any:
    return built.model.generate(**built.inputs(length=9), max_new_tokens=n, min_new_tokens=n, do_sample=False)


class TestHits:
    def test_the_action_sees_the_step_before_the_next_one_begins(self, built: BuiltModel) -> None:
        seen: list[tuple[int, int, str]] = []
        with MoEDebugger(built.model) as debugger:

            def look(hit: BreakpointHit) -> None:
                seen.append((hit.token, debugger.live_timeline.snapshot().end, threading.current_thread().name))

            debugger.breakpoints.add("position >= 11 and phase:decode", action=look)
            run(built)
        assert seen == [(at, at + 1, threading.current_thread().name) for at in range(11, 16)]

    def test_one_callable_for_all_and_one_for_one(self, built: BuiltModel) -> None:
        general: list[int] = []
        special: list[int] = []
        events: list[Event] = []
        with MoEDebugger(built.model, on_event=events.append) as debugger:
            points = debugger.breakpoints
            points.on_hit = lambda hit: general.append(hit.breakpoint)
            points.add("position == 10")
            points.add("position == 12", action=lambda hit: special.append(hit.breakpoint))
            points.add("position == 13", log_only=True)
            run(built)
        assert (general, special) == ([1], [2])
        hits = [event for event in events if isinstance(event, BreakpointHit)]
        assert [(hit.breakpoint, hit.token, hit.log_only) for hit in hits] == [
            (1, 10, False),
            (2, 12, False),
            (3, 13, True),
        ]
        assert hits[0].values == "position = 10"

    def test_what_the_action_raises_ends_the_generation_and_leaves_the_model_whole(self, built: BuiltModel) -> None:
        class EnoughError(Exception):
            pass

        def raise_it(_: BreakpointHit) -> None:
            raise EnoughError

        before = run(built)
        with MoEDebugger(built.model) as debugger:
            debugger.breakpoints.add("position == 12", action=raise_it)
            with pytest.raises(EnoughError):
                run(built)
            debugger.breakpoints.clear()
            assert torch.equal(run(built), before)
        assert debugger.live_timeline.snapshot().end == 13 + 16

    def test_the_forced_site_is_told(self, built: BuiltModel) -> None:
        hits: list[BreakpointHit] = []
        with MoEDebugger(built.model) as debugger:
            debugger.interventions.add(ForceExperts((1, 2), Scope(layers=(2,))))
            debugger.breakpoints.add("forced and phase:decode", action=hits.append, temporary=True)
            run(built)
            assert len(debugger.breakpoints) == 0
        assert [hit.site for hit in hits] == [2]

    def test_padding_and_all_rows_of_a_batch(self, built: BuiltModel) -> None:
        hits: list[BreakpointHit] = []
        with MoEDebugger(built.model) as debugger:
            point = debugger.breakpoints.add("position == 0", action=hits.append)
            built.model.generate(**built.inputs(3, 8, padding="left"), max_new_tokens=3, do_sample=False)
            (point,) = debugger.breakpoints
        assert point.hits == 3
        assert len(hits) == 1

    def test_a_look_that_breaks_does_not_break_the_model(self, built: BuiltModel, monkeypatch: Any) -> None:
        events: list[Event] = []

        def explode(*_: Any) -> None:
            raise ZeroDivisionError("odd")

        before = run(built)
        with MoEDebugger(built.model, on_event=events.append) as debugger:
            debugger.breakpoints.add("position == 12")
            monkeypatch.setattr("moetui.routing.query.Query.matching", explode)
            assert torch.equal(run(built), before)
            assert len(debugger.breakpoints) == 0
        assert [event.severity for event in events if isinstance(event, Notice)] == ["error"]


CONDITIONS = (
    "layer:1 entropy > 0.9",
    "margin < 0.3",
    "weight[1] > 0.5",
    "2 in topk",
    "first:1 layer:1",
    "not entropy > 0.9",
    "forced",
    "-forced",
    "nan or dropped",
    "conf > 0.4 and mean_entropy < 1.3",
    "mean_margin > 0.1",
    'token ~ "a|1"',
    "id > 20 and phase:decode",
    "position >= 11 and position < 14",
    "step == 3 or ms > 1e9",
    "sequence == 0 branch:0 stack:decoder",
    "index == 12",
    "load_cv > 0.5",
    "logp < -3",
    "prob > 0.01",
    "pad",
)


class TestGlances:
    """Most steps are only glanced at before the next one; what hits where must not depend on it."""

    def hits(
        self, built: BuiltModel, *expressions: str, setting: str, glance: bool
    ) -> tuple[dict[str, list[Any]], int]:
        """What each was hit by, and how many steps were recorded by themselves."""
        events: list[Event] = []
        recorded: list[int] = []
        with MoEDebugger(built.model, on_event=events.append) as debugger:
            if setting == "forced":
                debugger.interventions.add(ForceExperts((1, 2), Scope(layers=(1,))))
            if setting == "banned":
                debugger.interventions.add(BanExperts((1,)))
            for expression in expressions:
                debugger.breakpoints.add(expression, log_only=True)
            if not glance:
                debugger.capture.look_first = None
            recorder = debugger.capture._recorder
            assert recorder is not None
            record = recorder.record
            recorder.record = lambda raw: (recorded.append(raw.index), record(raw))[1]  # type: ignore[method-assign]
            batch = 2 if setting == "batch" else 1
            inputs = built.inputs(batch, 9, padding="left" if batch == 2 else "none")
            built.model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
        assert not [event for event in events if isinstance(event, Notice)]
        hits: dict[str, list[Any]] = {expression: [] for expression in expressions}
        for hit in (event for event in events if isinstance(event, BreakpointHit)):
            values = re.sub(r"ms = .*", "", hit.values)
            hits[expressions[hit.breakpoint - 1]].append((hit.token, hit.site, values, hit.hits))
        return hits, len(recorded)

    @pytest.mark.parametrize(
        ("kind", "setting"),
        [
            ("mixtral", "plain"),
            ("mixtral", "banned"),
            ("mixtral", "batch"),
            ("deepseek_v3", "forced"),
            ("jetmoe", "plain"),
        ],
    )
    def test_they_miss_nothing(self, kind: str, setting: str) -> None:
        built = build(kind)
        looked, every = self.hits(built, *CONDITIONS, setting=setting, glance=False)
        assert every == 8
        assert sum(map(len, looked.values())) > 20
        for expression in CONDITIONS:  # one by one: what one needs recorded, all are shown
            assert self.hits(built, expression, setting=setting, glance=True)[0][expression] == looked[expression]

    def test_a_step_of_which_nothing_holds_is_not_recorded_by_itself(self, built: BuiltModel) -> None:
        """But for the prompt, those in which the model is still being studied, and conditions that need more."""
        run(built, 2)
        for expression, found in (
            ("entropy > 99", (0, 1)),
            ("entropy > 99 or logp > 9", (0, 8)),
            ("position:12-13", (2, 3)),
        ):
            hits, recorded = self.hits(built, expression, setting="plain", glance=True)
            assert (len(hits[expression]), recorded) == found

    def test_an_interrupt_in_one_loses_no_step(self, built: BuiltModel, monkeypatch: pytest.MonkeyPatch) -> None:
        matching = Query.matching

        def interrupted(query: Query, frame: Any) -> Any:
            if frame.columns.step.tolist() == [3]:
                signal.raise_signal(signal.SIGINT)
            return matching(query, frame)

        with MoEDebugger(built.model) as debugger:
            debugger.breakpoints.add("entropy > 99")
            monkeypatch.setattr(Query, "matching", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(built)
            assert debugger.timeline.snapshot().steps().index.tolist() == [0, 1, 2, 3]


class TestRecording:
    def test_a_disk_that_hangs_does_not_hold_up_a_model_with_breakpoints(
        self, built: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on, at_work = threading.Event(), threading.Event()
        write, written = TraceWriter.write_steps, list[int]()

        def hang(writer: TraceWriter, steps: Steps) -> None:
            at_work.set()
            assert go_on.wait(30)
            written.extend(steps.index.tolist())
            write(writer, steps)

        monkeypatch.setattr(TraceWriter, "write_steps", hang)
        with MoEDebugger(built.model) as debugger:
            debugger.record(tmp_path / "x.msgpack")
            debugger.breakpoints.add("position == 999")
            run(built, 6)
            assert at_work.wait(30)
            run(built, 6)
            assert not written
            go_on.set()
        assert written == list(range(len(written)))
        with open_trace(tmp_path / "x.msgpack") as trace:
            assert trace.num_tokens == 28
            assert trace.snapshot().tokens(0, 28).position.tolist() == [*range(14)] * 2


class TestCost:
    def hooks(self, built: BuiltModel) -> dict[str, tuple[int, ...]]:
        return {
            name: (len(module._forward_pre_hooks), len(module._forward_hooks), len(module._backward_hooks))
            for name, module in built.model.named_modules()
        }

    def test_none_costs_no_call(self, built: BuiltModel) -> None:
        with MoEDebugger(built.model) as debugger:
            without = self.hooks(built)
            assert debugger.capture.after_step is None
            points = debugger.breakpoints
            point = points.add("position == 999")
            assert debugger.capture.after_step is not None
            assert self.hooks(built) == without  # breakpoints look at whole steps, never at a site of their own
            points.enable(point.id, False)
            assert debugger.capture.after_step is None
            points.enable(point.id)
            points.remove(point.id)
            assert debugger.capture.after_step is None


class TestWrongs:
    @pytest.mark.parametrize(
        ("expression", "options", "message"),
        [
            ("entropy < 1", CaptureOptions(logits=False), "router logits are not captured"),
            ("mean_margin < 1 or layer:1", CaptureOptions(logits=False), "router logits are not captured"),
            ("weight > 0.5", CaptureOptions(weights=False), "gate weights are not captured"),
            ("prob < 0.5", CaptureOptions(candidates=0), "probabilities of tokens are not captured"),
        ],
    )
    def test_what_a_step_cannot_tell(self, expression: str, options: CaptureOptions, message: str) -> None:
        with pytest.raises(UnsupportedError, match=message):
            BreakpointSet(options).add(expression)
        BreakpointSet(CaptureOptions()).add(expression)

    def test_what_the_model_does_not_have(self, built: BuiltModel) -> None:
        events: list[Event] = []
        with MoEDebugger(built.model, on_event=events.append) as debugger:
            points = debugger.breakpoints
            with pytest.raises(QueryError, match="no layer 99"):
                points.add("layer == 99")
            point = points.add("layer == 0")
            with pytest.raises(QueryError, match="no expert 999"):
                points.change(point.id, expression="weight[999] > 0")
            assert [each.expression for each in points] == ["layer == 0"]
            assert not events
            points.add("flip vs 2", branches={"run 0": 0})
            assert [event.message for event in events if isinstance(event, Notice)] == [
                "'flip vs 2' waits for branch 2: so far there is 0 (run 0)"
            ]

    def test_what_was_asked_before_the_model_was_known(self, built: BuiltModel) -> None:
        points, told = BreakpointSet(), list[Event]()
        points.add("layer:99 or entropy < 1")
        points.add("layer:0")
        with MoEDebugger(built.model) as debugger:
            points.bind(debugger.capture, debugger.live_timeline, told.append)
        assert [point.enabled for point in points] == [False, True]
        assert [event.message for event in told if isinstance(event, Notice)] == [
            "breakpoint 1 is off: there is no layer 99"
        ]

    def test_expressions_and_numbers(self) -> None:
        points = BreakpointSet()
        with pytest.raises(QueryError):
            points.add("entropi < 0.3")
        with pytest.raises(UsageError, match="must not be negative"):
            points.add("layer:1", ignore=-1)
        with pytest.raises(UsageError, match="no breakpoint 3"):
            points.enable(3)
        assert points.add("flip vs 0").id == 1
        assert points.add("layer:1", temporary=True).id == 2
        assert points.add("  layer:2 ").expression == "layer:2"
        assert [point.id for point in points.lasting] == [3]


def test_what_is_captured_may_change(built: BuiltModel) -> None:
    told: list[Event] = []
    debugger = MoEDebugger(built.model, logits=False, on_event=told.append)
    with pytest.raises(UnsupportedError):
        debugger.breakpoints.add("entropy < 9")
    debugger.configure_hooks({"logits": True})
    debugger.breakpoints.add("entropy < 9")
    debugger.breakpoints.add("layer:1")
    debugger.configure_hooks({"logits": False})
    assert [point.enabled for point in debugger.breakpoints] == [False, True]
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert notice.message == "breakpoint 1 is off: entropy: the router logits are not captured"
