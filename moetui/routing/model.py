"""What is known of a model: its sites, its module tree, its versions. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

SiteKind = Literal["indexed", "dense", "parallel", "mask", "product_key", "unknown"]
"""How routing reaches the experts: indices and weights; scores on all inputs; sorted lists; a mask; product keys."""

Scoring = Literal["softmax", "sigmoid", "sqrt_softplus", "softmax_top_k", "identity", "unknown"]
"""The scoring rule from router logits to gate weights.

``softmax_top_k`` is a softmax over the chosen experts' logits alone (equal to a renormalised softmax).
"""

GroupScore = Literal["max", "top2", "unknown"]
"""How a group of experts is scored: by its best selection score, or by the sum of its two best."""

LogitsForm = Literal["logits", "scaled", "soft_capped", "probabilities", "unknown"]
"""What the router's first output is, compared with its weight applied to its input."""

ModuleRole = Literal[
    "model",
    "embedding",
    "layer",
    "attention",
    "mlp",
    "router",
    "experts",
    "shared_expert",
    "norm",
    "head",
    "other",
]

TensorKind = Literal["parameter", "buffer", "shared"]
"""A parameter of a module's own; a buffer; a tensor that a module before it in the tree has as well (tied weights)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What decides a choice that is no plain top-k of the router's logits: the k largest selection scores.

    Selection scores are ``s(logits) + bias``; with groups, of the experts in the ``eligible`` best groups alone
    (DeepSeek-V2, arXiv:2405.04434, 2.1.2: "max"; DeepSeek-V3, arXiv:2412.19437, 2.1.2: the bias, and "top2").

    Attributes:
        scoring: s, without any normalisation but softmax's own; ``identity``: the bias is added to the logits
            themselves; ``unknown``: no rule that is tried chooses what this router chooses.
        bias: one for each class of the router, in the units of ``s(logits)``; None where none is added. Where training
            moves it, that at the start of the recording.
        groups: equally many neighbouring classes each (1: no limit).
        eligible: groups that a token's experts are chosen from.
        group_score: what makes a group one of the best; of no meaning without groups.
    """

    scoring: Scoring = "unknown"
    bias: tuple[float, ...] | None = None
    groups: int = 1
    eligible: int = 1
    group_score: GroupScore = "max"


@dataclass(frozen=True, slots=True)
class Site:
    """One router with its experts: mostly one a decoder layer, sometimes two or none.

    Attributes:
        index: position in ``ModelInfo.sites`` and on the site axis of every array.
        name: short and unique, as shown and typed: ``L3``, ``L3.attention``, ``encoder.L3``, ``L3.vision``.
        layer: the decoder (or encoder) layer index, unique within its stack only.
        path: module path of the experts (of the block, where experts are no module of their own).
        router_path: module path of the router.
        num_experts: experts that a token can be sent to, ids ``0 .. num_experts - 1``.
        num_classes: columns of the router's logits; more than ``num_experts`` with zero-experts or a skip class.
        top_k: slots a token gets by the model's own rule.
        stack: which token sequence passes here: ``decoder``, ``encoder``, ``vision`` ...
        normalised: whether the chosen weights are renormalised to a constant sum; None if not known.
        scale: the constant factor on the weights; None if not known, or if each expert has its own.
        selection_bias: a bias takes part in the choice but not in the weights.
        groups: expert groups that limit the choice (1: no limit).
        shared_experts: experts that every token passes besides the routed ones.
        zero_experts: classes past ``num_experts`` that do nothing or skip.
        note: what a person should know of this site, one line.
        selection: what decides the choice, where that is not the logits' order. None at other sites, and at those with
            ``selection_bias`` or ``groups`` as long as it is not known.
    """

    index: int
    name: str
    layer: int
    path: str
    router_path: str
    num_experts: int
    num_classes: int
    top_k: int
    kind: SiteKind = "indexed"
    stack: str = "decoder"
    scoring: Scoring = "unknown"
    logits_form: LogitsForm = "unknown"
    normalised: bool | None = None
    scale: float | None = None
    selection_bias: bool = False
    groups: int = 1
    shared_experts: int = 0
    zero_experts: int = 0
    note: str = ""
    selection: Selection | None = None

    @property
    def plain_choice(self) -> bool:
        """Whether the experts are those with the largest logits, for all that is known."""
        return self.selection is None and not self.selection_bias and self.groups == 1


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter or buffer: its name within its module, shape, dtype (``float32``), device and size in bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    nbytes: int
    kind: TensorKind = "parameter"

    @property
    def count(self) -> int:
        """Numbers in it that count among the model's parameters."""
        return math.prod(self.shape) if self.kind == "parameter" else 0

    @property
    def own_nbytes(self) -> int:
        """Bytes that it takes besides what was counted before it in the tree."""
        return 0 if self.kind == "shared" else self.nbytes


@dataclass(frozen=True, slots=True)
class ModuleNode:
    """A node of the module tree.

    Attributes:
        path: dotted path from the model (empty for the model itself).
        class_name: the module's class.
        role: what it is to a router debugger.
        parameters: its own parameters and buffers, children left out.
        site: index of the site that it belongs to as router, experts or shared expert; None elsewhere.
    """

    path: str
    class_name: str
    role: ModuleRole = "other"
    parameters: tuple[ParameterInfo, ...] = ()
    site: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a screen, a trace header and a script need to know of a model.

    Attributes:
        name: what the user called it (alias, hub id or the last part of a folder's path).
        architecture: class name, ``MixtralForCausalLM``.
        model_type: transformers' name, ``mixtral``.
        num_layers: decoder layers, with and without experts.
        parameters: number of parameters.
        nbytes: bytes of parameters and buffers.
        context_length: longest sequence in tokens; None if not limited or not known.
        modules: the module tree in traversal order, the model itself first.
        versions: ``{"torch": "2.13.0", ...}``.
    """

    name: str
    architecture: str
    model_type: str
    sites: tuple[Site, ...] = field(repr=False)
    num_layers: int = 0
    parameters: int = 0
    nbytes: int = 0
    vocab_size: int = 0
    context_length: int | None = None
    dtype: str = ""
    device: str = ""
    modules: tuple[ModuleNode, ...] = field(default=(), repr=False)  # thousands
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def num_experts(self) -> int:
        """Experts a site, at the largest site; 0 without sites."""
        return max((site.num_experts for site in self.sites), default=0)

    @property
    def num_classes(self) -> int:
        """Router classes a site, at the largest site: the width of logits arrays."""
        return max((site.num_classes for site in self.sites), default=0)

    @property
    def top_k(self) -> int:
        """Slots a token, at the largest site: the width of indices arrays."""
        return max((site.top_k for site in self.sites), default=0)
