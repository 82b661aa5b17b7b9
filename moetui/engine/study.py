"""What the first passes teach of a model: how each site scores and chooses, and which sites stay silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from moetui.engine.adapters.base import SiteHandle, rows
from moetui.engine.adapters.current import Current
from moetui.engine.adapters.traits import selection_traits
from moetui.engine.gather import Gathered, SiteTensors
from moetui.engine.raw import ProbeRows
from moetui.engine.scoring import Rule, expert_scale, find_form, find_rule, with_rule
from moetui.engine.selection import ENOUGH_TOKENS, find_selection
from moetui.routing import ModelInfo, Selection, Site
from moetui.routing.diagnostics import OTHER_INPUT, serves_other_input
from moetui.routing.events import Event, Finding, FindingRaised, ModelChanged

_SAMPLE = 64  # tokens looked at
_MORE = 1.2  # times the tokens that did not tell what chooses: looking costs more than what one more could tell
_ATTEMPTS = 8  # passes after which a rule that cannot be told stays unknown

_Sample: TypeAlias = tuple[Tensor, Tensor, Tensor]  # logits, indices and weights of some tokens


class Study:
    """Learns what it can from a capture's first passes, then does nothing.

    Args:
        handles: the sites.
        info: what is known of the model so far.
        current: where probes find the pass.
        on_event: told when more is known, in the recorder's thread.
    """

    def __init__(
        self,
        handles: tuple[SiteHandle, ...],
        info: ModelInfo,
        current: Current,
        on_event: Callable[[Event], None],
    ) -> None:
        self._handles, self._info, self._on_event = handles, info, on_event
        self._probes = {handle.site.index: Probe(handle, current) for handle in handles}
        self._samples: dict[int, list[_Sample]] = {}
        self._attempts = dict.fromkeys(self._probes, 0)
        self._open = self._watched = set(self._probes)
        self._rules: dict[int, Rule] = {}
        self._tried: dict[int, int] = {}
        self._traits = {handle.site.index: selection_traits(handle) for handle in handles}
        self._learned: set[int] = set()
        self._unheard = {handle.site.stack for handle in handles}

    def watch(self, numbers: set[int], *, logits: bool) -> None:
        """Expect to hear of these sites alone; without logits there is no rule to be found.

        What chooses is found anew where the selection bias is another than before.
        """
        self._watched = numbers
        for number in numbers:
            before, (bias, _) = self._traits[number], selection_traits(self._handles[number])
            if bias is not None and (before[0] is None or not bias.equal(before[0])):
                self._traits[number] = bias, before[1]
                self._learned.discard(number)
                self._samples.pop(number, None)
                self._tried.pop(number, None)
        self._open = numbers - self._learned if logits else set()

    @property
    def open(self) -> bool:
        """Whether there is anything left to learn."""
        return bool(self._open or self._unheard)

    @property
    def hooks(self) -> list[RemovableHandle]:
        """The probes' hooks."""
        return [hook for probe in self._probes.values() for hook in probe.hooks]

    def attach(self) -> None:
        """Put probes on the routers that are not understood yet."""
        for number in self._open - self._rules.keys():
            self._probes[number].attach()

    def detach(self) -> None:
        """Take the probes off."""
        for probe in self._probes.values():
            probe.detach()

    def __call__(self, gathered: Gathered) -> None:
        """Look at a pass whose tensors are on the host."""
        if self._unheard:
            self._report_silent(gathered)
        if not self._open:
            return
        learned: dict[int, Site] = {}
        for passed in gathered.sites:
            if passed.number in self._open:
                site = self._learn(passed, gathered.raw.probes.get(passed.number))
                if site is not None:
                    learned[passed.number] = site
        if learned:
            sites = tuple(learned.get(site.index, site) for site in self._info.sites)
            self._info = replace(self._info, sites=sites)
            self._on_event(ModelChanged(self._info))

    def _learn(self, passed: SiteTensors, kept: ProbeRows | None) -> Site | None:
        """The site with what its tokens so far teach; None if that is nothing new."""
        number = passed.number
        indices = passed.indices if passed.before_indices is None else passed.before_indices
        weights = passed.weights if passed.before_weights is None else passed.before_weights
        if passed.logits is None or passed.logits.shape[0] != indices.shape[0]:
            return None
        samples = self._samples.setdefault(number, [])
        if samples and samples[0][1].shape[1] != indices.shape[1]:
            samples.clear()  # the model's own top-k was changed
        samples.append((passed.logits[:ENOUGH_TOKENS], indices[:ENOUGH_TOKENS], weights[:ENOUGH_TOKENS]))
        before = site = self._info.sites[number]
        if number not in self._rules:
            site = self._with_rule(site, samples, passed.logits, kept)
        if number in self._rules:
            site = self._with_selection(site, samples)
        return None if site == before else site

    def _with_rule(self, site: Site, samples: list[_Sample], output: Tensor, kept: ProbeRows | None) -> Site:
        number = site.index
        first = [[each[:_SAMPLE] for each in parts] for parts in samples]
        logits, indices, weights = (torch.cat(parts) for parts in zip(*first))
        probe, scale = self._probes[number], expert_scale(self._handles[number].router)
        # An expert found by a pair of keys has no logit of its own that its weight could follow from.
        rule = Rule() if site.kind == "product_key" else find_rule(logits, indices, weights, scale)
        self._attempts[number] += 1
        if rule is None and self._attempts[number] < _ATTEMPTS:
            return site
        self._rules[number] = rule or Rule()
        form = find_form(*probe.compare(output, kept))
        probe.detach()
        return with_rule(site, self._rules[number], form, by_expert=scale is not None)

    def _with_selection(self, site: Site, samples: list[_Sample]) -> Site:
        rows = sum(len(parts[0]) for parts in samples)
        if rows < min(ENOUGH_TOKENS, _MORE * self._tried.get(site.index, 0)):
            return site
        self._tried[site.index] = rows
        logits, indices, _ = (torch.cat(parts) for parts in zip(*samples))
        if site.kind == "product_key":
            found: Site | None = replace(site, selection=Selection())
        else:
            found = find_selection(site, self._rules[site.index].scoring, logits, indices, *self._traits[site.index])
        if found is None:
            return replace(site, selection=None)
        self._open = self._open - {site.index}
        self._learned.add(site.index)
        self._samples.pop(site.index, None)
        return found

    def _report_silent(self, gathered: Gathered) -> None:
        """Name the sites that a pass over their stack's tokens did not reach."""
        called = [stack for stack in gathered.inputs if stack in self._unheard]
        heard = {passed.number for passed in gathered.sites}
        for stack in called:
            self._unheard.discard(stack)
            for handle in self._handles:
                site = handle.site
                if site.stack == stack and site.index in self._watched - heard:
                    self._on_event(FindingRaised(silent(site)))


def silent(site: Site) -> Finding:
    """A site that no token reached in the first pass."""
    if serves_other_input(site):
        message = f"no token reached {site.name} in the first pass: it serves images or sound"
        return Finding("site_silent", "info", message, OTHER_INPUT, site.name)
    return Finding(
        "site_silent",
        "warning",
        f"{site.name} ({site.path}) was not called in the first pass: its routing cannot be shown",
        "a fused kernel may stand in its place; try --experts-implementation eager, or without quantization",
        site.name,
    )


class _Idle:
    """A probe's place in a pickled model."""

    def _on_router(self, *_: Any) -> None:
        """No hook."""

    def _on_linear(self, *_: Any) -> None:
        """No hook."""


class Probe:
    """Keeps a few rows of what a router gets in a pass, and of what a linear inside it makes of it."""

    def __init__(self, handle: SiteHandle, current: Current) -> None:
        self._number, self._router, self._current = handle.site.index, handle.router, current
        self.hooks: list[RemovableHandle] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Probe:
        """A copy of the model keeps hooks that find no pass of theirs."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled model keeps hooks that do nothing."""
        return _Idle, ()

    def attach(self) -> None:
        """Put the hooks on; no effect when they are."""
        if self.hooks:
            return
        self.hooks.append(self._router.register_forward_pre_hook(self._on_router, with_kwargs=True))
        for module in self._router.modules():
            if module is not self._router and isinstance(module, nn.Linear):
                self.hooks.append(module.register_forward_hook(self._on_linear))

    def detach(self) -> None:
        """Take the hooks off."""
        hooks, self.hooks = self.hooks, []
        for hook in hooks:
            hook.remove()

    def compare(self, logits: Tensor, kept: ProbeRows | None) -> tuple[Tensor, Tensor | None]:
        """``[T, C]`` logits and the projection of the same tokens, as many as were kept."""
        projected = None if kept is None else self._projection(kept, logits.shape[1])
        if projected is None:
            return logits[:_SAMPLE], None
        count = min(len(projected), len(logits))
        return logits[:count], projected[:count].cpu()

    def _projection(self, kept: ProbeRows, classes: int) -> Tensor | None:
        if kept.projected is not None:
            return kept.projected[:, :classes]
        weight, bias = _own_projection(self._router)
        if kept.input is None or weight is None or weight.is_meta or weight.shape[1] != kept.input.shape[1]:
            return None
        if not weight.is_floating_point():
            return None
        bias = bias.float() if bias is not None and bias.shape == weight.shape[:1] else None
        return functional.linear(kept.input.float(), weight.float(), bias)[:, :classes]

    def _on_router(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = self._current.frame
        kept = rows(args[0] if args else next(iter(kwargs.values()), None))
        if frame is not None and kept is not None:
            frame.probed(self._number, ProbeRows(kept[:_SAMPLE].detach().clone()))

    def _on_linear(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = self._current.frame
        kept = rows(output)
        if frame is not None and kept is not None and self._number in frame.probes:
            frame.probes[self._number].projected = kept[:_SAMPLE].detach().clone()


def _own_projection(router: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """The router's own weight and bias, or those of a linear in it that it applies without calling."""
    for owner in (router, *(module for module in router.modules() if isinstance(module, nn.Linear))):
        weight, bias = getattr(owner, "weight", None), getattr(owner, "bias", None)
        if isinstance(weight, Tensor) and weight.dim() == 2:
            return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None
    return None, None
