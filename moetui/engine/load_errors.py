"""Says in one line and a hint what went wrong when a model was loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from huggingface_hub import errors as hub
from safetensors import SafetensorError

from moetui.engine.accelerators import accelerator
from moetui.engine.models import LoadRequest, ModelSource
from moetui.routing import ModelError, MoetuiError

_NO_TYPE = re.compile(r"does not recognize this architecture|model type `?(\w+)`?")
_ALIASES_HINT = "'moetui models' lists the aliases and the architectures"


def explain(error: BaseException, request: LoadRequest, source: ModelSource) -> MoetuiError:
    """The error to show for ``error``, raised while ``source`` was loaded as ``request`` says.

    Returns:
        ``error`` itself if it is fit to be shown, else a ``ModelError`` of one line with a hint.
    """
    if isinstance(error, MoetuiError):
        return error
    causes = list(_chain(error))
    for rule in (_memory, _hub, _files, _code, _packages):
        found = rule(causes, request, source)
        if found is not None:
            return found
    return ModelError(f"{source.name} could not be loaded: {_line(error)}", "--debug shows where it went wrong")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _memory(causes: list[BaseException], request: LoadRequest, source: ModelSource) -> ModelError | None:
    for cause in causes:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(cause):
            return out_of_memory(request, source)
    return None


def out_of_memory(request: LoadRequest, source: ModelSource, sizes: str = "") -> ModelError:
    """The model does not fit; ``sizes`` says what it needs and what there is."""
    if not sizes and source.alias is not None:
        sizes = f"its weights alone need {source.alias.nbytes / 1e9:.1f} GB in bfloat16"
    hint = "choose a smaller model"
    if request.dtype == "float32":
        hint = "--dtype bfloat16 halves it"
    elif accelerator() is not None and (request.device != "auto" or request.device_map == "none"):
        hint = "--device auto --device-map auto spreads the model over all devices"
    return ModelError(f"out of memory for {source.name}" + (f": {sizes}" if sizes else ""), hint)


def _hub(causes: list[BaseException], request: LoadRequest, source: ModelSource) -> ModelError | None:
    where = source.location
    for cause in causes:
        if isinstance(cause, hub.GatedRepoError):
            return ModelError(
                f"{where} is gated: its owners want you to accept their terms",
                f"accept them on its hub page, then log in with 'hf auth login' ({where})",
            )
        if isinstance(cause, hub.RepositoryNotFoundError):
            return ModelError(
                f"no model {where} on the hub, or it is private",
                f"check the spelling, or log in with 'hf auth login'; {_ALIASES_HINT}",
            )
        if isinstance(cause, hub.RevisionNotFoundError):
            return ModelError(f"{where} has no revision {request.revision}", "name a branch, a tag or a commit")
        if isinstance(cause, hub.HFValidationError):
            return ModelError(f"{where} is no hub id", "a hub id has the form owner/name")
        if isinstance(cause, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
            return no_network(source)
        if isinstance(cause, hub.RemoteEntryNotFoundError):
            return ModelError(f"{where} lacks a file that a model needs: {_line(cause)}", "is it a model at all?")
        if isinstance(cause, hub.HfHubHTTPError):
            return ModelError(f"the hub refused to give {where}: {_line(cause)}", "try again, or use a local folder")
        if type(cause).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            return no_network(source)
    return None


def no_network(source: ModelSource) -> ModelError:
    """The hub cannot be reached, and the model is not in the cache."""
    return ModelError(
        f"{source.location} is not on this machine and the hub cannot be reached",
        "go online once, or name a local folder; 'moetui run demo' needs no network",
    )


def _files(causes: list[BaseException], request: LoadRequest, source: ModelSource) -> ModelError | None:
    del request
    for cause in causes:
        text = str(cause)
        if isinstance(cause, hub.StrictDataclassError):
            return ModelError(f"the configuration of {source.name} is wrong: {_line(cause)}", "correct its config.json")
        if isinstance(cause, SafetensorError) or "Error while deserializing header" in text:
            return ModelError(
                f"the weights of {source.name} are damaged: {_line(cause)}", "download or save the model again"
            )
        if "no file named" in text and source.kind == "folder":
            return ModelError(f"{source.location} holds no weights", "name a folder that save_pretrained wrote")
        if isinstance(cause, FileNotFoundError) and cause.filename:
            return ModelError(f"{cause.filename} is missing", "download or save the model again")
        if "does not appear to have a file named" in text:
            return ModelError(
                f"{source.location} lacks files that a model needs: {_line(cause)}", "is it a model at all?"
            )
    return None


def _code(causes: list[BaseException], request: LoadRequest, source: ModelSource) -> ModelError | None:
    for cause in causes:
        text = str(cause)
        if "trust_remote_code" in text and not request.trust_remote_code:
            return ModelError(
                f"{source.name} needs Python code from its repository",
                "read that code; then --trust-remote-code lets it run",
            )
        if "does not recognize this architecture" in text or "Unrecognized model" in text:
            return ModelError(f"transformers does not know the architecture of {source.name}", _ALIASES_HINT)
        if "already quantized" in text or ("quantization_config" in text and "quantiz" in text):
            return ModelError(
                f"{source.name} cannot be quantized like this: {_line(cause)}", "leave out --quantization"
            )
    return None


def _packages(causes: list[BaseException], request: LoadRequest, source: ModelSource) -> ModelError | None:
    del request
    for cause in causes:
        if isinstance(cause, ImportError):
            name = getattr(cause, "name", None)
            hint = f"pip install {name}" if name else "install the package that is named"
            return ModelError(f"{source.name} needs a package that is not installed: {_line(cause)}", hint)
    return None


def _line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:199] + "…"
