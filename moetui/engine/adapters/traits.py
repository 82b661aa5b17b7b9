"""What a router's and its experts' attributes say of a site, whatever the model calls them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from moetui.engine.adapters.base import FoundSite, SiteHandle, join_path, module_at, parent_path

TOP_K = ("top_k", "num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts", "moe_k")
_ROUTERS = ("gate", "router")
_COUNTS = ("num_experts", "num_routed_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_SHARED_COUNTS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
SHARED = ("shared_experts", "shared_expert", "shared_mlp")
_GROUPS = ("num_group", "n_group")
_ELIGIBLE = ("topk_group",)
_BIASES = ("e_score_correction_bias", "expert_bias", "balancing_biases", "moe_statics")


def find_router(model: nn.Module, experts_path: str) -> tuple[str, nn.Module] | None:
    """The router beside an experts module: path and module."""
    parent = module_at(model, parent_path(experts_path))
    for name in _ROUTERS:
        child = getattr(parent, name, None)
        if isinstance(child, nn.Module):
            return join_path(parent_path(experts_path), name), child
    return None


def describe_router(
    model: nn.Module,
    block_path: str,
    path: str,
    experts: nn.Module,
    router_path: str,
    router: nn.Module,
    *,
    note: str = "",
    top_k: int | None = None,
) -> FoundSite:
    """Counts of experts, classes and slots, from attributes, the parameters' shapes and the configuration."""
    block = module_at(model, block_path)
    owners = (router, block, experts)
    sizes = count_experts(experts)
    num_experts = min(sizes, default=0) or first_int((experts, router, block), _COUNTS) or 0
    classes = _classes(router, num_experts)
    slots = top_k or first_int((router, block), TOP_K) or _from_config(model, owners, TOP_K) or 1
    return FoundSite(
        path=path,
        router_path=router_path,
        experts=experts,
        router=router,
        block=block,
        num_experts=num_experts,
        num_classes=classes,
        top_k=slots,
        zero_experts=classes - num_experts,
        groups=_groups(owners),
        selection_bias=_has_selection_bias(owners),
        shared_experts=_shared_experts(model, block_path),
        note=note or _hash_note(router),
    )


def selection_traits(handle: SiteHandle) -> tuple[Tensor | None, int]:
    """A site's selection bias ``[C]`` as it is now, on the host, and how many groups stay eligible.

    The bias is None where there is none, or none with a number for each class that can be read.
    """
    owners = (handle.router, handle.block, handle.experts)
    eligible = first_int(owners, _ELIGIBLE) or 1
    for owner in (getattr(owner, name, None) for owner in owners for name in _BIASES):
        tensors = [owner] if isinstance(owner, Tensor) else []
        if isinstance(owner, nn.Module):
            tensors = [*owner.parameters(), *owner.buffers()]
        for tensor in tensors:
            if tensor.numel() == handle.site.num_classes and not tensor.is_meta:
                return tensor.detach().flatten().float().cpu().clone(), eligible
    return None, eligible


def count_experts(experts: nn.Module) -> list[int]:
    """How many experts each of the stacked weights (or the child modules) holds; empty if it holds none."""
    sizes = [int(weight.shape[0]) for weight in experts.parameters(recurse=False) if weight.dim() >= 3]
    if sizes or not isinstance(experts, nn.ModuleDict | nn.ModuleList):
        return sizes
    # Dropout and the like lie among the children of some.
    children = sum(1 for child in experts.children() if next(child.parameters(), None) is not None)
    return [children] if children > 1 else []


def first_int(owners: Iterable[Any], names: tuple[str, ...]) -> int | None:
    """The first positive integer among these attributes of these objects."""
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _classes(router: nn.Module, num_experts: int) -> int:
    """Rows of the router's last projection, but for those that weigh the shared experts."""
    own = [int(w.shape[0]) for name, w in router.named_parameters(recurse=False) if w.dim() == 2 and "weight" in name]
    linears = [module.out_features for module in router.modules() if isinstance(module, nn.Linear)]
    found = own[-1] if own else linears[-1] if linears else num_experts
    shared = first_int((router,), _SHARED_COUNTS) or 0
    return num_experts if found - shared == num_experts else max(found, num_experts)


def _from_config(model: nn.Module, owners: tuple[nn.Module, ...], names: tuple[str, ...]) -> int | None:
    config = getattr(model, "config", None)
    configs = [getattr(owner, "config", None) for owner in owners]
    return first_int((*configs, getattr(config, "text_config", None), config), names)


def _groups(owners: tuple[nn.Module, ...]) -> int:
    """Expert groups, if fewer of them than all stay eligible; 1 otherwise."""
    if any(getattr(owner, "topk_method", None) == "greedy" for owner in owners):
        return 1
    groups, eligible = first_int(owners, _GROUPS), first_int(owners, _ELIGIBLE)
    return groups if groups is not None and eligible is not None and eligible < groups else 1


def _has_selection_bias(owners: tuple[nn.Module, ...]) -> bool:
    return any(isinstance(getattr(owner, name, None), Tensor | nn.Module) for owner in owners for name in _BIASES)


def _shared_experts(model: nn.Module, block_path: str) -> int:
    """Shared experts of a block or of the layer around it: as many as is said somewhere, one where nothing is said."""
    for path in _up_to_layer(block_path):
        owner = module_at(model, path)
        shared = [child for name in SHARED if isinstance(child := getattr(owner, name, None), nn.Module)]
        if shared:
            found = first_int((*shared, owner), _SHARED_COUNTS)
            return found or _from_config(model, (owner,), _SHARED_COUNTS) or 1
    return 0


def _up_to_layer(path: str) -> list[str]:
    """A block's path and those of its ancestors, up to the layer."""
    paths = [path]
    while not paths[-1].rpartition(".")[2].isdecimal() and parent_path(paths[-1]):
        paths.append(parent_path(paths[-1]))
    return paths


def _hash_note(router: nn.Module) -> str:
    return "experts are looked up by token id; the router only weighs them" if hasattr(router, "tid2eid") else ""
