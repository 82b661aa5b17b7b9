"""Loads a model with transformers' own ``from_pretrained``."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from moetui.engine.accelerators import accelerator
from moetui.engine.libraries import Progress, reported
from moetui.engine.load_errors import explain, out_of_memory
from moetui.engine.models import LoadRequest, ModelSource, resolve
from moetui.engine.zoo import auto_class, build
from moetui.engine.zoo.words import tokenizer as words_tokenizer
from moetui.routing import ModelError, UsageError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json")
_SAYS_EXPERTS = ("expert", "moe")
_QUANTIZED = {"4bit": {"load_in_4bit": True}, "8bit": {"load_in_8bit": True}}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run.

    Attributes:
        model: in evaluation mode.
        tokenizer: None when the folder holds none; prompts are token ids then.
        name: what to call it.
        notices: what a person should know of how it was loaded, one line each.
    """

    model: Any
    tokenizer: Any
    name: str
    source: ModelSource
    notices: tuple[str, ...] = ()


def _unheard(message: str, fraction: float | None) -> None:
    del message, fraction


def load(request: LoadRequest, progress: Progress = _unheard) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        request: which model, and how.
        progress: called, in this thread or one of the libraries', while it goes on.

    Raises:
        ModelError: it cannot be found, reached, read, or does not fit; one line with a hint.
        UsageError: an option that this machine or this model cannot follow.
    """
    source = resolve(request.model)
    check_request(request, source)
    progress(f"loading {source.name}", None)
    try:
        with reported(progress) as bar:
            if source.kind == "random":
                return _build(request, source)
            return _load(request, source, progress, bar)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise explain(error, request, source) from error


def check_request(request: LoadRequest, source: ModelSource) -> None:
    """Check the options before anything is read or downloaded.

    Raises:
        UsageError: an unknown device or implementation, or one that this machine has not.
        ModelError: bitsandbytes is needed and missing.
    """
    _check_device(request.device)
    _check_name("experts implementation", request.experts_implementation, ("eager", *ALL_EXPERTS_FUNCTIONS.keys()))
    _check_name("attention implementation", request.attn_implementation, ("eager", *ALL_ATTENTION_FUNCTIONS.keys()))
    if request.quantization == "none":
        return
    if source.kind == "random":
        raise UsageError("a random model cannot be quantized", "leave out --quantization")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"--quantization {request.quantization} needs bitsandbytes", "pip install bitsandbytes")


def _auto(device: str) -> str:
    """The device that a request means."""
    if device != "auto":
        return device
    own = accelerator()
    return "cpu" if own is None else own.type


def _check_device(device: str) -> None:
    if device in ("auto", "cpu"):
        return
    kind, _, number = device.partition(":")
    own = accelerator()
    kinds = ["cuda"] if own is None or own.type == "cuda" else ["cuda", own.type]
    if kind not in kinds or (":" in device and not number.isdecimal()):
        named = ", ".join(f"{each}, {each}:0, {each}:1 ..." for each in kinds)
        raise UsageError(f"unknown device: {device}", f"one of auto, cpu, {named}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("this torch sees no CUDA device", "--device cpu; 'moetui doctor' says more")
    count = torch.accelerator.device_count()
    if int(number or 0) >= count:
        word = "CUDA" if kind == "cuda" else kind
        raise UsageError(f"there is no {device}", f"this machine has {count} {word} devices")


def _check_name(what: str, name: str | None, known: Iterable[str]) -> None:
    names = sorted(known)
    # A slash names a kernel of the hub, which transformers fetches by itself.
    if name is None or name in names or "/" in name:
        return
    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(f"unknown {what}: {name}", f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}")


def _load(request: LoadRequest, source: ModelSource, progress: Progress, bar: Any) -> Loaded:
    where: dict[str, Any] = {"revision": request.revision, "trust_remote_code": request.trust_remote_code}
    if source.kind == "folder":
        where.pop("revision")
    away = source.kind == "hub" and _unreachable(source, request)
    if away:
        where["local_files_only"] = True
    config = AutoConfig.from_pretrained(source.location, **where)
    _check_experts(config, source)
    maker = _maker(config, request)
    _check_memory(request, source, config)
    tokenizer = _tokenizer(source, where)
    progress(f"loading the weights of {source.name}", None)
    model, report = maker.from_pretrained(
        source.location,
        config=config,
        tqdm_class=bar,
        output_loading_info=True,
        **where,
        **_placement(request),
        **_choices(request),
    )
    model.eval()
    notices = [*_of_weights(report), *_of_quantization(request), *_of_placement(model)]
    if away:
        notices.append("the hub cannot be reached: the copy on this machine is what was loaded")
    if tokenizer is None:
        notices.append("there is no tokenizer beside the weights: write prompts as token ids")
    return Loaded(model, tokenizer, source.name, source, tuple(notices))


def _unreachable(source: ModelSource, request: LoadRequest) -> bool:
    """Whether no connection to the hub comes about; any other answer is for the library to read.

    The library itself asks six times for every file that is not on this machine, which takes minutes.
    """
    try:
        get_hf_file_metadata(hf_hub_url(source.location, "config.json", revision=request.revision))
    except Exception as error:  # noqa: BLE001 - of one of two HTTP libraries
        return type(error).__name__ in ("ConnectError", "ConnectTimeout")
    return False


def _maker(config: PreTrainedConfig, request: LoadRequest) -> Any:
    """The class whose ``from_pretrained`` builds the model: the repository's own where it brings code."""
    own = getattr(config, "auto_map", None) or {}
    if request.trust_remote_code and own:
        for name in ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSeq2SeqLM"):
            if name in own:
                return getattr(transformers, name)
    return auto_class(config)


def _check_experts(config: PreTrainedConfig, source: ModelSource) -> None:
    """Refuse a dense model before its weights are downloaded; a doubtful one is let through to the search for sites."""
    if not _mentions_experts(config.to_dict()):
        raise ModelError(
            f"{source.name} ({config.model_type}) is no Mixture-of-Experts model",
            "moetui looks at routers; 'moetui models' lists models that have some",
        )


def _mentions_experts(value: Any) -> bool:
    if isinstance(value, dict):
        if any(word in str(item).lower() for word in _SAYS_EXPERTS for item in (value.get("model_type"),)):
            return True
        return any(
            any(word in str(key).lower() for word in _SAYS_EXPERTS) or _mentions_experts(item)
            for key, item in value.items()
        )
    return False


def _tokenizer(source: ModelSource, where: dict[str, Any]) -> Any:
    if source.kind == "folder" and not any((Path(source.location) / name).is_file() for name in _TOKENIZER_FILES):
        return None
    return AutoTokenizer.from_pretrained(source.location, **where)


def _placement(request: LoadRequest) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": "auto" if request.dtype == "auto" else getattr(torch, request.dtype)}
    if request.device != "auto":
        options["device_map"] = {"": request.device}
    elif (own := accelerator()) is not None:
        options["device_map"] = "auto" if request.device_map == "auto" else {"": f"{own.type}:0"}
    if request.device == "cpu" and request.quantization == "none":
        options.pop("device_map")
    if request.quantization != "none":
        options["quantization_config"] = transformers.BitsAndBytesConfig(**_QUANTIZED[request.quantization])
    return options


def _choices(request: LoadRequest) -> dict[str, Any]:
    choices = {
        "attn_implementation": request.attn_implementation,
        "experts_implementation": request.experts_implementation,
    }
    return {name: value for name, value in choices.items() if value is not None}


def _check_memory(request: LoadRequest, source: ModelSource, config: PreTrainedConfig) -> None:
    """Refuse what cannot fit into the memory of the host: there, the system kills the process without a word."""
    if _auto(request.device).partition(":")[0] not in ("cpu", "mps"):
        return  # its weights go to memory of the device's own
    need = _weights_nbytes(request, source, config)
    memory = psutil.virtual_memory()
    free = memory.available + psutil.swap_memory().free
    if need > free:
        sizes = f"its weights need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise out_of_memory(request, source, sizes)


def _weights_nbytes(request: LoadRequest, source: ModelSource, config: PreTrainedConfig) -> int:
    """Bytes of the weights in memory, as far as they are known before; 0 if they are not."""
    if request.quantization != "none":
        return 0
    held = _stored_nbytes(source)
    if request.dtype == "auto" or getattr(config, "quantization_config", None) is not None:
        return held
    stored = getattr(config, "dtype", None) or torch.float32
    stored = getattr(torch, stored) if isinstance(stored, str) else stored
    return int(held * getattr(torch, request.dtype).itemsize / stored.itemsize)


def _stored_nbytes(source: ModelSource) -> int:
    if source.kind == "folder":
        folder = Path(source.location)
        files = list(folder.glob("*.safetensors")) or list(folder.glob("pytorch_model*.bin"))
        return sum(file.stat().st_size for file in files)
    return 0 if source.alias is None else source.alias.nbytes


def _of_weights(report: dict[str, Any]) -> list[str]:
    missing, differing = sorted(report.get("missing_keys", ())), list(report.get("mismatched_keys", ()))
    notices = []
    if missing:
        notices.append(
            f"{len(missing)} parameters are not in the checkpoint and are random: {', '.join(missing[:3])} …"
        )
    if differing:
        notices.append(f"{len(differing)} parameters have another shape in the checkpoint and are random")
    return notices


def _of_quantization(request: LoadRequest) -> list[str]:
    if request.quantization == "none":
        return []
    return [f"quantized to {request.quantization} in linear layers alone; fused experts keep their precision"]


def _of_placement(model: Any) -> list[str]:
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    slow = places & {"cpu", "disk"}
    if slow and len(places) > 1:
        return [f"the model does not fit on the GPU: parts of it are on {' and '.join(sorted(slow))}, which is slow"]
    return []


def _build(request: LoadRequest, source: ModelSource) -> Loaded:
    built = build(source.location)
    model: Any = built.model
    if request.experts_implementation is not None:
        model.set_experts_implementation(request.experts_implementation)
    if request.attn_implementation is not None:
        model.set_attn_implementation(request.attn_implementation)
    if request.dtype != "auto":
        model.to(getattr(torch, request.dtype))
    model.to(_auto(request.device))
    notices = ("random weights: the text means nothing", *((built.note,) if built.note else ()))
    return Loaded(model, words_tokenizer(built.vocab_size), source.name, source, notices)
