"""Whatever is asked of a model and however it ends, the model is afterwards as it was: over every architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

from moetui import MoEAnalyzer, MoEDebugger
from moetui.engine.analyses import ANALYSES, find_analysis, run_analysis
from moetui.engine.analyses.subject import Subject
from moetui.engine.caches import given_cache
from moetui.engine.generation import Prompt, generate
from moetui.engine.track import Track
from moetui.engine.zoo import BuiltModel, buildable, tokenizer
from moetui.routing import ModelError, UnsupportedError
from moetui.routing.events import GenerationSettings
from moetui.routing.interventions import BanExperts, RouterNoise
from tests.engine.conftest import ZooModel
from tests.engine.interception import hook_state

Entry = Callable[[BuiltModel], None]
KINDS = ("mixtral", "dbrx", "ernie4_5_vl_moe", "llama4", "jetmoe", "switch_transformers", "doge")
NEW = 3
PROMPT = (9, 21, 14, 33, 8)


class StopError(Exception):
    pass


class Breaking:
    """Ends what runs in one of its passes, in the midst of it.

    Attributes:
        passes: that were begun.
        at: which of them breaks.
        error: by what; None for none.
    """

    def __init__(self) -> None:
        self.passes, self.at = 0, 0
        self.error: type[BaseException] | None = None

    def __call__(self, *_: Any) -> None:
        self.passes += 1
        if self.error is not None and self.passes == self.at:
            raise self.error

    def ends(self, entry: Callable[[], None], *, everywhere: bool) -> Iterator[type[BaseException] | None]:
        """The entry's ends one by one: by itself, by an error in its last pass, by Ctrl-C in its first.

        Each of the two in both passes, where ``everywhere``.
        """
        self.error, self.passes = None, 0
        entry()
        yield None
        last = self.passes
        ends: list[tuple[int, type[BaseException]]] = [(last, StopError), (1, KeyboardInterrupt)]
        if everywhere and last > 1:
            ends += [(1, StopError), (last, KeyboardInterrupt)]
        for at, error in ends:
            self.error, self.passes, self.at = error, 0, at
            # An analysis says in its own words that the model failed.
            with pytest.raises((error, ModelError)) as ended:
                entry()
            assert error in (type(ended.value), type(ended.value.__cause__))
            yield error


@contextmanager
def breaking(built: BuiltModel) -> Iterator[Breaking]:
    """Within it there is a hook in the model's middle, on a module that nobody watches."""
    inner = built.model.get_decoder() if hasattr(built.model, "get_decoder") else built.model
    layers = next(module for module in inner.modules() if isinstance(module, torch.nn.ModuleList))
    found = Breaking()
    hook = layers[-1].register_forward_hook(found)
    try:
        yield found
    finally:
        hook.remove()


def run(built: BuiltModel) -> None:
    """What one's own code does."""
    inputs = built.inputs(2, 6, padding="left")
    if built.can_generate:
        inputs.pop("decoder_input_ids", None)
        built.model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    else:
        with torch.no_grad():
            built.model(**inputs)


def analysed(built: BuiltModel) -> None:
    with MoEAnalyzer(built.model).trace():
        run(built)


def changed(built: BuiltModel) -> None:
    with MoEDebugger(built.model) as debugger:
        run(built)
        try:
            debugger.interventions.set([BanExperts((0,)), RouterNoise(1.0)])
        except UnsupportedError:
            assert built.name == "nllb_moe"
        debugger.configure_hooks({"activations": True, "attention": True, "logits": False})
        run(built)


def rewound(built: BuiltModel) -> None:
    settings, prompt = GenerationSettings(max_new_tokens=NEW), Prompt("", PROMPT)
    track, own = Track(sampled=False), built.model.generation_config

    def note(given: Mapping[str, Any]) -> bool:
        track.note(len(track.passes), given["input_ids"].shape[1], given_cache(given), ())
        return True

    with MoEDebugger(built.model) as debugger:
        debugger.capture.before_step = note
        generate(built.model, prompt, settings, chosen=track.chosen)
        debugger.capture.before_step = None
        own.cache_implementation = "dynamic"
        try:
            generate(built.model, prompt, settings, start=track.start(NEW - 1))
        finally:
            held, own.cache_implementation = own.cache_implementation, None
        assert held == "dynamic"


def studied(built: BuiltModel) -> None:
    debugger = MoEDebugger(built.model)
    with debugger, torch.no_grad():
        built.model(**built.inputs(1, 6))
    subject = Subject(built.model, tokenizer(), debugger.capture.handles, debugger.timeline.snapshot())
    asked = {"branch": 0, "position": 4, "positions": [2], "site": 0, "expert": 1, "most": 3}
    for name, analysis in ANALYSES.items():
        arguments = {each: asked[each] for each in (*analysis.required, *analysis.optional) if each in asked}
        try:
            run_analysis(find_analysis(name, arguments), subject, arguments)
        except UnsupportedError:
            continue


def check(built: BuiltModel, *entries: Entry, everywhere: bool = False) -> None:
    with breaking(built) as broken:
        before = hook_state(built.model), attention(built.model)
        for entry in entries:
            for end in broken.ends(partial(entry, built), everywhere=everywhere):
                assert (hook_state(built.model), attention(built.model)) == before, (entry.__name__, end)


def attention(model: Any) -> list[Any]:
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return [vars(config).get("_attn_implementation_internal") for config in configs.values()]


@pytest.mark.parametrize("name", buildable())
def test_a_model_is_as_it_was(name: str, zoo_model: ZooModel) -> None:
    check(zoo_model(name), changed, studied, everywhere=name in KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_model_of_each_kind_is_as_it_was(name: str, zoo_model: ZooModel) -> None:
    built = zoo_model(name)
    check(built, *((analysed,) if built.is_encoder_decoder else (analysed, rewound)), everywhere=True)
