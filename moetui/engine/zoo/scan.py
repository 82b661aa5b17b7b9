"""Which architectures of the installed transformers are Mixture-of-Experts, read from their source.

Nothing is imported from transformers, so the answer costs about a second and no torch. A folder of
``transformers/models`` counts when one of its modelling files defines a class that

* is decorated with ``use_experts_implementation`` (the library's own mark of an experts module),
* has a ``forward(hidden…, …index|…indices, …weight|…weights)``, the call of an experts module,
* is named ``…Router…`` or ``…Gating``, or
* speaks of experts (``num_experts``, ``experts`` …) and either selects by ``topk``/``argmax`` or holds experts.

A folder without such a class counts as well when it builds its models from one that has some: when its configuration
names a model type whose own configuration speaks of experts, or when the auto classes give its model type a class of
that folder.

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
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
_MODEL_TYPE = re.compile(r"^    model_type\b.*= \"([\w-]+)\"", re.MULTILINE)
_NAMED = re.compile(r"\"([\w-]+)\"")
_AUTO_CLASS = re.compile(r"\(\"([\w-]+)\", \"(\w+)\"\)")


@dataclass(frozen=True, slots=True)
class Architecture:
    """One Mixture-of-Experts architecture of the installed transformers.

    Attributes:
        name: the model's folder in ``transformers/models``; what ``random:NAME`` takes.
        status: ``built`` if the zoo can build it, ``excluded`` if it matches the scan but has no router.
        reason: why it is excluded; empty otherwise.
        evidence: what made the scan stop here, as ``ClassName: why``, or what it has of another folder.
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
    folders = sorted(path for path in _models_folder().iterdir() if path.is_dir())
    found = {}
    for folder in folders:
        evidence = _own_evidence(folder)
        if evidence:
            found[folder.name] = evidence
    plain = [folder for folder in folders if folder.name not in found]
    found |= _composed(plain, [folder for folder in folders if folder.name in found.keys() - EXCLUDED.keys()])
    return tuple(
        Architecture(name, "excluded" if name in EXCLUDED else "built", EXCLUDED.get(name, ""), tuple(evidence))
        for name, evidence in sorted(found.items())
    )


def buildable() -> tuple[str, ...]:
    """Names of the architectures with a router, sorted."""
    return tuple(arch.name for arch in architectures() if arch.status == "built")


def is_buildable(name: str) -> bool:
    """Whether a name is among ``buildable()``: nearly always its own folder tells, in a hundredth of the time."""
    if name in EXCLUDED:
        return False
    own = name.isidentifier() and (folder := _models_folder() / name).is_dir() and _own_evidence(folder)
    return bool(own) or name in buildable()


def _models_folder() -> Path:
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("transformers is not installed", "pip install transformers")
    return Path(next(iter(spec.submodule_search_locations))) / "models"


def _own_evidence(folder: Path) -> list[str]:
    return [line for file in sorted(folder.glob("modeling_*.py")) for line in _evidence(file)]


def _evidence(file: Path) -> list[str]:
    source = file.read_text(encoding="utf-8")
    if not _WORTH_PARSING.search(source):
        return []
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return [f"{node.name}: {why}" for node in classes if (why := _why(node))]


def _composed(plain: list[Path], routed: list[Path]) -> dict[str, list[str]]:
    """Which of the ``plain`` folders build their models from those of the ``routed`` ones: name → evidence."""
    classes = {name for folder in routed for name in _CLASS.findall(_sources(folder, "modeling_*.py"))}
    types: set[str] = set()
    for folder in routed:
        for definition in _sources(folder, "configuration_*.py").split("\nclass "):
            # The configurations of its towers say nothing of experts.
            if "experts" in definition:
                types.update(_MODEL_TYPE.findall(definition))
    found: dict[str, list[str]] = {}
    for folder in plain:
        named = types.intersection(_NAMED.findall(_sources(folder, "configuration_*.py")))
        if named:
            found[folder.name] = [f"its configuration names {model_type}" for model_type in sorted(named)]
    names = {folder.name for folder in plain}
    for model_type, runs in _AUTO_CLASS.findall(_sources(_models_folder() / "auto", "modeling_auto.py")):
        name = model_type.replace("-", "_")
        if runs in classes and name in names:
            found.setdefault(name, []).append(f"{runs} runs it")
    return found


def _sources(folder: Path, pattern: str) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob(pattern)))


def _why(node: ast.ClassDef) -> str:
    """Why a class speaks for a Mixture-of-Experts, or nothing."""
    if any("use_experts_implementation" in ast.unparse(decorator) for decorator in node.decorator_list):
        return "decorated as experts"
    if _takes_indices_and_weights(node):
        return "forward takes indices and weights"
    if _ROUTER_NAME.search(node.name):
        return "named a router"
    words = {
        child.attr if isinstance(child, ast.Attribute) else child.id
        for child in ast.walk(node)
        if isinstance(child, ast.Attribute | ast.Name)
    }
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
