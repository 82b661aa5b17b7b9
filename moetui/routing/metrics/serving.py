"""What serving would make of a routing: an expert cache, a placement over devices."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.metrics.loads import load_imbalance
from moetui.routing.step import F64

_CELLS = 2_000_000  # numbers in the largest array made at once


def cache_hit_rates(indices: NDArray[Any], num_experts: int) -> F64:
    """Hit rate of an LRU cache of experts at one site, for every size of the cache.

    The tokens pass one after the other, as when one sequence is decoded. A token's experts are looked up together, in
    the cache as the token before left it, and are then the most recently used, its last slot the very latest. An
    expert hits where fewer than n others were used since its own last use; a first use never hits.

    Args:
        indices: ``[n, K]`` of one site, tokens in order, padding left out.
        num_experts: E; ids past it are left out.

    Returns:
        ``[E]``: entry n-1 is the rate of a cache of n experts; NaN without look-ups.
    """
    rows = np.minimum(indices, num_experts).astype(np.intp)
    slots = rows.shape[1]
    last = np.zeros(num_experts + 1, np.int64)
    hits = np.zeros(num_experts + 1, np.int64)
    lookups = 0
    step = max(1, _CELLS // ((num_experts + 1) * max(1, slots)))
    for start in range(0, rows.shape[0], step):
        chunk = rows[start : start + step]
        count = chunk.shape[0]
        used = np.zeros((count + 1, num_experts + 1), np.int64)
        used[0] = last
        for slot in range(slots):
            used[np.arange(1, count + 1), chunk[:, slot]] = (start + np.arange(count)) * slots + slot + 1
        used[:, num_experts] = 0
        used = np.maximum.accumulate(used, axis=0)
        last = used[-1]
        before = used[:-1]
        for slot in range(slots):
            expert = chunk[:, slot]
            fresh = (expert < num_experts) & ~(chunk[:, :slot] == expert[:, None]).any(1)
            mine = before[np.arange(count), expert]
            lookups += int(fresh.sum())
            met = fresh & (mine > 0)
            others = (before[met] > mine[met, None]).sum(1)
            hits += np.bincount(others, minlength=num_experts + 1)
    return np.cumsum(hits)[:num_experts] / (lookups or np.nan)


@dataclass(frozen=True, slots=True)
class Placement:
    """Which experts each device holds; an expert on several devices shares its load evenly among them."""

    devices: tuple[tuple[int, ...], ...]


def placement_loads(counts: NDArray[Any], placement: Placement) -> F64:
    """Load of each device, ``[D]``.

    Args:
        counts: ``[E]`` loads of one site.
        placement: where its experts are.

    Raises:
        ValueError: an expert with load is on no device.
    """
    load = np.asarray(counts, np.float64)
    held = np.zeros((len(placement.devices), load.shape[0]), np.float64)
    for device, experts in enumerate(placement.devices):
        for expert in experts:
            held[device, expert] += 1
    copies = held.sum(0)
    if ((copies == 0) & (load > 0)).any():
        raise ValueError("a placement must hold every expert that has load")
    return np.asarray(held @ (load / np.maximum(copies, 1)), np.float64)


def placement_imbalance(counts: NDArray[Any], placement: Placement) -> float:
    """Max over mean of the devices' loads; NaN without load. Arguments and errors as for ``placement_loads``."""
    return float(load_imbalance(placement_loads(counts, placement)))


def contiguous_placement(num_experts: int, devices: int) -> Placement:
    """Experts in order, as evenly many a device as can be: what expert parallelism does unasked."""
    parts = np.array_split(np.arange(num_experts), max(1, devices))
    return Placement(tuple(tuple(part.tolist()) for part in parts))


def balanced_placement(counts: NDArray[Any], devices: int, replicas: int = 0) -> Placement:
    """A greedy placement: replicate the heaviest experts, then put the heaviest copy on the lightest device.

    Every device holds at most ⌈(E + replicas) / D⌉ copies, and an expert at most once a device where that can be.
    This is the heuristic of EPLB (DeepSeek-V3, arXiv 2412.19437) for one group; an estimate of what could be had.

    Args:
        counts: ``[E]`` loads of one site.
        devices: D, at least 1.
        replicas: extra copies over the E experts.
    """
    load = np.asarray(counts, np.float64)
    devices = max(1, devices)
    copies = _replicate(load, min(max(0, replicas), load.size * (devices - 1)), devices)
    room = -(-int(copies.sum()) // devices)
    held: list[list[int]] = [[] for _ in range(devices)]
    weight = [0.0] * devices
    order: Sequence[int] = sorted(range(load.size), key=lambda expert: -load[expert] / copies[expert])
    for expert in order:
        for _ in range(int(copies[expert])):
            free = [device for device in range(devices) if len(held[device]) < room]
            fresh = [device for device in free if expert not in held[device]]
            device = min(fresh or free, key=lambda device: (weight[device], device))
            held[device].append(expert)
            weight[device] += float(load[expert] / copies[expert])
    return Placement(tuple(tuple(sorted(set(experts))) for experts in held))


def _replicate(load: F64, replicas: int, devices: int) -> NDArray[np.int64]:
    copies = np.ones(load.size, np.int64)
    heap = [(-float(value), expert) for expert, value in enumerate(load)]
    heapq.heapify(heap)
    for _ in range(replicas):
        while heap:
            _, expert = heapq.heappop(heap)
            if copies[expert] < devices:
                copies[expert] += 1
                heapq.heappush(heap, (-float(load[expert] / copies[expert]), expert))
                break
    return copies
