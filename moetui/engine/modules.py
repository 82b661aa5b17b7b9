"""The module tree and the model's description: shapes and names only, no parameter's value is read."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from moetui.engine.adapters import SiteHandle
from moetui.engine.adapters.base import parent_path
from moetui.engine.adapters.traits import SHARED
from moetui.routing import ModelInfo, ModuleNode, ParameterInfo
from moetui.routing.model import ModuleRole, TensorKind

_ATTENTION = re.compile(r"(^|_)(attn|attention)|(attn|attention)$")
_MLP = re.compile(r"^(mlp|ffn|feed_forward|block_sparse_moe|mixer|moe)$|(mlp|ffn|moe)$")
_NORM = re.compile(r"norm", re.IGNORECASE)
_LAYER_COUNTS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "num_layers", "n_layers")
_CONTEXTS = ("max_position_embeddings", "max_seq_len", "n_positions")


def describe(model: nn.Module, handles: tuple[SiteHandle, ...], *, name: str = "") -> ModelInfo:
    """What is known of a model before its first forward.

    Args:
        model: the model.
        handles: its sites.
        name: what the user called it; its class name if empty.
    """
    config: Any = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    parameters = list(model.parameters())
    return ModelInfo(
        name=name or type(model).__name__,
        architecture=type(model).__name__,
        model_type=str(getattr(config, "model_type", "")),
        sites=tuple(handle.site for handle in handles),
        num_layers=_number(text, _LAYER_COUNTS) or _number(config, _LAYER_COUNTS) or 0,
        parameters=sum(parameter.numel() for parameter in parameters),
        nbytes=sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *model.buffers()]),
        vocab_size=_number(text, ("vocab_size",)) or _number(config, ("vocab_size",)) or 0,
        context_length=_number(text, _CONTEXTS),
        dtype=_most_common(_name(tensor.dtype) for tensor in parameters),
        device=_most_common(str(tensor.device) for tensor in parameters),
        modules=module_tree(model, handles, output_head(model)),
        versions=dict(_versions()),
    )


def output_head(model: nn.Module) -> nn.Module | None:
    """What makes the next token's logits of hidden states; None where nothing does.

    Some models around a whole language model do not say that its head is theirs.
    """
    for each in (model, *model.children()):
        find: Any = getattr(each, "get_output_embeddings", None)
        head = find() if callable(find) else None
        if isinstance(head, nn.Module):
            return head
    return None


def input_device(model: Any) -> torch.device:
    """Where token ids lie that a model is given: beside its embeddings, or on the host where offload keeps these."""
    device: torch.device = model.get_input_embeddings().weight.device
    return torch.device("cpu") if device.type == "meta" else device


def module_tree(model: nn.Module, handles: tuple[SiteHandle, ...], head: object = None) -> tuple[ModuleNode, ...]:
    """Every module in traversal order, the model itself first.

    Args:
        model: the model.
        handles: its sites; their modules and those below carry their number.
        head: the module that makes logits of hidden states, if there is one.
    """
    marks = _marks(handles)
    nodes = []
    inherited: dict[str, tuple[ModuleRole, int | None]] = {}
    met: set[int] = set()
    for path, module in model.named_modules():
        role, site = marks.get(path, (None, None))
        if role is None:
            parent = inherited.get(parent_path(path)) if path else None
            role, site = ("other", parent[1]) if parent else (_role(path, module, head), None)
        if site is not None:
            inherited[path] = (role, site)
        nodes.append(ModuleNode(path, type(module).__name__, role, _parameters(module, met), site))
    return tuple(nodes)


def _marks(handles: tuple[SiteHandle, ...]) -> dict[str, tuple[ModuleRole, int | None]]:
    """Roles of the modules that make the sites, by path."""
    marks: dict[str, tuple[ModuleRole, int | None]] = {}
    for handle in handles:
        site = handle.site
        experts_alone = handle.experts is not handle.block
        block = parent_path(site.path) if experts_alone and site.kind != "parallel" else site.path
        for name, child in handle.block.named_children():
            if name in SHARED and isinstance(child, nn.Module):
                marks[f"{block}.{name}"] = ("shared_expert", site.index)
        # A block whose experts are its own parameters, or several of its children, stands for them.
        marks[site.path] = ("experts", site.index)
        marks[site.router_path] = ("router", site.index)
    return marks


def _role(path: str, module: nn.Module, head: object) -> ModuleRole:
    name = path.rpartition(".")[2]
    rules: tuple[tuple[bool, ModuleRole], ...] = (
        (not path, "model"),
        (module is head, "head"),
        (isinstance(module, nn.Embedding), "embedding"),
        (name.isdecimal() and len(list(module.children())) > 1, "layer"),
        (bool(_NORM.search(type(module).__name__)), "norm"),
        (name in SHARED, "shared_expert"),
        (bool(_ATTENTION.search(name)) and bool(list(module.children())), "attention"),
        (bool(_MLP.search(name)), "mlp"),
    )
    return next((role for holds, role in rules if holds), "other")


def _parameters(module: nn.Module, met: set[int]) -> tuple[ParameterInfo, ...]:
    """A module's own tensors; ``met`` are the identities of those that came before, and grows."""
    kinds: tuple[tuple[TensorKind, Iterable[tuple[str, Tensor]]], ...] = (
        ("parameter", module.named_parameters(recurse=False)),
        ("buffer", module.named_buffers(recurse=False)),
    )
    out = []
    for kind, tensors in kinds:
        for name, tensor in tensors:
            out.append(_parameter(name, tensor, "shared" if id(tensor) in met else kind))
            met.add(id(tensor))
    return tuple(out)


def _parameter(name: str, tensor: Tensor, kind: TensorKind) -> ParameterInfo:
    nbytes = tensor.numel() * tensor.element_size()
    return ParameterInfo(name, tuple(tensor.shape), _name(tensor.dtype), str(tensor.device), nbytes, kind)


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _number(config: Any, names: Iterable[str]) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _most_common(values: Iterable[str]) -> str:
    found = list(values)
    return max(set(found), key=found.count) if found else ""


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((package, metadata.version(package)) for package in ("torch", "transformers", "numpy"))
