"""Forward passes of analyses: teacher-forced, their routing noted, and the model afterwards as it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moetui.engine.adapters import Gate, RoutingFunction, SiteHandle
from moetui.engine.adapters.base import Watch
from moetui.engine.adapters.current import Current
from moetui.engine.gather import Gatherer, SiteTensors
from moetui.engine.inputs import TokenInputs
from moetui.engine.modules import input_device
from moetui.engine.raw import RawStep
from moetui.engine.rewind import kept_generators
from moetui.engine.streams import next_tokens
from moetui.routing import ModelError, MoetuiError, UnsupportedError

_ROWS = 128  # tokens whose next-token distributions are worked out together


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """What a pass over one sequence gave.

    Attributes:
        logits: ``[n, V]`` of its last n tokens, in the model's type and on its device; empty where none were wanted.
        sites: by number, what the tokens went to; sites that were not passed are missing.
    """

    logits: Tensor
    sites: dict[int, SiteTensors]


class _Tap:
    """What the adapters' hooks write to, apart from the capture's own."""

    def __init__(self, functions: Sequence[RoutingFunction | None]) -> None:
        self.current = Current()
        self.functions = list(functions)
        self.gate: Gate | None = None
        self.wants_logits = True
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = self.error or error


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Within it the model computes as in evaluation and without gradients; afterwards all is as it was before.

    That is: modes, what modules keep from their last pass, random generators, and how experts run (a run that waits
    while it decodes has set them to what wastes memory on a whole sequence).
    """
    # What some models keep between passes (positions of images, frequencies for a length) lies in attributes.
    kept = [(vars(module), dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    with torch.no_grad(), kept_generators(), _whole_sequences(model):
        try:
            for attributes, _, _ in kept:
                attributes["training"] = False
            yield
        finally:
            for attributes, before, buffers in kept:
                _put_back(attributes, before)
                _put_back(attributes["_buffers"], buffers)


@contextmanager
def in_words(tokens: int) -> Iterator[None]:
    """Within it what a model raises that runs so many tokens is a ``ModelError`` in one line."""
    try:
        yield
    except MoetuiError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"out of memory in the analysis of {tokens} tokens", "a shorter run needs less of it"
        ) from error
    except Exception as error:  # the model's own code may raise anything
        words = " ".join(str(error).split())
        raise ModelError(f"the model failed in the analysis: {type(error).__name__}: {words}") from error


def forward(model: nn.Module, ids: Sequence[int], *, logits: int = 0) -> Tensor:
    """Run one sequence, without a cache; ``[n, V]`` logits of its last ``logits`` tokens.

    Raises:
        as ``forward_rows``.
    """
    return forward_rows(model, [ids], logits=logits)[0]


def forward_rows(model: nn.Module, rows: Sequence[Sequence[int]], *, logits: int = 0) -> Tensor:
    """Run sequences of one length beside each other, without a cache; ``[B, n, V]`` logits of their last n tokens.

    Raises:
        UnsupportedError: logits are wanted of a model that gives no next-token logits.
        ModelError: the model failed.
    """
    if logits and not next_tokens(model):
        raise UnsupportedError(f"{type(model).__name__} gives no probabilities of next tokens")
    tokens = torch.tensor([list(ids) for ids in rows], dtype=torch.long, device=input_device(model))
    arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        arguments["logits_to_keep"] = max(1, logits)
    with in_words(tokens.numel()):
        output = model(**arguments)
    return output.logits[:, -logits:] if logits else tokens.new_empty((len(rows), 0, 0))


def routed(
    model: nn.Module,
    handles: Sequence[SiteHandle],
    ids: Sequence[int],
    *,
    logits: int = 0,
    functions: Mapping[int, RoutingFunction] | None = None,
) -> Passed:
    """``forward`` with the routing that the experts received.

    Args:
        handles: all sites of the model.
        functions: change the routing of sites, by number, after what is in force.
    """
    found = routed_rows(model, handles, [ids], logits=logits, functions=functions)
    return Passed(found.logits[0], found.sites)


def routed_rows(
    model: nn.Module,
    handles: Sequence[SiteHandle],
    rows: Sequence[Sequence[int]],
    *,
    logits: int = 0,
    functions: Mapping[int, RoutingFunction] | None = None,
) -> Passed:
    """``routed`` for sequences of one length: logits ``[B, n, V]``, the sites' tokens one sequence after another."""
    tap = _Tap([(functions or {}).get(handle.site.index) for handle in handles])
    raw = RawStep(-1, 0, tap, len(handles))
    raw.inputs["decoder"] = TokenInputs("decoder", shape=(len(rows), len(rows[0])))
    watches: list[Watch] = []
    try:
        watches.extend(handle.adapter.install(handle, tap) for handle in handles)
        tap.current.frame = raw
        found = forward_rows(model, rows, logits=logits)
    finally:
        for watch in watches:
            watch.remove()
    if tap.error is not None:
        raise tap.error
    gathered = Gatherer(tuple(handles)).gather(raw)
    tokens = len(rows) * len(rows[0])
    return Passed(found, {site.number: site for site in gathered.sites if site.indices.shape[0] == tokens})


def logprobs(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """``[n]`` float32 log-probabilities of ``ids`` under ``[n, V]`` logits, on the host."""
    out = []
    for begin in range(0, len(ids), _ROWS):
        rows = logits[begin : begin + _ROWS].float()
        wanted = torch.tensor(list(ids[begin : begin + _ROWS]), device=rows.device).unsqueeze(-1)
        out.append(rows.gather(-1, wanted).squeeze(-1) - rows.logsumexp(-1))
    return torch.cat(out).cpu() if out else torch.empty(0)


@contextmanager
def _whole_sequences(model: Any) -> Iterator[None]:
    """Undo, for a while, that ``generate`` copies each token's experts: for a whole sequence that fills the memory."""
    own: Any = getattr(model, "get_experts_implementation", dict)()
    if not isinstance(own, dict) or "batched_mm" not in own.values() or model.device.type == "cpu":
        yield
        return
    try:
        model.set_experts_implementation({key: "grouped_mm" if v == "batched_mm" else v for key, v in own.items()})
        yield
    finally:
        model.set_experts_implementation(own)


def _put_back(values: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in values if name not in before]:
        del values[name]
    for name, value in before.items():
        if name not in values or values[name] is not value:
            values[name] = value
