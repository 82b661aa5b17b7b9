"""Python values in a few lines: tensors, arrays and modules by what matters of them, everything else cut short.

Nothing is imported for it: what looks like a tensor is treated as one. To be called where the value may be touched.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from moetui.console.draw import glyph
from moetui.routing.timeline import view_text

_MOST_LINES = 60
_MOST_CHARS = 2000
_MOST_ITEMS = 12
_SAMPLE = 200_000
_FEW = 8
_BINS = 12


def summary(value: Any) -> list[str]:
    """``value`` in at most ``_MOST_LINES`` lines; not yet made drawable. Never raises an ``Exception``."""
    try:
        return _cut(_lines(value, 0))
    except Exception as error:  # noqa: BLE001 - a value's own code may raise anything; showing it must not
        return [f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"]


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array or a tensor."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("shape", "dtype", "ndim"))


def is_module(value: Any) -> bool:
    """Whether ``value`` is a module of a neural network."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("named_parameters", "named_children"))


def is_timeline(value: Any) -> bool:
    """Whether ``value`` is a view of a timeline."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("first", "end", "sites", "routing"))


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"… {more:,} lines more"]


def _lines(value: Any, depth: int) -> list[str]:
    if is_array(value):
        return [_array(value)]
    if is_module(value):
        return _module(value)
    if is_timeline(value):
        return [view_text(value)]
    if depth < 2 and isinstance(value, Mapping) and any(_special(item) for item in list(value.values())[:_MOST_ITEMS]):
        return _items(type(value).__name__, [(str(key), item) for key, item in value.items()], depth)
    if depth < 2 and isinstance(value, list | tuple) and any(_special(item) for item in value[:_MOST_ITEMS]):
        return _items(
            f"{type(value).__name__} of {len(value):,}", [(str(i), item) for i, item in enumerate(value)], depth
        )
    return _text(value)


def _special(value: Any) -> bool:
    return is_array(value) or is_module(value) or (isinstance(value, list | tuple) and any(map(is_array, value[:4])))


def _items(head: str, items: list[tuple[str, Any]], depth: int) -> list[str]:
    out = [head]
    for name, item in items[:_MOST_ITEMS]:
        first, *rest = _lines(item, depth + 1)
        out.append(f"  {name}: {first}")
        out += [f"  {line}" for line in rest]
    if len(items) > _MOST_ITEMS:
        out.append(f"  … {len(items) - _MOST_ITEMS:,} more")
    return out


def _text(value: Any) -> list[str]:
    if isinstance(value, str):
        return [
            repr(value[:_MOST_CHARS]) + (f" … {len(value) - _MOST_CHARS:,} more" if len(value) > _MOST_CHARS else "")
        ]
    if isinstance(value, list | tuple | set | frozenset | dict | bytes):
        short = reprlib.Repr()
        short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = 40
        short.maxstring = short.maxother = 200
        return short.repr(value)[:_MOST_CHARS].splitlines() or [""]
    if isinstance(value, int) and value.bit_length() > 4000:
        return [f"<int of {value.bit_length():,} bits>"]
    shown = repr(value)
    cut = shown[:_MOST_CHARS]
    return [
        *(cut.splitlines() or [""]),
        *([f"… {len(shown) - len(cut):,} characters more"] if len(shown) > len(cut) else []),
    ]


def _array(value: Any) -> str:
    """``float32 [6, 8] cpu  -2.1 … 3.4  mean 0.02  σ 0.98  ▁▂▅█▅▂▁``."""
    kind = str(value.dtype).removeprefix("torch.")
    shape = "×".join(map(str, value.shape)) or "scalar"
    device = getattr(value, "device", "")
    here = str(device) == "cpu" and not hasattr(value, "requires_grad")  # every array of NumPy's is there
    head = f"{kind} {shape}" + (f" {device}" if device and not here else "")
    if getattr(value, "requires_grad", False):
        head += " grad"
    if str(device) == "meta" or 0 in tuple(value.shape):
        return head
    numbers, sampled = _numbers(value)
    if numbers is None:
        return head
    if len(tuple(value.shape)) <= 1 and numbers.size <= _FEW:
        listed = ", ".join(f"{number:.6g}" for number in numbers.tolist())
        return f"{head}  {listed if not value.shape else '[' + listed + ']'}"
    finite = numbers[np.isfinite(numbers)]
    wrong = numbers.size - finite.size
    if finite.size:
        head += f"  {finite.min():.4g} … {finite.max():.4g}  mean {finite.mean():.4g}  σ {finite.std():.4g}"
        head += "  " + _histogram(finite)
    if wrong:
        head += f"  {wrong:,} not finite"
    return head + ("  (of a sample)" if sampled else "")


def _numbers(value: Any) -> tuple[Any, bool]:
    """``[n]`` float64 of the values, at most ``_SAMPLE`` evenly taken; None where they are no numbers."""
    flat = value
    if hasattr(value, "detach"):
        flat = value.detach()
        if getattr(flat, "is_sparse", False) or getattr(flat, "is_quantized", False) or "complex" in str(flat.dtype):
            return None, False
    elif getattr(value.dtype, "kind", "f") not in "fiub":
        return None, False
    flat = flat.reshape(-1)
    stride = -(-int(flat.shape[0]) // _SAMPLE)
    flat = flat[::stride]
    if hasattr(flat, "detach"):
        flat = flat.double().cpu().numpy()
    return np.asarray(flat, np.float64), stride > 1


def _histogram(values: Any) -> str:
    low, high = float(values.min()), float(values.max())
    if not low < high or not np.isfinite(high - low):
        return ""
    counts = np.histogram(values, _BINS, (low, high))[0]
    return "".join(glyph(float(count) / float(counts.max())) for count in counts)


def _module(value: Any) -> list[str]:
    parameters = list(value.named_parameters())
    count = sum(int(parameter.numel()) for _, parameter in parameters)
    kinds = sorted({str(parameter.dtype).removeprefix("torch.") for _, parameter in parameters})
    devices = sorted({str(parameter.device) for _, parameter in parameters})
    out = [f"{type(value).__name__}  {count:,} parameters  {' '.join(kinds)}  {' '.join(devices)}".rstrip()]
    own = list(value.named_parameters(recurse=False))
    out += [f"  {name}  {_array(parameter)}" for name, parameter in own[:_MOST_ITEMS]]
    children = list(value.named_children())
    for name, child in children[:_MOST_ITEMS]:
        inside = sum(int(parameter.numel()) for parameter in child.parameters())
        out.append(f"  {name}  {type(child).__name__}  {inside:,}")
    if len(children) > _MOST_ITEMS:
        out.append(f"  … {len(children) - _MOST_ITEMS:,} more")
    return out
