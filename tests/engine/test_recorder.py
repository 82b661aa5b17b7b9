"""Passes worked out together are those worked out alone, and the thread ends when it has to."""

from __future__ import annotations

import dataclasses
import gc
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moetui.engine import Capture, CaptureOptions, find_sites
from moetui.engine.caches import returned_cache
from moetui.engine.interventions import plan
from moetui.engine.raw import RawStep
from moetui.engine.zoo import build
from moetui.routing import NO_EXPERT, SiteFlag, Step
from moetui.routing.events import FindingRaised
from moetui.routing.interventions import (
    BanExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    ScaleExperts,
    Scope,
    SetTopK,
)
from moetui.routing.step import TokenScores
from moetui.routing.steps import Steps
from tests.engine.watched import onto

TIMES = ("started", "duration", "site_ms", "vocabulary", "memory")
ODD = ["mixtral", "dbrx", "jetmoe", "llama4", "doge", "zaya", "switch_transformers", "deepseek_v4", "qwen3_next"]


def generated(
    model: Any, inputs: dict[str, Any], *, alone: bool, interventions: tuple[Intervention, ...] = (), **options: Any
) -> list[Step]:
    steps: list[Step] = []
    with Capture(model, CaptureOptions(**options), on_step=steps.append) as capture:
        model(**inputs)  # what there is to learn of the model is learnt here
        capture.flush()
        capture.set_functions(plan(interventions, lambda: capture.handles).functions)
        if alone:
            capture.after_step = lambda: None
        prompt = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
        model.generate(**prompt, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    return steps


def same(one: Step, other: Step) -> None:
    for field in dataclasses.fields(Step):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in TIMES:
            continue
        if isinstance(a, TokenScores):
            for score in dataclasses.fields(a):
                # Sums over another number of tokens may be taken in another order.
                np.testing.assert_allclose(
                    getattr(a, score.name), getattr(b, score.name), rtol=1e-6, err_msg=score.name
                )
            continue
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


@pytest.mark.parametrize("name", ODD)
def test_a_run_worked_out_together_is_the_same(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    inputs = built.inputs(2, 6, padding="left")
    alone = generated(built.model, inputs, alone=True)
    together = generated(built.model, inputs, alone=False)
    assert len(alone) == len(together) > 12
    for one, other in zip(alone, together):
        same(one, other)
    known = [{} for _ in range(2)]
    for number, steps in enumerate((alone, together)):
        for step in steps:
            known[number] |= step.vocabulary
    assert known[0] == known[1]
    assert all(step.duration > 0 for step in together)
    starts = [step.started for step in together]
    assert starts == sorted(starts)


def test_ids_alone_worked_out_together(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    options = {"logits": False, "weights": False, "candidates": 0}
    inputs = built.inputs(1, 6)
    alone = generated(built.model, inputs, alone=True, **options)
    together = generated(built.model, inputs, alone=False, **options)
    assert len(alone) == len(together) > 12
    for one, other in zip(alone, together):
        same(one, other)


@pytest.mark.parametrize(
    "interventions",
    [
        (ForceExperts((0, 3, 7), Scope(layers=(1, 2))),),
        (BanExperts((1, 2)),),
        (ScaleExperts((0, 1, 2, 3), 0.0), ExpertCapacity(0.5, Scope(layers=(3,)))),
        (SetTopK(1, Scope(layers=(0,))), ForceExperts((4,), Scope(layers=(2,), positions=(10, None)))),
    ],
)
def test_changed_routings_worked_out_together(interventions: tuple[Intervention, ...], zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    inputs = built.inputs(2, 6, padding="left")
    alone = generated(built.model, inputs, alone=True, interventions=interventions)
    together = generated(built.model, inputs, alone=False, interventions=interventions)
    assert len(alone) == len(together) > 12
    for one, other in zip(alone, together):
        same(one, other)
    assert any((step.flags & SiteFlag.FORCED).any() for step in together)


@torch.no_grad()
def test_an_intervention_in_the_middle_of_a_run(zoo_model: Any) -> None:
    """Passes with and without a change of routing are never mixed."""
    built = zoo_model("mixtral")
    model = built.model
    steps: list[Step] = []

    def swap(context: Any, logits: Any, indices: torch.Tensor, weights: torch.Tensor) -> Any:
        return indices.flip(-1), weights.flip(-1)

    with Capture(model, on_step=steps.append) as capture:
        out = model(input_ids=torch.tensor([[5, 6, 7]]))
        for number in range(9):
            capture.set_functions({0: swap} if 3 <= number < 6 else {})
            out = model(input_ids=torch.tensor([[8]]), **onto(model, out))
    forced = [bool((step.flags[:, 0] & SiteFlag.FORCED).any()) for step in steps[1:]]
    assert forced == [False] * 3 + [True] * 3 + [False] * 3
    assert all(not (step.flags[:, 1:] & SiteFlag.FORCED).any() for step in steps)


@torch.no_grad()
def test_passes_wait_for_those_after_them_as_long_as_they_are_told_to(zoo_model: Any) -> None:
    model = zoo_model("mixtral").model
    runs: list[Steps] = []
    came = threading.Event()

    def take(steps: Steps) -> None:
        runs.append(steps)
        came.set()

    with Capture(model, on_steps=take, linger=600.0) as capture:
        out = model(input_ids=torch.arange(5, 25)[None])
        capture.flush()  # what there is to learn of the model is learnt from one pass at a time
        for _ in range(5):
            out = model(input_ids=torch.tensor([[8]]), **onto(model, out))
        assert len(runs) == 1
        capture.flush()
        assert [steps.index.tolist() for steps in runs] == [[0], [1, 2, 3, 4, 5]]
        capture.linger = 0.0
        came.clear()
        model(input_ids=torch.tensor([[8]]), **onto(model, out))
        assert came.wait(60)


@torch.no_grad()
def test_a_model_that_begins_to_choose_more_experts_in_the_middle_of_a_run() -> None:
    model = build("mixtral").model
    steps: list[Step] = []
    with Capture(model, on_step=steps.append) as capture:
        out = model(input_ids=torch.tensor([[5, 6, 7]]))
        capture.flush()
        for number in range(8):
            for layer in model.model.layers:
                layer.mlp.gate.top_k = 3 if number >= 4 else 2
            out = model(input_ids=torch.tensor([[8]]), **onto(model, out))
    chosen = [(step.indices[0] != NO_EXPERT).sum(-1).tolist() for step in steps[1:]]
    assert chosen == [[2] * len(capture.sites)] * 4 + [[3] * len(capture.sites)] * 4
    assert all(np.allclose(np.nansum(step.weights, -1, dtype=np.float32), 1.0, atol=1e-2) for step in steps)


@torch.no_grad()
def test_flags_tell_what_is_not_finite_and_what_is_too_large(zoo_model: Any) -> None:
    model = build("mixtral").model
    steps: list[Step] = []
    gate = model.model.layers[1].mlp.gate

    def spoil(_: Any, args: Any, output: Any) -> Any:
        logits = output[0].clone()
        logits[0, 0], logits[1, 0], logits[2, 0] = torch.nan, torch.inf, 1e6
        return (logits, *output[1:])

    spoiled = gate.register_forward_hook(spoil)
    with Capture(model, on_step=steps.append):
        model(input_ids=torch.tensor([[5, 6, 7, 8]]))
    spoiled.remove()
    (step,) = steps
    assert step.logits is not None
    odd = step.flags & SiteFlag.NON_FINITE > 0
    assert odd.tolist() == [[False, True, False, False]] * 2 + [[False] * 4] * 2
    assert step.logits[2, 1, 0] == np.finfo(np.float16).max


def test_steps_cannot_be_written_to(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    (first, *_) = generated(built.model, built.inputs(1, 3), alone=False)
    assert first.scores is not None
    holders: list[tuple[Any, type]] = [(first, Step), (first.scores, TokenScores)]
    values = [getattr(holder, field.name) for holder, kind in holders for field in dataclasses.fields(kind)]
    for value in values:
        if isinstance(value, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 0


@torch.no_grad()
def test_a_flush_from_the_reader_does_not_lock(zoo_model: Any) -> None:
    model = zoo_model("mixtral").model
    seen: list[int] = []
    capture: Capture

    def read(step: Step) -> None:
        assert capture.flush(5)
        seen.append(step.index)

    capture = Capture(model, on_step=read)
    with capture:
        model(input_ids=torch.tensor([[5, 6]]))
    assert seen == [0]


@pytest.mark.parametrize("linger", [0.0, 600.0])
@pytest.mark.parametrize("queue", [1, 5, 256])
@torch.no_grad()
def test_a_flush_hands_on_all_that_was_put_before_it(queue: int, linger: float, zoo_model: Any) -> None:
    model = zoo_model("mixtral").model
    seen: list[int] = []
    put, late = [0], []
    over = threading.Event()

    def flush(capture: Capture) -> None:
        while not over.wait(0.001):  # as others need the interpreter too
            before = put[0]
            if not capture.flush(60) or len(seen) < before:
                late.append((len(seen), before))

    options = CaptureOptions(queue=queue)
    with Capture(model, options, on_steps=lambda steps: seen.extend(steps.index.tolist()), linger=linger) as capture:
        others = [threading.Thread(target=flush, args=(capture,)) for _ in range(2)]
        for other in others:
            other.start()
        try:
            cache = returned_cache(model(input_ids=torch.tensor([[5, 6, 7]])))
            for number in range(40):
                put[0] = number + 1
                model(input_ids=torch.tensor([[8]]), **onto(model, cache))
        finally:
            over.set()
            for other in others:
                other.join()
    assert not late
    assert seen == list(range(41))


@torch.no_grad()
def test_passes_are_let_go_of_by_the_thread_that_made_them(zoo_model: Any) -> None:
    built = zoo_model("mixtral")
    router = find_sites(built.model)[0].router
    made: list[weakref.ref[torch.Tensor]] = []
    freed: list[int] = []

    def note(module: Any, args: Any, output: Any) -> None:
        made.append(weakref.ref(output[0], lambda _: freed.append(threading.get_ident())))

    with Capture(built.model, linger=60.0) as capture, torch.no_grad():
        cache = returned_cache(built.model(**built.inputs(1, 4)))
        step = {"input_ids": torch.tensor([[5]]), **onto(built.model, cache)}
        for _ in range(8):
            built.model(**step)
            capture.flush()
        hook = router.register_forward_hook(note)
        for _ in range(10):
            built.model(**step)
        hook.remove()
        assert not freed
        capture.flush()
        for _ in range(10):  # nothing is recorded meanwhile
            built.model(**step)
        assert [reference() for reference in made] == [None] * 10
        assert set(freed) == {threading.get_ident()}


def test_passes_with_a_graph_are_let_go_of_without_the_garbage_collector(zoo_model: Any) -> None:
    def passes() -> int:
        return sum(type(each) is RawStep for each in gc.get_objects())

    built = zoo_model("mixtral")
    gc.collect()
    gc.disable()
    try:
        others = passes()  # of captures that other tests keep
        with Capture(built.model) as capture:
            for _ in range(8):
                built.model(**built.inputs(1, 4))
            capture.flush()
            assert passes() - others < 2
    finally:
        gc.enable()


def test_what_looks_behind_each_step_gets_it_in_its_own_thread(zoo_model: Any) -> None:
    """Passes put before are handed on first, by the recorder's thread; a callback that breaks loses its step alone."""
    model = zoo_model("mixtral").model
    told, seen, looked = [], [], []
    capture: Capture

    def read(step: Step) -> None:
        assert step.index == 0 or capture.flush(5)
        seen.append((step.index, threading.current_thread() is threading.main_thread()))
        if step.index == 2:
            raise ValueError("no")

    capture = Capture(model, on_step=read, on_event=told.append)
    with capture:
        model(input_ids=torch.tensor([[5, 6]]))
        capture.after_step = lambda: looked.append([index for index, _ in seen])
        for _ in range(3):
            model(input_ids=torch.tensor([[5, 6]]))
        capture.after_step = None
        model(input_ids=torch.tensor([[5, 6]]))
    assert looked == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert seen == [(0, False), (1, True), (2, True), (3, True), (4, False)]
    lost = [event.finding.kind for event in told if isinstance(event, FindingRaised)]
    assert lost.count("step_lost") == 1


@torch.no_grad()
def test_ctrl_c_comes_behind_a_step_that_is_being_recorded(zoo_model: Any) -> None:
    model, handler = zoo_model("mixtral").model, signal.getsignal(signal.SIGINT)
    seen: list[int] = []

    def read(step: Step) -> None:
        if step.index == 1:
            signal.raise_signal(signal.SIGINT)
        seen.append(step.index)

    with Capture(model, on_step=read) as capture:
        capture.after_step = lambda: None
        model(input_ids=torch.tensor([[5, 6]]))
        with pytest.raises(KeyboardInterrupt):
            model(input_ids=torch.tensor([[5, 6]]))
        assert seen == [0, 1]
        assert signal.getsignal(signal.SIGINT) is handler
        model(input_ids=torch.tensor([[5, 6]]))
    assert seen == [0, 1, 2]


@torch.no_grad()
def test_closing_gives_up_in_time(zoo_model: Any) -> None:
    model = zoo_model("mixtral").model
    go_on = threading.Event()
    capture = Capture(model, on_step=lambda _: go_on.wait(20) and None)
    capture.attach()
    model(input_ids=torch.tensor([[5, 6]]))
    assert capture.close(0.2) is False
    assert not capture.attached
    go_on.set()


SCRIPT = """
import torch
from moetui.engine import Capture
from moetui.engine.zoo import build
model = build("mixtral").model
steps = []
capture = Capture(model, on_step=lambda step: print(step.index, flush=True))
capture.attach()
with torch.no_grad():
    for _ in range(5):
        model(input_ids=torch.tensor([[5, 6]]))
"""


def test_an_interpreter_that_ends_takes_what_is_queued_along() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]


def test_the_recorder_works_in_its_own_thread_alone() -> None:
    """Operations of some size start OpenMP threads for whoever calls them: those of the model then no longer spin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        built = build("mixtral")
        seen: list[int] = []
        with Capture(built.model, on_steps=lambda _: seen.append(torch.get_num_threads())):
            built.model(**built.inputs())
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (seen, later, torch.get_num_threads()) == ([1], [2], 2)
    finally:
        torch.set_num_threads(threads)


ALONE = """
import os, threading, torch
from moetui.engine.one_thread import work_alone
torch.set_num_threads(2)
large = torch.randn(160, 50_000)
large.logsumexp(-1)
count = lambda: len(os.listdir("/proc/self/task"))
started = []
def work():
    work_alone()
    before = count()
    large.logsumexp(-1), large.topk(8), large @ large[:2].T
    started.append(count() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(*started)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="nothing tells the process's threads")
def test_no_library_of_torch_starts_threads_for_who_works_alone() -> None:
    """MKL counts for itself once a program has set torch's number of threads."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
