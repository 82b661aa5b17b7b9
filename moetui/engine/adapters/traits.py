"""What a router's and its experts' attributes say of a site, whatever the model calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from moetui.engine.adapters.base import FoundSite, first_int, join_path, module_at, parent_path

_ROUTER_NAMES = ("gate", "router")
_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "num_routed_experts")
_TOP_K = ("top_k", "num_experts_per_tok", "moe_top_k", "moe_topk", "top_k_experts", "moe_k", "k")
_GROUPS = ("n_group", "num_expert_groups", "num_groups")
_LIMITS = ("topk_group", "num_limited_groups")
_BIASES = ("e_score_correction_bias", "expert_bias", "balancing_biases", "moe_statics", "expert_biases")


def find_router(model: nn.Module, experts_path: str) -> tuple[str, nn.Module] | None:
    """The router beside an experts module: path and module."""
    parent = module_at(model, parent_path(experts_path))
    for name in _ROUTER_NAMES:
        child = getattr(parent, name, None)
        if isinstance(child, nn.Module):
            return join_path(parent_path(experts_path), name), child
    return None


def describe_router(
    model: nn.Module, block_path: str, path: str, experts: nn.Module, router_path: str, router: nn.Module
) -> FoundSite:
    """Counts of experts, classes and slots, from attributes, the parameters' shapes and the configuration."""
    block = module_at(model, block_path)
    owners = (router, block, experts)
    num_experts = count_experts(experts) or first_of(owners, _EXPERT_COUNTS) or 0
    classes = count_classes(router) or num_experts
    top_k = first_of((router, block), _TOP_K) or from_config(model, owners, _TOP_K) or 1
    return FoundSite(
        path=path,
        router_path=router_path,
        block_path=block_path,
        experts=experts,
        router=router,
        block=block,
        num_experts=num_experts,
        num_classes=max(classes, num_experts),
        top_k=top_k,
        zero_experts=max(0, classes - num_experts),
        groups=limiting_groups(owners),
        selection_bias=has_selection_bias(owners),
    )


def count_experts(experts: nn.Module) -> int | None:
    """The leading size that most of the experts' own parameters share, or their number as child modules."""
    sizes = [parameter.shape[0] for parameter in experts.parameters(recurse=False) if parameter.dim() == 3]
    if sizes:
        return int(max(set(sizes), key=sizes.count))
    children = len(list(experts.children()))
    named = first_int(experts, _EXPERT_COUNTS)
    return named if named is not None else (children if children > 1 else None)


def count_classes(router: nn.Module) -> int | None:
    """Rows of the router's last projection."""
    own = [p.shape[0] for n, p in router.named_parameters(recurse=False) if p.dim() == 2 and "weight" in n]
    if own:
        return int(own[-1])
    linears = [module.out_features for module in router.modules() if isinstance(module, nn.Linear)]
    return int(linears[-1]) if linears else None


def first_of(owners: tuple[nn.Module, ...], names: tuple[str, ...]) -> int | None:
    """The first positive integer among these attributes of these modules."""
    for owner in owners:
        value = first_int(owner, names)
        if value is not None:
            return value
    return None


def from_config(model: nn.Module, owners: tuple[nn.Module, ...], names: tuple[str, ...]) -> int | None:
    """The same, from the modules' own configuration or the model's."""
    configs: list[Any] = [getattr(owner, "config", None) for owner in owners]
    config = getattr(model, "config", None)
    configs += [getattr(config, "text_config", None), config]
    for candidate in configs:
        for name in names:
            value = getattr(candidate, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def limiting_groups(owners: tuple[nn.Module, ...]) -> int:
    """Expert groups, if fewer of them than all stay eligible; 1 otherwise."""
    groups, kept = first_of(owners, _GROUPS), first_of(owners, _LIMITS)
    return groups if groups is not None and kept is not None and kept < groups else 1


def has_selection_bias(owners: tuple[nn.Module, ...]) -> bool:
    """Whether one of the modules holds a bias that takes part in the choice only."""
    for owner in owners:
        for name in _BIASES:
            if isinstance(getattr(owner, name, None), torch.Tensor | nn.Module):
                return True
    return False
