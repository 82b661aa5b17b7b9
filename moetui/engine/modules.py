"""The module tree and the model's description."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from torch import nn

from moetui.engine.adapters.base import SiteHandle
from moetui.routing import ModelInfo


def describe(model: nn.Module, handles: tuple[SiteHandle, ...], *, name: str = "") -> ModelInfo:
    """What is known of a model before its first forward."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    parameters = list(model.parameters())
    return ModelInfo(
        name=name or type(model).__name__,
        architecture=type(model).__name__,
        model_type=str(getattr(config, "model_type", "")),
        sites=tuple(handle.site for handle in handles),
        num_layers=int(getattr(text, "num_hidden_layers", 0) or 0),
        parameters=sum(parameter.numel() for parameter in parameters),
        nbytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        vocab_size=int(getattr(text, "vocab_size", 0) or 0),
        context_length=getattr(text, "max_position_embeddings", None),
        dtype=str(parameters[0].dtype).removeprefix("torch.") if parameters else "",
        device=str(parameters[0].device) if parameters else "",
        versions={package: metadata.version(package) for package in ("torch", "transformers")},
    )
