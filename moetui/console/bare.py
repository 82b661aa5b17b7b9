"""The bare form: ``force_expert_selection 0 3 7 --layers 2-4``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from moetui.console.registry import Command, Parameter, nearest
from moetui.routing import UsageError

_BEFORE_QUOTE = " \t\n=:~("
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_NUMBER = re.compile(r"-\.?\d")

SHORT = {"n": "max_new_tokens", "l": "layers", "s": "sites", "p": "positions", "b": "branch"}
"""Options of one letter, where a command has them."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line: ``text`` without its quotes, ``line[start:stop]`` with them."""

    text: str
    start: int
    stop: int
    quoted: bool = False

    @property
    def is_option(self) -> bool:
        """Whether it begins with a dash and is no number."""
        return not self.quoted and len(self.text) > 1 and self.text[0] == "-" and not _NUMBER.match(self.text)


@dataclass(frozen=True, slots=True)
class Bare:
    """A parsed line: raw values by parameter name, and whether JSON was asked for."""

    values: dict[str, Any]
    json: bool = False


def split(line: str) -> list[Word]:
    """Cut a line into words. Quotes hold a word together, and a quote that is not closed is a plain character."""
    words: list[Word] = []
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        start, text = at, []
        quoted = line[at] in "\"'" and _closing(line, at) is not None
        while at < len(line) and not line[at].isspace():
            end = _closing(line, at) if line[at] in "\"'" and (at == start or line[at - 1] in _BEFORE_QUOTE) else None
            if end is None:
                text.append(line[at])
                at += 1
            else:
                text.append(_unescaped(line[at + 1 : end]))
                at = end + 1
        words.append(Word("".join(text), start, at, quoted))
    return words


def parse_bare(command: Command, line: str, words: list[Word]) -> Bare:
    """Sort the words after a command's name into its parameters.

    Args:
        command: whose parameters.
        line: the whole line, for what is taken as typed.
        words: its words, without the command's name.

    Raises:
        UsageError: an unknown option, an option without its value, too many words; the message names them.
    """
    parser = _Parser(command, line)
    at = 0
    options = True
    while at < len(words):
        word = words[at]
        if options and not word.quoted and word.text == "--":
            options = False
        elif options and word.is_option:
            at = parser.option(words, at)
        else:
            parser.positional(word, at)
        at += 1
    return Bare(parser.finish(), parser.json)


def find_option(command: Command, text: str) -> Parameter | None:
    """The parameter that ``--name`` or ``-n`` stands for."""
    name = text.lstrip("-").partition("=")[0].replace("-", "_")
    if not text.startswith("--"):
        name = SHORT.get(name, name)
        if name == "sites" and all(parameter.name != "sites" for parameter in command.parameters):
            name = "site"
    return next((parameter for parameter in command.parameters if parameter.name == name), None)


class _Parser:
    def __init__(self, command: Command, line: str) -> None:
        self._command, self._line = command, line
        self._places = [parameter for parameter in command.parameters if not parameter.option]
        self._taken: list[tuple[Word, int]] = []
        self._values: dict[str, Any] = {}
        self.json = False

    def option(self, words: list[Word], at: int) -> int:
        """Take an option and its value; return the index of the last word taken."""
        word = words[at]
        if word.text == "--json":
            self.json = True
            return at
        parameter = find_option(self._command, word.text)
        if parameter is None:
            flags = [known.flag for known in self._command.parameters] + ["--json"]
            near = nearest(word.text.partition("=")[0], flags)
            raise UsageError(f"{self._command.name} has no option {word.text}", near or f"usage: {self._command.usage}")
        if parameter.name in self._values:
            raise UsageError(f"{parameter.flag} is given twice", f"usage: {self._command.usage}")
        _, sign, value = word.text.partition("=")
        if parameter.kind.flag:
            if sign:
                raise UsageError(f"{parameter.flag} takes no value", f"usage: {self._command.usage}")
            self._values[parameter.name] = True
            return at
        if sign:
            self._values[parameter.name] = value
            return at
        if at + 1 >= len(words) or words[at + 1].is_option:
            raise UsageError(f"{parameter.flag} needs a value: {parameter.kind.what}", f"usage: {self._command.usage}")
        self._values[parameter.name] = words[at + 1].text
        return at + 1

    def positional(self, word: Word, at: int) -> None:
        """Take a word that stands for itself."""
        apart = self._taken and at != self._taken[-1][1] + 1
        if apart and len(self._taken) >= len(self._places):
            # `ban 0 3 --layers 2 4`: is 4 a layer or an expert? Better to ask than to guess.
            raise UsageError(
                f"{word.text} stands apart from the other {self._places[-1].name}" if self._places else word.text,
                "several values of an option are joined by commas: --layers 2,4",
            )
        self._taken.append((word, at))

    def finish(self) -> dict[str, Any]:
        """All values by name."""
        words = [word for word, _ in self._taken]
        free = [parameter for parameter in self._places if parameter.name not in self._values]
        for number, parameter in enumerate(free):
            if not words:
                break
            rest = number == len(free) - 1
            if parameter.kind.raw and rest:
                one = len(words) == 1 and words[0].quoted
                self._values[parameter.name] = words[0].text if one else self._line[words[0].start : words[-1].stop]
                return self._values
            if parameter.kind.many and rest:
                self._values[parameter.name] = [word.text for word in words]
                return self._values
            self._values[parameter.name] = words.pop(0).text
        if words:
            raise UsageError(f"{words[0].text} is too much for {self._command.name}", f"usage: {self._command.usage}")
        return self._values


def _closing(line: str, at: int) -> int | None:
    """Where the quote that opens at ``at`` closes."""
    quote, end = line[at], at + 1
    while end < len(line):
        if line[end] == "\\":
            end += 1
        elif line[end] == quote:
            return end
        end += 1
    return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text, flags=re.DOTALL)
