"""Random numbers that depend only on a seed and on where they are used, so that a rewound run repeats them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def uniform(seed: int, site: int, positions: Tensor, width: int, stream: int = 0) -> Tensor:
    """``[T, width]`` float32 in (0, 1), a function of seed, site, sequence position, column and ``stream`` alone.

    A counter-based generator: two rounds of the 32-bit finaliser of MurmurHash3 (Appleby, public domain) over the
    mixed counters. Tokens at the same position of different sequences get the same numbers.
    """
    columns = torch.arange(width, device=positions.device, dtype=torch.int64)
    key = (seed * 0x9E3779B1 + site * 0x85EBCA77 + stream * 0xC2B2AE3D) & _MASK
    mixed = _mix((positions.long().unsqueeze(-1) * 0x27D4EB2F + columns * 0x165667B1 + key) & _MASK)
    mixed = _mix((mixed + key) & _MASK)
    return (mixed.float() + 0.5).clamp(max=2.0**32 - 256) / 2.0**32


def normal(seed: int, site: int, positions: Tensor, width: int) -> Tensor:
    """``[T, width]`` standard normal float32 by Box and Muller's transform of ``uniform``."""
    radius = torch.sqrt(-2.0 * torch.log(uniform(seed, site, positions, width, 1)))
    return radius * torch.cos(2.0 * math.pi * uniform(seed, site, positions, width, 2))


def _mix(value: Tensor) -> Tensor:
    value = value ^ (value >> 16)
    value = (value * 0x85EBCA6B) & _MASK
    value = value ^ (value >> 13)
    value = (value * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)
