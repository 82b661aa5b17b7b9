"""Runs of every architecture taken back: going on unchanged repeats them bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from moetui.engine.caches import given_cache, returned_cache
from moetui.engine.generation import Prompt, check_continues, generate, writes_text
from moetui.engine.rewind import CacheCopy, RandomState, can_crop, cropped, nbytes, rewind_method, will_crop
from moetui.engine.track import Start, Track
from moetui.engine.zoo import buildable
from moetui.routing import UnsupportedError
from moetui.routing.events import GenerationSettings
from tests.engine.watched import onto

NEW = 12
GREEDY = GenerationSettings(max_new_tokens=NEW)
SAMPLED = GenerationSettings(max_new_tokens=NEW, temperature=2.0, seed=3)
PROMPT = (9, 21, 14, 33, 8, 40, 27)

# One of each kind of cache: plain, indexed, windows, gated delta, mamba, convolutions, an own class, compressed keys.
FAMILIES = ("mixtral", "deepseek_v32", "gpt_oss", "qwen3_next", "jamba", "lfm2_moe", "minimax", "deepseek_v4")


class Runner:
    """Generates under a track, the way a session does, and keeps each recorded pass's last logits."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.logits: list[torch.Tensor] = []
        self.passes = 0

    def run(
        self, track: Track, settings: GenerationSettings, start: Start | None = None, **more: Any
    ) -> tuple[int, ...]:
        self.logits, self.passes = [], 0
        with self._noted(track, start):
            return generate(self.model, Prompt("", PROMPT), settings, chosen=track.chosen, start=start, **more)

    @contextmanager
    def _noted(self, track: Track, start: Start | None) -> Iterator[None]:
        encodes = self.model.config.is_encoder_decoder
        repeats = 0 if start is None else len(start.repeats)
        begun = False

        def before(_: Any, __: Any, arguments: dict[str, Any]) -> None:
            nonlocal begun
            self.passes += 1
            if self.passes <= repeats:
                return
            if not begun and start is not None and start.random is not None:
                start.random.set()
            begun = True
            ids = arguments["decoder_input_ids" if encodes else "input_ids"]
            track.note(len(track.passes), ids.shape[1], given_cache(arguments), ())

        def after(_: Any, __: Any, output: Any) -> None:
            if self.passes > repeats:
                self.logits.append(output.logits[:, -1].clone())

        hooks = [
            self.model.register_forward_pre_hook(before, with_kwargs=True),
            self.model.register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def endless(model: Any) -> Iterator[None]:
    """Within it no token ends the text."""
    ends, model.generation_config.eos_token_id = model.generation_config.eos_token_id, None
    try:
        yield
    finally:
        model.generation_config.eos_token_id = ends


def check_repeats(built: Any, settings: GenerationSettings, numbers: tuple[int, ...]) -> set[str]:
    """Take a run back to some passes, and one of them back once more; how it was done."""
    runner = Runner(built.model)
    methods = set()
    with endless(built.model):
        track = Track(sampled=settings.sampled, cuts=not built.is_encoder_decoder)
        new = runner.run(track, settings)
        logits = runner.logits
        assert len(logits) == NEW
        for number in numbers:
            start, child = track.start(number), track.forked(number, sampled=settings.sampled)
            assert start.exact
            assert runner.run(child, settings, start) == new
            assert len(runner.logits) == NEW - number
            assert all(torch.equal(a, b) for a, b in zip(logits[number:], runner.logits)), start.method
            assert [(each.start, each.stop) for each in child.passes] == [
                (each.start, each.stop) for each in track.passes
            ]
            methods.add(start.method)
            again = min(number + 2, NEW - 1)
            start = child.start(again)
            assert runner.run(child.forked(again, sampled=settings.sampled), settings, start) == new
            assert all(torch.equal(a, b) for a, b in zip(logits[again:], runner.logits)), start.method
    return methods


@pytest.mark.parametrize("name", buildable())
def test_a_run_taken_back_goes_on_as_it_did(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    if not built.can_generate:
        if writes_text(built.model):
            with pytest.raises(UnsupportedError, match="starts at the prompt"):
                check_continues(built.model)
        return
    check_continues(built.model)
    # To the prompt, which is to start over, one of each kind of cache is taken below.
    methods = check_repeats(built, GREEDY, (1, 6, NEW - 1))
    inputs = built.inputs(1, 8)
    said = rewind_method(built.model, {key: value for key, value in inputs.items() if "decoder" not in key})
    if built.is_encoder_decoder:
        assert methods == {"repeat"}
        assert "encoder" in said
    else:
        assert methods <= {"prompt", "crop", "snapshot"}
        assert said in ("crop", "snapshot")
        assert ("snapshot" in methods) == (said == "snapshot") or any(windows(built))


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen3_next", "jamba"])
def test_a_model_that_names_the_kind_of_its_caches_is_taken_back_too(name: str, kind: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    own = built.model.generation_config
    held, own.cache_implementation = own.cache_implementation, kind
    try:
        methods = check_repeats(built, GREEDY, (0, 1, 6))
        assert own.cache_implementation == kind
    finally:
        own.cache_implementation = held
    assert methods == ({"prompt", "snapshot"} if kind == "static" else methods - {"repeat"})


def windows(built: Any) -> list[bool]:
    with torch.no_grad():
        cache = returned_cache(built.model(**built.inputs(1, 4), use_cache=True))
    return [type(layer) is DynamicSlidingWindowLayer for layer in cache.layers]


@pytest.mark.parametrize("name", FAMILIES)
def test_drawn_tokens_are_drawn_again(name: str, zoo_model: Any) -> None:
    check_repeats(zoo_model(name), SAMPLED, (0, 3, 8))


@pytest.mark.parametrize("name", FAMILIES)
def test_without_any_cache_the_passes_are_repeated(name: str, zoo_model: Any) -> None:
    built = zoo_model(name)
    runner = Runner(built.model)
    with endless(built.model):
        track = Track(sampled=False)
        new = runner.run(track, GREEDY)
        logits = runner.logits
        track.forget_caches()
        assert track.nbytes == 0
        start = track.start(6)
        assert (start.method, start.exact, len(start.repeats)) == ("repeat", True, 6)
        assert runner.run(track.forked(6, sampled=False), GREEDY, start) == new
        assert all(torch.equal(a, b) for a, b in zip(logits[6:], runner.logits))


def test_many_passes_run_as_one_and_it_says_so(zoo_model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("moetui.engine.track.MOST_REPEATS", 4)
    built = zoo_model("mixtral")
    runner = Runner(built.model)
    with endless(built.model):
        track = Track(sampled=False)
        new = runner.run(track, GREEDY)
        track.forget_caches()
        start = track.start(8)
        assert (start.method, start.exact, len(start.repeats)) == ("prefill", False, 1)
        assert runner.run(track.forked(8, sampled=False), GREEDY, start) == new
        assert runner.passes == NEW - 8 + 1


def test_copies_are_thinned_out_to_their_budget(zoo_model: Any) -> None:
    built = zoo_model("jamba")
    runner = Runner(built.model)
    settings = GenerationSettings(max_new_tokens=60)
    with endless(built.model):
        free = Track(sampled=False)
        new = runner.run(free, settings)
        logits = runner.logits
        copies = free.copies
        assert copies[:4] == (1, 4, 8, 12)
        budget = sum(kept.nbytes for kept in free._copies.values()) // 4
        track = Track(sampled=False, budget=budget)
        assert runner.run(track, settings) == new
        assert 1 < len(track.copies) < len(copies) / 2
        assert sum(kept.nbytes for kept in track._copies.values()) <= budget
        for number in (2, 30, 59):
            start = track.start(number)
            assert runner.run(track.forked(number, sampled=False), settings, start) == new
            assert all(torch.equal(a, b) for a, b in zip(logits[number:], runner.logits))


def test_a_window_is_cut_as_long_as_it_holds_its_first_token(zoo_model: Any) -> None:
    built = zoo_model("gpt_oss")
    runner = Runner(built.model)
    settings = GenerationSettings(max_new_tokens=40)
    with endless(built.model):
        track = Track(sampled=False)
        new = runner.run(track, settings)
        logits = runner.logits
        window = built.config.sliding_window
        for number in (1, 2, window - len(PROMPT) - 1, window - len(PROMPT) + 3, 39):
            start = track.start(number)
            inside = track.passes[number].start < window - 1
            assert start.method == ("crop" if inside else "snapshot"), number
            assert runner.run(track.forked(number, sampled=False), settings, start) == new
            assert all(torch.equal(a, b) for a, b in zip(logits[number:], runner.logits))


def test_an_unsteady_pass_cannot_be_repeated_exactly(zoo_model: Any) -> None:
    built = zoo_model("jamba")
    runner = Runner(built.model)
    with endless(built.model):
        track = Track(sampled=False)
        runner.run(track, GREEDY)
        track.changed_within()
        track.note(99, 1, track._cache, ())
        assert track.start(3).exact
        track._copies.clear()
        assert not track.start(NEW).exact


class TestCaches:
    def cache(self, built: Any, length: int) -> Any:
        cache = DynamicCache(config=built.config)
        with torch.no_grad():
            built.model(torch.arange(5, 5 + length)[None], **onto(built.model, cache), use_cache=True)
        return cache

    def test_cutting_leaves_the_cache_alone_and_copies_nothing(self, zoo_model: Any) -> None:
        cache = self.cache(zoo_model("mixtral"), 8)
        before = copy.deepcopy(cache)
        assert can_crop(cache, 3)
        fresh = cropped(cache, 3)
        assert fresh.get_seq_length() == 5
        assert cache.get_seq_length() == 8
        for layer, own, other in zip(before.layers, cache.layers, fresh.layers):
            assert torch.equal(layer.keys, own.keys)
            assert torch.equal(other.values, layer.values[..., :5, :])
            assert other.keys.untyped_storage().data_ptr() == own.keys.untyped_storage().data_ptr()

    def test_kinds_that_say_they_can_be_cut_are_not_believed(self, zoo_model: Any) -> None:
        cache = self.cache(zoo_model("deepseek_v4"), 8)
        assert cache.is_croppable
        assert not can_crop(cache, 1)

        class Own(DynamicCache):
            """A cache that a model brings along."""

        assert not can_crop(Own(), 0)
        assert not can_crop(None, 0)

    def test_a_full_window_cannot_be_cut(self, zoo_model: Any) -> None:
        built = zoo_model("gpt_oss")
        window = built.config.sliding_window
        almost = self.cache(built, window - 1)
        assert can_crop(almost, 2)
        assert not will_crop(almost, 1)
        assert will_crop(self.cache(built, window - 2), 1)
        assert not can_crop(self.cache(built, window), 1)

    def test_a_copy_holds_only_what_cannot_be_cut_later(self, zoo_model: Any) -> None:
        built = zoo_model("jamba")
        cache = self.cache(built, 8)
        kept = CacheCopy.of(cache, 8)
        assert 0 < kept.nbytes < nbytes(cache)
        whole = kept.filled(cache, 8)
        for own, other in zip(cache.layers, whole.layers):
            assert type(own) is type(other)
        assert whole.get_seq_length() == 8
        with torch.no_grad():
            before = built.model(torch.tensor([[7]]), **onto(built.model, whole)).logits
            again = built.model(torch.tensor([[7]]), **onto(built.model, kept.filled(cache, 8))).logits
        assert torch.equal(before, again)


def test_random_states_are_shared_where_nothing_was_drawn() -> None:
    first = RandomState.now()
    second = RandomState.now(first)
    assert second.cpu is first.cpu
    wanted = torch.rand(3)
    assert RandomState.now(second).cpu is not first.cpu
    first.set()
    assert torch.equal(torch.rand(3), wanted)
