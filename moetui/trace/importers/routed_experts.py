"""Routed-experts dumps of vLLM and SGLang: ``.npy`` files, base64 of them, and responses that hold them. Ids only."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import Branch, Finding
from moetui.routing.phase import Phase
from moetui.routing.step import NO_EXPERT
from moetui.trace.arrays import Array
from moetui.trace.importers.base import COUNTED, Imported, Opening, Passage, model_of, narrow_experts, write_trace

_NPY = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|>][iu][1248])', 'fortran_order': (True|False), 'shape': "
    rb"\((\d{1,12}, ?\d{1,12}, ?\d{1,12})\),? ?\}\s*\Z"
)
_NPY_BASE64 = base64.b64encode(_NPY)[:7].decode()
_KEYS = ("routed_experts", "prompt_routed_experts")
_MAX_BYTES = 4 << 30
_LAYER_KEYS = ("num_hidden_layers", "num_layers")
_START_KEYS = ("routed_experts_start_len",)
_EXPERTS_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")
_TOP_K_KEYS = ("top_k", "num_experts_per_tok", "moe_top_k")
_GUESSED = Finding(
    "import_shape_guessed",
    "info",
    "the dump does not say its numbers of layers and slots; they were found by trying",
    "put num_hidden_layers and top_k beside routed_experts to be sure",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What one choice holds: its array, the position of its first token, and how many are the prompt's, if known."""

    array: Array
    first: int = 0
    prompt: int | None = None


def fits(opening: Opening) -> bool:
    """Whether it is an array, base64 of one, or a response with one."""
    if opening.data.startswith(_NPY) or opening.text.startswith(_NPY_BASE64):
        return True
    return opening.is_json and opening.has_key(*_KEYS)


def read(path: Path, out: Path, overwrite: bool) -> Imported:
    """Import it: a branch a response's choice. Weights and entropies stay unknown.

    Blocks of zeros mean that the server's capture failed: they are left unknown, and a finding says so.

    Raises:
        TraceError: it makes no sense, or the trace cannot be written.
    """
    data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    findings: list[Finding] = []
    said = 0
    if data.startswith(_NPY):
        found = [_Found(_npy(data))]
    elif data.lstrip().startswith(_NPY_BASE64.encode()):
        found = [_Found(_npy(_base64(data)))]
    else:
        found, said = _from_json(data, path.name, findings)
    arrays = [each.array for each in found]
    if not arrays:
        raise TraceError(
            f"{path.name} holds no routed experts", "was the server started with the flag that returns them?"
        )
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1:
        raise TraceError(f"{path.name}: the choices have different numbers of layers or slots", "the dump is damaged")
    experts = said or max(int(array.max(initial=-1)) for array in arrays) + 1
    if not said:
        findings.append(COUNTED)
    blocks = [narrow_experts(array, experts, path.name) for array in arrays]
    layers = _routed_layers(blocks, findings)
    kept = [_without_zeros(block[:, layers], findings) for block in blocks]
    info = model_of(path.stem, layers, experts, blocks[0].shape[2])
    branches, tokens = [], 0
    for number, block in enumerate(kept):
        branches.append(Branch(number, number, f"choice {number}", first_token=tokens))
        tokens += len(block)
    return write_trace(
        out,
        info,
        _passages(kept, found),
        source="a dump of routed experts",
        has_weights=False,
        has_logits=False,
        branches=branches,
        findings=findings,
        overwrite=overwrite,
    )


def _passages(blocks: list[Array], found: list[_Found]) -> Iterator[Passage]:
    """Prompts in one step each, and what is known to be generated token by token."""
    for number, (block, told) in enumerate(zip(blocks, found)):
        prompt = len(block) if told.prompt is None else min(told.prompt, len(block))
        position = np.arange(told.first, told.first + len(block))
        if prompt:
            yield Passage(block[:prompt], position=position[:prompt], branch=number)
        for row in range(prompt, len(block)):
            each = slice(row, row + 1)
            yield Passage(block[each], position=position[each], branch=number, phase=Phase.DECODE)


def _routed_layers(blocks: list[Array], findings: list[Finding]) -> list[int]:
    """The layers that were routed; those that are zero throughout are dense, or were not captured."""
    if not any(block.size for block in blocks):
        raise TraceError("the dump holds no tokens", "check what wrote it")
    everywhere = range(blocks[0].shape[1])
    silent = [layer for layer in everywhere if not any(block[:, layer].any() for block in blocks)]
    if len(silent) == len(everywhere):
        raise _all_zero()
    if silent:
        names = ", ".join(map(str, silent[:8])) + (" ..." if len(silent) > 8 else "")
        message = f"layers {names} hold zeros only: dense layers, or not captured; they are left out"
        findings.append(Finding("import_silent_layers", "info", message, "compare with the model's configuration"))
    return [layer for layer in everywhere if layer not in silent]


def _all_zero() -> TraceError:
    return TraceError("all routed experts are zero: the server's capture failed", "capture again")


def _without_zeros(block: Array, findings: list[Finding]) -> Array:
    failed = ~block.any(axis=(1, 2))
    if not failed.any():
        return block
    findings.append(
        Finding(
            "import_zero_block",
            "warning",
            f"{int(failed.sum())} of {len(block)} tokens hold zeros only: their capture failed; shown as unknown",
            "capture again, or leave these tokens out",
        )
    )
    out: Array = block.copy()
    out[failed] = NO_EXPERT
    return out


def _npy(data: bytes) -> Array:
    """The array of a ``.npy`` file; its header is matched, not evaluated."""
    wide = data[6:7] > b"\x01"  # versions 2 and 3 have a length of four bytes
    start = 12 if wide else 10
    stop = start + int.from_bytes(data[8:start], "little")
    match = _NPY_HEADER.match(data[start:stop])
    if match is None:
        raise TraceError("an array that is not tokens × layers × slots of expert ids", "the dump is damaged")
    dtype, shape = np.dtype(match[1].decode()), tuple(int(size) for size in match[3].split(b","))
    if math.prod(shape) * dtype.itemsize != len(data) - stop:
        raise TraceError("an array of another size than it says", "the dump is damaged, or cut off")
    array = np.frombuffer(data, dtype, offset=stop).reshape(shape, order="F" if match[2] == b"True" else "C")
    return _sane(array)


def _sane(array: Array) -> Array:
    if array.size and (int(array.max()) >= NO_EXPERT or int(array.min()) < -1):
        raise TraceError("expert ids that cannot be", "the dump is damaged, or of another shape")
    return array.astype(np.int64)


def _base64(text: str | bytes) -> bytes:
    """Bytes of base64 in one line or in many."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise TraceError("routed experts that are no base64", "the dump is damaged") from None


def _from_json(data: bytes, name: str, findings: list[Finding]) -> tuple[list[_Found], int]:
    """What there is, and how many experts the file says there are, 0 where it does not."""
    try:
        responses = _responses(data)
    except (ValueError, RecursionError):
        raise TraceError(f"{name} is no JSON that can be read", "the dump is damaged") from None
    arrays: list[_Found] = []
    for response in responses:
        if isinstance(response, dict):
            arrays.extend(_response(response, findings))
    holders = [each.get("meta_info") for each in responses if isinstance(each, dict)]
    return arrays, _number([*responses, *holders], _EXPERTS_KEYS) or 0


def _responses(data: bytes) -> list[Any]:
    """Those of one response, of a list of them, or of one a line."""
    try:
        document = json.loads(data)
    except json.JSONDecodeError:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]
    return document if isinstance(document, list) else [document]


def _response(response: dict[str, Any], findings: list[Finding]) -> list[_Found]:
    """What one response holds; a prompt's part stands before its choice's."""
    prompt = response.get("prompt_routed_experts")
    holders = [response, response.get("meta_info"), response.get("sglext")]
    choices = response.get("choices")
    if isinstance(choices, list):
        holders += choices + [each.get("sglext") for each in choices if isinstance(each, dict)]
    out = []
    for holder in holders:
        value = holder.get("routed_experts") if isinstance(holder, dict) else None
        if value is None:
            continue
        beside = [holder, response, response.get("meta_info"), response.get("usage")]
        array = _decode(value, beside, findings)
        own = holder.get("prompt_routed_experts", prompt) if isinstance(holder, dict) else None
        if own is None:
            first, tokens = _number(beside, _START_KEYS) or 0, _number(beside, ("prompt_tokens",))
            out.append(_Found(array, first, None if tokens is None else max(0, tokens - first)))
            continue
        before = _decode(own, [response], findings)
        if before.shape[1:] != array.shape[1:]:
            raise TraceError("prompt and choice have different numbers of layers or slots", "the dump is damaged")
        out.append(_Found(np.concatenate([before, array]), 0, len(before)))
    if not out and prompt is not None:
        out.append(_Found(_decode(prompt, [response], findings)))
    return out


def _decode(value: Any, beside: list[Any], findings: list[Finding]) -> Array:
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:
            array = np.empty(0)
        if array.ndim != 3 or array.dtype.kind not in "iu":
            raise TraceError("routed experts that are not tokens × layers × slots", "the dump is damaged")
        return _sane(array)
    if not isinstance(value, str):
        raise TraceError("routed experts of no form known", "the dump is damaged")
    data = _base64(value)
    return _npy(data) if data.startswith(_NPY) else _raw(data, beside, findings)


def _raw(data: bytes, beside: list[Any], findings: list[Finding]) -> Array:
    """SGLang's: little-endian int32 without a shape."""
    if len(data) % 4 or not data:
        raise TraceError("routed experts that are no 32-bit numbers", "the dump is damaged")
    flat = _sane(np.frombuffer(data, "<i4"))
    layers, top_k = _number(beside, _LAYER_KEYS), _number(beside, _TOP_K_KEYS)
    if layers and top_k:
        if len(flat) % (layers * top_k):
            raise TraceError(f"routed experts that are not tokens × {layers} × {top_k}", "check the two numbers")
        return flat.reshape(-1, layers, top_k)
    prompt, generated = _number(beside, ("prompt_tokens",)), _number(beside, ("completion_tokens",))
    rows = (prompt or 0) + (generated or 0) - 1 - (_number(beside, _START_KEYS) or 0)
    if not prompt or rows < 1 or len(flat) % rows:
        if not flat.any():  # a shape would not help
            raise _all_zero()
        raise TraceError(
            "routed experts without a shape", "put num_hidden_layers and top_k beside routed_experts in the file"
        )
    findings.append(_GUESSED)
    return _guess(flat.reshape(rows, -1))


def _guess(rows: Array) -> Array:
    """``[tokens, layers × slots]`` cut into the most slots of which no token has an expert twice in a layer."""
    width = rows.shape[1]
    for top_k in range(min(width, 64), 0, -1):
        if width % top_k == 0:
            cut = rows.reshape(len(rows), -1, top_k)
            ordered = np.sort(cut, axis=-1)
            twice = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1) & cut.any(axis=-1)
            if not twice.any():
                return cut
    return rows[:, :, None]


def _number(holders: list[Any], names: tuple[str, ...]) -> int | None:
    for holder in holders:
        for name in names:
            value = holder.get(name) if isinstance(holder, dict) else None
            if type(value) is int and 0 < value < 1 << 24:
                return value
    return None
