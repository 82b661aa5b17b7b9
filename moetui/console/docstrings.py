"""What a command's docstring says: its summary, its arguments, its examples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_SECTION = re.compile(r"(Args|Examples):\Z")
_ARGUMENT = re.compile(r"(\w+): (.*)")


@dataclass(frozen=True, slots=True)
class Doc:
    """A docstring in parts: one line, paragraphs, arguments by name, examples a line each."""

    summary: str
    body: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()


def read_docstring(function: Callable[..., Any]) -> Doc:
    """Parse a docstring written in Google's style."""
    section = "Body"
    parts: dict[str, list[str]] = {"Body": [], "Args": [], "Examples": []}
    for line in (inspect.getdoc(function) or "").splitlines():
        if _SECTION.match(line):
            section = line[:-1]
        else:
            parts[section].append(line)
    paragraphs = [" ".join(block.split()) for block in "\n".join(parts["Body"]).split("\n\n")]
    return Doc(
        summary=paragraphs[0],
        body=tuple(text for text in paragraphs[1:] if text),
        arguments=_arguments(parts["Args"]),
        examples=tuple(line.strip() for line in parts["Examples"] if line.strip()),
    )


def _arguments(lines: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    name = ""
    for line in lines:
        found = _ARGUMENT.match(line.strip()) if line.startswith("    ") and not line.startswith("     ") else None
        if found:
            name = found[1]
            out[name] = found[2]
        elif name and line.strip():
            out[name] += " " + line.strip()
    return out
