"""Typed arrays as plain maps: little-endian, in byte planes, which compress far better than whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgpack
import numpy as np
from numpy.typing import NDArray

from moetui.trace.frames import DamagedError, Piece

Array: TypeAlias = NDArray[Any]

_DTYPES = frozenset({"|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<i8", "<f2", "<f4", "<f8"})
_MAX_AXES = 4


def pack_array(array: Array, layout: str = "") -> dict[str, Any]:
    """An array as ``{"dtype", "shape", "data"}``; ``data`` holds byte 0 of all numbers, then byte 1, and so on.

    Args:
        array: the numbers as they are to stand in the file.
        layout: how they say what is meant, if they are not that themselves: one of ``moetui.trace.layouts.LAYOUTS``.
    """
    array = np.ascontiguousarray(array)
    dtype = array.dtype.newbyteorder("<")
    planes = array.astype(dtype, copy=False).reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize)
    kind = {"dtype": dtype.str, "layout": layout} if layout else {"dtype": dtype.str}
    return {**kind, "shape": list(array.shape), "data": planes.T.tobytes()}


def pack_table(columns: Mapping[str, Mapping[str, Any]]) -> list[Piece]:
    """Packed arrays by name as one MessagePack map, cut where numbers of another kind begin: at each plane of bytes."""
    out: list[Piece] = [msgpack.Packer().pack_map_header(len(columns))]
    for name, packed in columns.items():
        whole = memoryview(msgpack.packb(name) + msgpack.packb(packed))
        start, planes = len(whole) - len(packed["data"]), np.dtype(packed["dtype"]).itemsize
        size = len(packed["data"]) // planes
        out += [whole[:start], *(whole[start + size * each : start + size * (each + 1)] for each in range(planes))]
    return out


def unpack_array(packed: object) -> Array:
    """The numbers of ``pack_array`` as they stand in the file, read-only.

    Raises:
        DamagedError: dtype, shape and data do not fit each other.
    """
    if not isinstance(packed, Mapping):
        raise DamagedError("an array is missing")
    dtype, shape, data = packed.get("dtype"), packed.get("shape"), packed.get("data")
    if dtype not in _DTYPES or not isinstance(shape, list) or len(shape) > _MAX_AXES or not isinstance(data, bytes):
        raise DamagedError("an array of unknown form")
    if not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise DamagedError("an array of impossible shape")
    kind = np.dtype(str(dtype))
    if math.prod(shape) * kind.itemsize != len(data):
        raise DamagedError("an array's shape does not fit its data")
    planes = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1)
    if kind.itemsize == 1:
        array = planes[0].view(kind)
    elif kind.itemsize == 2:  # most of a file, and much faster so
        joined = planes[1].astype(np.uint16)
        joined <<= 8
        joined |= planes[0]
        array = joined.astype("<u2", copy=False).view(kind)
    else:
        array = np.ascontiguousarray(planes.T).reshape(-1).view(kind)
    if kind.kind == "b":
        array = planes[0] != 0  # a byte other than 0 and 1 is no bool
    array = array.astype(kind.newbyteorder("="), copy=False).reshape(shape)
    out: Array = array
    out.flags.writeable = False
    return out


def widen(array: Array, width: int, fill: Any) -> Array:
    """``array`` with its last axis brought to ``width``: cut, or filled up with ``fill``."""
    present = array.shape[-1]
    if present == width:
        return array
    if present > width:
        return array[..., :width]
    out = np.full((*array.shape[:-1], width), fill, array.dtype)
    out[..., :present] = array
    return out


def unknown(shape: tuple[int, ...], dtype: Any, fill: Any) -> Array:
    """An array of ``shape`` full of ``fill`` that takes no memory."""
    return np.broadcast_to(np.array(fill, dtype), shape)
