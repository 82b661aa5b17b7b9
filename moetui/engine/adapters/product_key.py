"""Experts that are single neurons, found by a pair of keys (Doge): embeddings looked up by expert id."""

from __future__ import annotations

import math
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn

from moetui.engine.adapters.base import FoundSite, RouterCall, SiteHandle, Tap, Watch, join_path, run_function
from moetui.engine.adapters.traits import TOP_K, first_int
from moetui.routing.model import SiteKind

_NOTE = "an expert is a pair of keys: the logits are the keys', first {keys} rows, then {keys} columns"


class ProductKeyAdapter:
    """A block with ``router_gate``, ``down_embed`` and ``up_embed``; expert ``i`` is the keys ``(i // n, i % n)``.

    The gate weights are formed inside the block: they are computed again from the keys' logits, and changed by scaling
    what ``up_embed`` returns.
    """

    kind: SiteKind = "product_key"

    def find(self, model: nn.Module) -> list[FoundSite]:
        """Every block with these three parts."""
        found = []
        for path, block in model.named_modules():
            gate, down, up = (getattr(block, name, None) for name in ("router_gate", "down_embed", "up_embed"))
            if (
                not isinstance(gate, nn.Linear)
                or not isinstance(down, nn.Embedding)
                or not isinstance(up, nn.Embedding)
            ):
                continue
            keys = gate.out_features // 2
            found.append(
                FoundSite(
                    path=path,
                    router_path=join_path(path, "router_gate"),
                    experts=block,
                    router=gate,
                    block=block,
                    num_experts=down.num_embeddings,
                    num_classes=gate.out_features,
                    top_k=first_int((block,), TOP_K) or 1,
                    note=_NOTE.format(keys=keys),
                )
            )
        return found

    def install(self, handle: SiteHandle, tap: Tap) -> Watch:
        """Hooks on the gate and around both embeddings."""
        hooks = _Hooks(self, handle, tap)
        down, up = handle.block.get_submodule("down_embed"), handle.block.get_submodule("up_embed")
        return Watch(
            handle.router.register_forward_hook(hooks.on_gate, with_kwargs=True),
            down.register_forward_pre_hook(hooks.on_down),
            up.register_forward_pre_hook(hooks.on_up),
            up.register_forward_hook(hooks.after_up),
        )

    def is_plain(self, handle: SiteHandle) -> bool:
        """Routing has to be decoded here."""
        return False

    def decode(self, handle: SiteHandle, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """The ids that were looked up, and the softmax of their keys' logits over the chosen."""
        indices, other = first, second
        if other.shape == indices.shape:
            return indices, other
        logits = self.logits(handle, other)
        assert logits is not None
        keys = logits.shape[-1] // 2
        scores = logits.gather(1, indices // keys) + logits.gather(1, keys + indices % keys)
        return indices, scores.softmax(-1)

    def logits(self, handle: SiteHandle, output: Any) -> Tensor | None:
        """``[T, 2n]`` the two key logits that decide each token, as the block splits them."""
        keys = output.shape[-1] // 2
        tokens = math.prod(output.shape[:-1])
        # The block splits the flat buffer in two halves, so with several tokens the rows are not the gate's.
        return torch.cat(tuple(output.reshape(2, tokens, keys)), -1)

    def refusal(self, handle: SiteHandle) -> str:
        """Nothing stands in the way, as long as every token keeps its k slots."""
        return ""


class _Hooks:
    """The hooks of one site: what the gate said is needed when the embeddings are looked up."""

    def __init__(self, adapter: ProductKeyAdapter, handle: SiteHandle, tap: Tap) -> None:
        self._adapter, self._handle, self._tap = adapter, handle, tap
        self._call, self._here = RouterCall(), True
        self._indices: Tensor | None = None
        self._factors: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hooks:
        """A copy of the model keeps the hooks: at its gate, which comes first, they see that it is none of theirs."""
        return self

    def on_gate(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._here = module is self._handle.router
        if not self._here:
            return
        call, frame = self._call, self._tap.current.frame
        call.args, call.kwargs, call.output = args, kwargs, output
        if frame is not None:
            number = self._handle.site.index
            frame.returned(number, output)

    def on_down(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        tap, number = self._tap, self._handle.site.index
        self._indices = self._factors = None
        if not self._here:
            return None
        try:
            frame, call = tap.current.frame, self._call
            changed = None
            if tap.gate is not None or tap.functions[number] is not None:
                routing = args[0], call.output
                indices, weights = self._adapter.decode(self._handle, *routing)
                changed = run_function(self._handle, tap, call, routing, indices, weights, call.args[0])
                if changed is not None:
                    # What the block multiplies by nothing cannot be scaled: such a slot stays without weight.
                    ran = changed[1].masked_fill(weights == 0, 0.0)
                    changed = changed[0], ran
                    self._indices, self._factors = changed[0], ran / weights.masked_fill(weights == 0, 1.0)
            if frame is not None:
                frame.note(number, perf_counter_ns(), *(changed or (args[0], call.output)))
                if changed:
                    frame.changed(number, args[0], call.output)
            return None if changed is None else (changed[0],)
        except Exception as error:  # noqa: BLE001 - whatever breaks here must not break the model
            tap.fail(error)
            return None

    def on_up(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self._indices is None else (self._indices,)

    def after_up(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        factors, self._indices, self._factors = self._factors, None, None
        return None if factors is None else output * factors.unsqueeze(-1).to(output.dtype)
