"""Runs a prompt through the library's own ``model.generate``."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, StoppingCriteriaList

from moetui.engine.caches import cache_argument
from moetui.engine.modules import input_device, output_head
from moetui.engine.rewind import kept_generators
from moetui.engine.settings import check_settings
from moetui.routing import UnsupportedError, UsageError
from moetui.routing.events import GenerationSettings

if TYPE_CHECKING:
    from moetui.engine.track import Start

_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model gets it.

    Attributes:
        text: as the person wrote it.
        ids: token ids, special tokens and chat template included.
        chat: the chat template was applied.
    """

    text: str
    ids: tuple[int, ...]
    chat: bool = False


def encode(tokenizer: Any, text: str, settings: GenerationSettings, *, vocab_size: int = 0) -> Prompt:
    """Turn a prompt into token ids; without a tokenizer the prompt is a list of ids, ``12 7 300``.

    Raises:
        UsageError: an empty prompt, one that the tokenizer turns into nothing, or a chat without a chat template.
    """
    if not text:
        raise UsageError("the prompt is empty", "write something for the model to continue")
    if tokenizer is None:
        return Prompt(text, _read_ids(text, vocab_size))
    chat = _wants_chat(tokenizer, settings)
    try:
        (text + settings.system).encode()
    except UnicodeEncodeError as error:
        raise UsageError("the prompt is no valid UTF-8", "check the encoding of the file or the terminal") from error
    if not _ids(tokenizer, text, special=False):
        raise UsageError("the prompt has no tokens: the tokenizer makes nothing of it", "write some words")
    ids = _chat_ids(tokenizer, text, settings.system) if chat else _ids(tokenizer, text)
    return Prompt(text, tuple(ids), chat)


def settle(settings: GenerationSettings, prompt: Prompt, context_length: int | None) -> GenerationSettings:
    """The settings of a run: checked, with its seed drawn and its length cut to what the model's context leaves.

    Raises:
        UsageError: a number outside its range, or a prompt that fills the context.
    """
    check_settings(settings)
    if settings.temperature == 0:
        settings = replace(settings, temperature=None)
    if settings.sampled and settings.seed is None:
        settings = replace(settings, seed=secrets.randbelow(_SEEDS))
    if context_length:
        left = context_length - len(prompt.ids)
        if left < 1:
            full = "" if left else ", which leaves no room for one more"
            raise UsageError(
                f"prompt is {len(prompt.ids)} tokens, the model's context is {context_length}{full}",
                "shorten the prompt",
            )
        settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, left))
    return settings


def generate(
    model: Any,
    prompt: Prompt,
    settings: GenerationSettings,
    *,
    stopped: Callable[[], bool] = bool,
    chosen: Callable[[Tensor], None] | None = None,
    start: Start | None = None,
    differed: Callable[[], None] | None = None,
) -> tuple[int, ...]:
    """Run ``prompt`` to its end in the calling thread; the global random generators are left as they were.

    A model that writes no text token by token gets one forward pass over the prompt.

    Args:
        model: a transformers model.
        prompt: see ``encode``.
        settings: see ``settle``; its length counts from the prompt, wherever the run starts.
        stopped: asked after each token; True ends the run there.
        chosen: called before the first pass and after each token with the decoder's sequence ``[1, n]`` so far.
        start: go on from there; None begins with the prompt.
        differed: called at the end of the repeated passes if a greedy choice would have been another in them.

    Returns:
        The new tokens' ids since the prompt, the end-of-text token included.
    """
    ids = torch.tensor([prompt.ids], dtype=torch.long, device=input_device(model))
    own_decoder = bool(model.config.is_encoder_decoder)
    if not own_decoder and chosen is not None:
        chosen(ids if start is None else start.ids)
    if not writes_text(model):
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        return ()
    length = settings.max_new_tokens
    arguments: dict[str, Any] = {}
    if start is not None:
        processor = _Repeat(start.ids, differed)
        arguments["logits_processor"] = LogitsProcessorList([processor])
        if not own_decoder:
            length += ids.shape[1] - start.given
            ids = start.ids[:, : start.given]
        if start.cache is not None:
            arguments[cache_argument(model)] = start.cache
    config = generation_config(model, replace(settings, max_new_tokens=length))
    criteria = StoppingCriteriaList([_Stop(stopped, chosen)])
    arguments |= {"input_ids": ids, "attention_mask": torch.ones_like(ids), "stopping_criteria": criteria}
    with seeded(settings.seed if settings.sampled else None), _as_in_decoding(model, start), _on_cache(model, start):
        out = model.generate(generation_config=config, **arguments)
    return tuple(int(token) for token in (out[0] if own_decoder else out[0, len(prompt.ids) :]).tolist())


def writes_text(model: Any) -> bool:
    """Whether ``model.generate`` yields text token by token: by the library's loop, or by code that came with it."""
    if not model.can_generate() or output_head(model) is None:
        return False
    kind = type(model)
    return kind.generate is GenerationMixin.generate or not kind.__module__.startswith("transformers.")


def check_continues(model: Any) -> None:
    """Raise ``UnsupportedError`` if a run of this model cannot go on from the middle."""
    if type(model).generate is not GenerationMixin.generate:
        raise UnsupportedError(
            f"{type(model).__name__} generates by code of its own, which starts at the prompt",
            "go back to a token of the prompt",
        )


def generation_config(model: Any, settings: GenerationSettings) -> GenerationConfig:
    """What to hand to ``generate``: these settings, and for all else what the model's own configuration says."""
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "typical_p": 1.0}
    sampled = {
        "temperature": 1.0 if settings.temperature is None else settings.temperature,
        "top_p": 1.0 if settings.top_p is None else settings.top_p,
        "top_k": settings.top_k_sampling or 0,
        "min_p": 0.0,
        "typical_p": 1.0,
    }
    own = getattr(model, "generation_config", None)
    end = getattr(own, "eos_token_id", None)
    padding = getattr(own, "pad_token_id", None)
    if padding is None and end is not None:
        padding = end[0] if isinstance(end, list) else end
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=settings.sampled,
        num_beams=1,
        num_return_sequences=1,
        pad_token_id=padding,
        # Compiled steps would run past the hooks.
        disable_compile=True,
        **(sampled if settings.sampled else neutral),
    )


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within it the global torch generators start from ``seed``; afterwards they are as before. None does nothing."""
    if seed is None:
        yield
        return
    with kept_generators():
        seed_generators(seed)
        yield


def seed_generators(seed: int) -> None:
    """Let the global torch generators start from ``seed``."""
    torch.manual_seed(seed)


class _Stop:
    """A stopping criterion, by its shape."""

    def __init__(self, stopped: Callable[[], bool], chosen: Callable[[Tensor], None] | None) -> None:
        self._stopped, self._chosen = stopped, chosen

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        del scores
        if self._chosen is not None:
            self._chosen(input_ids)
        return torch.full((input_ids.shape[0],), self._stopped(), dtype=torch.bool, device=input_ids.device)


class _Repeat:
    """A logits processor, by its shape: chooses the tokens of ``ids`` as long as there are some."""

    def __init__(self, ids: Tensor, differed: Callable[[], None] | None) -> None:
        self._ids, self._differed = ids, differed
        self._others: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        length = input_ids.shape[1]
        if length >= self._ids.shape[1]:
            return scores
        wanted = self._ids[:, length].to(scores.device)
        if self._differed is not None:
            self._others.append((scores.argmax(-1) != wanted).any())
            # Read once, at the end: each look waits for the device.
            if length == self._ids.shape[1] - 1 and bool(torch.stack(self._others).any()):
                self._differed()
        return torch.full_like(scores, -torch.inf).scatter_(1, wanted[:, None], 0.0)


def _as_in_decoding(model: Any, start: Start | None) -> contextlib.AbstractContextManager[None]:
    """Experts run a token by the kernel that the library chooses for decoding, in the first pass too."""
    choose = getattr(model, "_optimize_model_for_decode", None)
    if start is None or start.cache is None or choose is None:
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[None] = choose()
    return manager


@contextlib.contextmanager
def _on_cache(model: Any, start: Start | None) -> Iterator[None]:
    """The library takes no cache of a model that names the kind of its caches: within it this one does not."""
    own = model.generation_config
    kind = own.cache_implementation
    if start is None or start.cache is None or kind is None:
        yield
        return
    own.cache_implementation = None
    try:
        yield
    finally:
        own.cache_implementation = kind


def _wants_chat(tokenizer: Any, settings: GenerationSettings) -> bool:
    template = bool(getattr(tokenizer, "chat_template", None))
    if settings.chat and not template:
        raise UsageError("the model has no chat template", "--no-chat gives it the prompt as it is")
    chat = template if settings.chat is None else settings.chat
    if settings.system and not chat:
        raise UsageError("a system message needs a chat template", "put it into the prompt")
    return chat


def _chat_ids(tokenizer: Any, text: str, system: str) -> list[int]:
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    try:
        written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise UsageError(
            f"the model's chat template refuses this: {' '.join(str(error).split())}",
            "leave out --system" if system else "--no-chat gives the model the prompt as it is",
        ) from error
    return _ids(tokenizer, written, special=False)


def _ids(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    # Not verbose: what is too long for the model is told by ``settle``, and once.
    return list(tokenizer(text, add_special_tokens=special, verbose=False).input_ids)


def _read_ids(text: str, vocab_size: int) -> tuple[int, ...]:
    try:
        ids = tuple(int(word) for word in text.split())
    except ValueError:
        raise UsageError(
            "the model has no tokenizer, so the prompt must be token ids", "for example: 12 7 300"
        ) from None
    if not ids:
        raise UsageError("the prompt is empty", "write token ids, for example: 12 7 300")
    for token in ids:
        if token < 0 or (vocab_size and token >= vocab_size):
            raise UsageError(f"the model has no token {token}", f"ids go from 0 to {vocab_size - 1}")
    return ids
