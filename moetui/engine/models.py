"""Which model is meant: the table of aliases, hub ids, folders and ``random:ARCH``. Imports no torch."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moetui.routing import ModelError

SourceKind = Literal["hub", "folder", "random"]
Device = str
"""``auto``, ``cpu``, ``cuda``, ``cuda:N``, or another kind of accelerator that this torch has."""

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "4bit", "8bit"]
DeviceMap = Literal["auto", "none"]

_BYTES_BFLOAT16 = 2
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_RANDOM = "random:"


@dataclass(frozen=True, slots=True)
class Alias:
    """A short name for a checkpoint, with what one wants to know before downloading it.

    Attributes:
        name: what one types.
        hub: hub id; empty for the embedded model.
        model_type: transformers' architecture.
        parameters: all parameters, in millions.
        active: parameters that one token passes, in millions.
        layers: decoder layers, with and without experts.
        experts: routed experts a site.
        top_k: experts a token.
        note: what else one should know, one line.
    """

    name: str
    hub: str
    model_type: str
    parameters: float
    active: float
    layers: int
    experts: int
    top_k: int
    note: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in bfloat16 (the embedded model: as it ships)."""
        return int(self.parameters * 1e6) * _BYTES_BFLOAT16


# name, hub id, architecture, parameters and active parameters in millions, layers, experts, top-k: the model cards.
_TABLE: tuple[Alias, ...] = (
    Alias("demo", "", "mixtral", 3.4, 1.2, 6, 8, 2, "ships with moetui; trained on eight kinds of text"),
    Alias("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", "mixtral", 46_700, 12_900, 32, 8, 2),
    Alias("mixtral-8x7b-instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", 46_700, 12_900, 32, 8, 2),
    Alias("mixtral-8x22b", "mistralai/Mixtral-8x22B-v0.1", "mixtral", 140_600, 39_100, 56, 8, 2),
    Alias("mixtral-8x22b-instruct", "mistralai/Mixtral-8x22B-Instruct-v0.1", "mixtral", 140_600, 39_100, 56, 8, 2),
    Alias("qwen1.5-moe", "Qwen/Qwen1.5-MoE-A2.7B", "qwen2_moe", 14_300, 2_700, 24, 60, 4, "4 shared experts"),
    Alias("qwen1.5-moe-chat", "Qwen/Qwen1.5-MoE-A2.7B-Chat", "qwen2_moe", 14_300, 2_700, 24, 60, 4, "4 shared experts"),
    Alias("qwen2-57b-a14b", "Qwen/Qwen2-57B-A14B", "qwen2_moe", 57_400, 14_200, 28, 64, 8, "a shared expert"),
    Alias("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", "qwen3_moe", 30_500, 3_300, 48, 128, 8),
    Alias("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", "qwen3_moe", 235_000, 22_000, 94, 128, 8),
    Alias("qwen3-next-80b-a3b", "Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3_next", 80_000, 3_000, 48, 512, 10),
    Alias(
        "deepseek-v2-lite", "deepseek-ai/DeepSeek-V2-Lite", "deepseek_v2", 15_700, 2_400, 27, 64, 6,
        "2 shared experts",
    ),
    Alias(
        "deepseek-v3", "deepseek-ai/DeepSeek-V3", "deepseek_v3", 671_000, 37_000, 61, 256, 8,
        "ships in fp8; a shared expert",
    ),
    Alias("olmoe", "allenai/OLMoE-1B-7B-0924", "olmoe", 6_900, 1_300, 16, 64, 8),
    Alias("olmoe-instruct", "allenai/OLMoE-1B-7B-0924-Instruct", "olmoe", 6_900, 1_300, 16, 64, 8),
    Alias("gpt-oss-20b", "openai/gpt-oss-20b", "gpt_oss", 20_900, 3_600, 24, 32, 4, "ships in MXFP4 (13 GB)"),
    Alias("gpt-oss-120b", "openai/gpt-oss-120b", "gpt_oss", 116_800, 5_100, 36, 128, 4, "ships in MXFP4 (61 GB)"),
    Alias("phi-3.5-moe", "microsoft/Phi-3.5-MoE-instruct", "phimoe", 41_900, 6_600, 32, 16, 2),
    Alias("granite-3-moe-1b-a400m", "ibm-granite/granite-3.1-1b-a400m-base", "granitemoe", 1_330, 400, 24, 32, 8),
    Alias("granite-3-moe-3b-a800m", "ibm-granite/granite-3.1-3b-a800m-base", "granitemoe", 3_300, 800, 32, 40, 8),
    Alias("jetmoe", "jetmoe/jetmoe-8b", "jetmoe", 8_520, 2_200, 24, 8, 2, "routes attention too: two sites a layer"),
    Alias("switch-base-8", "google/switch-base-8", "switch_transformers", 620, 220, 12, 8, 1, "encoder and decoder"),
    Alias("lfm2-8b-a1b", "LiquidAI/LFM2-8B-A1B", "lfm2_moe", 8_300, 1_500, 24, 32, 4),
    Alias(
        "ernie-4.5-21b-a3b", "baidu/ERNIE-4.5-21B-A3B-PT", "ernie4_5_moe", 21_800, 3_000, 28, 64, 6,
        "2 shared experts",
    ),
    Alias("glm-4.5-air", "zai-org/GLM-4.5-Air", "glm4_moe", 106_000, 12_000, 46, 128, 8, "a shared expert"),
    Alias(
        "llama-4-scout", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4", 109_000, 17_000, 48, 16, 1,
        "asks you to accept its licence; a shared expert",
    ),
)  # fmt: skip

ALIASES: dict[str, Alias] = {alias.name: alias for alias in _TABLE}
"""The aliases by name, in the order in which they are listed."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        kind: ``hub``, ``folder`` (as ``save_pretrained`` writes it) or ``random`` (built on the spot).
        location: hub id, path of the folder, or name of the architecture.
        name: what to call it: the alias, the hub id, or the last part of the folder's path.
        alias: the alias that named it, if one did.
    """

    kind: SourceKind
    location: str
    name: str
    alias: Alias | None = None


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Which model to load and how.

    Attributes:
        model: alias, hub id, folder or ``random:ARCH``.
        device: ``auto`` takes CUDA where there is one.
        dtype: ``auto`` takes what the checkpoint is stored in.
        quantization: of the weights while loading, by bitsandbytes.
        device_map: ``auto`` lets accelerate spread the model over all GPUs and the memory of the host (with ``device``
            ``auto``); ``none`` keeps it on one device.
        revision: branch, tag or commit of a hub model; None for its main branch.
        trust_remote_code: allow the repository's own Python code to run.
        attn_implementation: transformers' name of an attention implementation; None for the model's own choice.
        experts_implementation: transformers' name of an experts implementation; None for the library's own choice.
    """

    model: str
    device: Device = "auto"
    dtype: DTypeName = "auto"
    quantization: Quantization = "none"
    device_map: DeviceMap = "none"
    revision: str | None = None
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    experts_implementation: str | None = None


def resolve(model: str) -> ModelSource:
    """Find out what ``model`` names, without touching the network.

    An alias wins over a folder of the same name; ``./name`` names the folder.

    Raises:
        ModelError: nothing of that name, with the nearest alias; or a folder that holds no model.
    """
    name = model.strip()
    if not name:
        raise ModelError("no model was named", "try: moetui run demo")
    if name.startswith(_RANDOM):
        return ModelSource("random", name[len(_RANDOM) :], name)
    alias = ALIASES.get(name.lower())
    if alias is not None:
        return _of_alias(alias)
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        raise ModelError(f"{name} is a file", "name the folder that holds config.json and the weights")
    if _HUB_ID.match(name) and not name.startswith("."):
        return ModelSource("hub", name, name)
    raise ModelError(f"no such model: {name}", _suggestion(name))


def _of_alias(alias: Alias) -> ModelSource:
    if alias.hub:
        return ModelSource("hub", alias.hub, alias.name, alias)
    from moetui.demo import model_path

    folder = model_path()
    if not (folder / "config.json").is_file():
        raise ModelError("the embedded model is not in this installation", "install moetui again")
    return ModelSource("folder", str(folder), alias.name, alias)


def _of_folder(path: Path) -> ModelSource:
    config = path / "config.json"
    if not config.is_file():
        inner = sorted(child.parent.name for child in path.glob("*/config.json"))
        hint = f"did you mean {path / inner[0]}?" if inner else "name a folder that save_pretrained wrote"
        if (path / "adapter_config.json").is_file():
            hint = "it holds an adapter alone: merge it into its base model first"
        raise ModelError(f"{path} holds no config.json", hint)
    try:
        held = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{config} cannot be read: {error}", "save the model again with save_pretrained") from error
    if not isinstance(held, dict) or "model_type" not in held:
        raise ModelError(f"{config} names no model_type", "name a folder that save_pretrained wrote")
    return ModelSource("folder", str(path), path.resolve().name)


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), ALIASES, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    if "/" in name or name.startswith((".", "~")):
        return "there is no such folder, and a hub id has the form owner/name"
    return "'moetui models' lists the aliases; a hub id (owner/name) or a folder works too"
