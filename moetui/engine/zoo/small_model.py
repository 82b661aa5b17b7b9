"""Small random models of any architecture in the zoo."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel

from moetui.engine.zoo import sizes
from moetui.engine.zoo.autos import auto_class, config_class
from moetui.engine.zoo.overrides import MODEL_TYPES, NOTES, OVERRIDES
from moetui.engine.zoo.scan import architectures, buildable, is_buildable
from moetui.engine.zoo.shrink import shrink
from moetui.engine.zoo.weights import randomise
from moetui.routing import ModelError, UnsupportedError

Padding = Literal["left", "none"]


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A small random model and what a caller has to know to run it.

    Attributes:
        name: architecture, as in :func:`moetui.engine.zoo.architectures`.
        model: on the CPU, float32, in evaluation mode.
        config: ``model.config``.
        can_generate: whether ``model.generate`` yields text, token after token.
        is_encoder_decoder: whether ``generate`` reads with an encoder and writes with a decoder.
        note: what is peculiar about this architecture; mostly empty.
    """

    name: str
    model: PreTrainedModel
    config: PreTrainedConfig
    can_generate: bool
    is_encoder_decoder: bool
    note: str

    @property
    def vocab_size(self) -> int:
        """Number of token ids that the model embeds."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def inputs(
        self, batch: int = 1, length: int = 8, seed: int = 0, padding: Padding = "none"
    ) -> dict[str, torch.Tensor]:
        """Random arguments for one forward pass, or (without ``decoder_input_ids``) for ``generate``.

        Args:
            batch: sequences.
            length: tokens of the longest sequence, padding not counted.
            seed: of the token ids; special tokens do not occur, except where they pad.
            padding: ``left`` makes row ``r`` shorter by ``2·r`` tokens, at least one token long; ``none`` fills all.

        Returns:
            ``input_ids`` and ``attention_mask``, both ``[batch, length]`` int64, and where the model has a decoder of
            its own ``decoder_input_ids``: ``[batch, max(length // 2, 1)]``, or the canvas of a diffusion model.
        """
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(sizes.SPECIAL_TOKENS, self.vocab_size, (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        if padding == "left":
            for row in range(batch):
                mask[row, : min(2 * row, length - 1)] = 0
            ids = ids.masked_fill(mask == 0, sizes.PAD)
        arguments = {"input_ids": ids, "attention_mask": mask}
        if "decoder_input_ids" in inspect.signature(self.model.forward).parameters:
            shape = (batch, getattr(self.config, "canvas_length", None) or max(length // 2, 1))
            decoder_ids = torch.randint(sizes.SPECIAL_TOKENS, self.vocab_size, shape, generator=generator)
            arguments["decoder_input_ids"] = decoder_ids
        return arguments


def build(name: str, seed: int = 0, *, layers: int = sizes.LAYERS) -> BuiltModel:
    """Build a small model of an architecture, with random weights.

    Args:
        name: an architecture of :func:`moetui.engine.zoo.architectures`.
        seed: of the weights; the same seed gives the same weights. The global generators stay untouched.
        layers: decoder layers, three or more: with fewer, a mixed architecture would lack its attention or its
            routers. Where an architecture mixes kinds of layers, four keep one of every kind.

    Raises:
        ModelError: there is no such architecture, or too few layers.
        UnsupportedError: the architecture is excluded; the message says why.
    """
    _check_name(name)
    if layers < sizes.FEWEST_LAYERS:
        raise ModelError(f"{layers} layers are too few", f"a small model has {sizes.FEWEST_LAYERS} or more")
    config = shrink(config_class(name, MODEL_TYPES.get(name)), OVERRIDES.get(name, {}), layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class(config).from_config(config, dtype=torch.float32)
        randomise(model, torch.Generator().manual_seed(seed))
    model.eval()
    _set_generation(model)
    return BuiltModel(
        name=name,
        model=model,
        config=model.config,
        can_generate=_can_generate(model),
        is_encoder_decoder=bool(model.config.is_encoder_decoder),
        note=NOTES.get(name, ""),
    )


def unaccounted() -> dict[str, str]:
    """Architectures that the scan finds, but that neither build nor are excluded, each with its error.

    None with the transformers this was written for. What a newer one adds needs overrides, or a reason to exclude it.
    """
    failures = {}
    for name in buildable():
        try:
            build(name)
        except Exception as error:  # noqa: BLE001 - whatever stops an unknown architecture is the answer here
            failures[name] = f"{type(error).__name__}: {error}"
    return failures


def _check_name(name: str) -> None:
    if is_buildable(name):
        return
    excluded = {arch.name: arch.reason for arch in architectures() if arch.status == "excluded"}
    if name in excluded:
        raise UnsupportedError(f"{name} is no Mixture-of-Experts model with a router", excluded[name])
    near = difflib.get_close_matches(name, buildable(), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`moetui models` lists the architectures"
    raise ModelError(f"no Mixture-of-Experts architecture is called {name!r}", hint)


def _can_generate(model: Any) -> bool:
    """Whether the library's own token-by-token loop runs this model; some architectures bring another."""
    return bool(model.can_generate()) and type(model).generate is GenerationMixin.generate


def _set_generation(model: Any) -> None:
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    settings.pad_token_id, settings.bos_token_id, settings.eos_token_id = sizes.PAD, sizes.BOS, sizes.EOS
    if model.config.is_encoder_decoder:
        settings.decoder_start_token_id = sizes.BOS
