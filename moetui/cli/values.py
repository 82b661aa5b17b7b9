"""What options say, turned into values: lists of numbers, prompts, interventions, load and generation settings."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moetui.routing.errors import UsageError
from moetui.routing.events import GenerationSettings
from moetui.routing.interventions import BanExperts, ForceExperts, Intervention, Scope, SetTopK

if TYPE_CHECKING:
    from moetui.engine.models import LoadRequest

_MAX_NUMBER = 100_000
_MAX_PROMPT_BYTES = 16 * 2**20


def numbers(text: str, option: str) -> tuple[int, ...]:
    """The numbers in ``0,3,7`` or ``2-5``, without repetition.

    Raises:
        UsageError: something else stands there.
    """
    out: dict[int, None] = {}
    for part in text.replace(" ", ",").split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None:
            if part or not text.strip():
                raise UsageError(f"{option}: '{part}' is no number", "write 0,3,7 or 2-5")
            continue
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first or last > _MAX_NUMBER:
            raise UsageError(f"{option}: '{part}' is no range", "write 0,3,7 or 2-5")
        out.update(dict.fromkeys(range(first, last + 1)))
    return tuple(out)


def typed(text: str) -> str:
    """A text of the call as UTF-8 has it, where Python read its bytes in another encoding (``LC_ALL=POSIX``)."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def prompt_of(prompt: str | None, prompt_file: str | None) -> str | None:
    """The prompt that was given, or None if none was.

    Raises:
        UsageError: two prompts, an empty one, or a file that is no text.
    """
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file exclude each other", "give one of them")
    if prompt_file is not None:
        with Path(prompt_file).open("rb") as file:  # its size says nothing of a pipe
            read = file.read(_MAX_PROMPT_BYTES + 1)
        if len(read) > _MAX_PROMPT_BYTES:
            raise UsageError(f"{prompt_file} is too large for a prompt", "a prompt is text of a few kilobytes")
        try:
            prompt = read.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{prompt_file} is no UTF-8 text", "save the prompt as UTF-8") from error
    elif prompt is not None:
        prompt = typed(prompt)
    if prompt is not None and not prompt.strip():
        raise UsageError("the prompt is empty", "for instance: -p 'Once there was'")
    return prompt


def interventions_of(
    force: str | None, ban: str | None, top_k: int | None, layers: str | None
) -> tuple[Intervention, ...]:
    """What ``--force``, ``--ban`` and ``--top-k`` ask for, in the layers of ``--layers``.

    Raises:
        UsageError: layers without anything to do there, or no numbers where numbers belong.
    """
    scope = Scope(layers=numbers(layers, "--layers")) if layers is not None else Scope()
    out: list[Intervention] = []
    if force is not None:
        out.append(ForceExperts(numbers(force, "--force"), scope))
    if ban is not None:
        out.append(BanExperts(numbers(ban, "--ban"), scope))
    if top_k is not None:
        out.append(SetTopK(top_k, scope))
    if layers is not None and not out:
        raise UsageError("--layers says where, but not what", "add --force, --ban or --top-k")
    return tuple(out)


def load_request(model: str, options: dict[str, Any]) -> LoadRequest:
    """The model options as the engine takes them."""
    from moetui.engine.models import LoadRequest

    names = ("device", "dtype", "quantization", "device_map", "revision", "trust_remote_code")
    implementations = ("attn_implementation", "experts_implementation")
    return LoadRequest(model=model, **{name: options[name] for name in (*names, *implementations)})


def generation_settings(options: dict[str, Any]) -> GenerationSettings:
    """The generation options as the engine takes them."""
    names = ("max_new_tokens", "temperature", "top_p", "top_k_sampling", "seed", "chat", "system")
    settings = GenerationSettings(**{name: options[name] for name in names})
    return replace(settings, system=typed(settings.system))
