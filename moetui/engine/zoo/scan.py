"""Which architectures of the installed transformers are Mixture-of-Experts, read from their source.

Nothing is imported from transformers, so the answer costs about a second and no torch. A folder of
``transformers/models`` counts when one of its modelling files defines a class that

* is decorated with ``use_experts_implementation`` (the library's own mark of an experts module),
* has a ``forward(hidden…, …index|…indices, …weight|…weights)``, the call of an experts module,
* is named ``…Router…`` or ``…Gating``, or
* speaks of experts (``num_experts``, ``experts`` …) and either selects by ``topk``/``argmax`` or holds experts.

The net is wide on purpose: what it catches without being a router is listed by hand in
:data:`moetui.engine.zoo.exclusions.EXCLUDED`, so that no new architecture slips through unnoticed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moetui.engine.zoo.exclusions import EXCLUDED
from moetui.routing import ModelError

Status = Literal["built", "excluded"]

_WORTH_PARSING = re.compile(r"expert|router|gating", re.IGNORECASE)
_ROUTER_NAME = re.compile(r"Router|Gating$")
_EXPERT_NAMES = re.compile(r"^(.*_)?experts?(_.*)?$")
_CHOICES = frozenset({"topk", "argmax"})


@dataclass(frozen=True, slots=True)
class Architecture:
    """One Mixture-of-Experts architecture of the installed transformers.

    Attributes:
        name: the model's folder in ``transformers/models``; what ``random:NAME`` takes.
        status: ``built`` if the zoo can build it, ``excluded`` if it matches the scan but has no router.
        reason: why it is excluded; empty otherwise.
        evidence: the classes that made the scan stop here, as ``ClassName: why``.
    """

    name: str
    status: Status
    reason: str
    evidence: tuple[str, ...]


@functools.cache
def architectures() -> tuple[Architecture, ...]:
    """Every architecture that the scan finds, by name, excluded ones included.

    Raises:
        ModelError: transformers is not installed.
    """
    found = []
    for folder in sorted(path for path in _models_folder().iterdir() if path.is_dir()):
        evidence = tuple(line for file in sorted(folder.glob("modeling_*.py")) for line in _evidence(file))
        if evidence:
            reason = EXCLUDED.get(folder.name, "")
            found.append(Architecture(folder.name, "excluded" if reason else "built", reason, evidence))
    return tuple(found)


def buildable() -> tuple[str, ...]:
    """Names of the architectures with a router, sorted."""
    return tuple(arch.name for arch in architectures() if arch.status == "built")


def _models_folder() -> Path:
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("transformers is not installed", "pip install transformers")
    return Path(next(iter(spec.submodule_search_locations))) / "models"


def _evidence(file: Path) -> list[str]:
    source = file.read_text(encoding="utf-8")
    if not _WORTH_PARSING.search(source):
        return []
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return [f"{node.name}: {why}" for node in classes if (why := _why(node))]


def _why(node: ast.ClassDef) -> str:
    """Why a class speaks for a Mixture-of-Experts, or nothing."""
    if any("use_experts_implementation" in ast.unparse(decorator) for decorator in node.decorator_list):
        return "decorated as experts"
    if _takes_indices_and_weights(node):
        return "forward takes indices and weights"
    if _ROUTER_NAME.search(node.name):
        return "named a router"
    words = {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
    words |= {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    if any(_EXPERT_NAMES.match(word) for word in words):
        if words & _CHOICES:
            return "chooses experts"
        if words & {"experts", "num_experts"}:
            return "holds experts"
    return ""


def _takes_indices_and_weights(node: ast.ClassDef) -> bool:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "forward":
            names = [argument.arg for argument in method.args.args[1:4]]
            return (
                len(names) == 3
                and names[0].startswith("hidden")
                and names[1].endswith(("index", "indices"))
                and names[2].endswith(("weight", "weights"))
            )
    return False
