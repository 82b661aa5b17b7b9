"""Cuts a query into words, numbers, strings and signs, on demand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from moetui.routing.errors import QueryError

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORD = re.compile(r"[^\W\d][\w.]*")
_SIGN = re.compile(r"<=|>=|==|!=|!~|&&|\|\||[<>=~:()\[\]!,-]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A piece of the text: ``value`` is the number's text, the string's content, the word or the sign."""

    kind: Literal["number", "string", "word", "sign", "end"]
    value: str
    start: int
    stop: int


class Cursor:
    """A place in a query's text.

    Args:
        text: the query.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def peek(self) -> Lexeme:
        """The next piece, which stays.

        Raises:
            QueryError: a character that begins nothing, or a string without an end.
        """
        space = _SPACE.match(self.text, self.position)
        start = space.end() if space else self.position
        if start >= len(self.text):
            return Lexeme("end", "", len(self.text), len(self.text))
        if self.text[start] in "\"'":
            value, stop = self._string(start)
            return Lexeme("string", value, start, stop)
        for kind, pattern in (("number", _NUMBER), ("word", _WORD), ("sign", _SIGN)):
            found = pattern.match(self.text, start)
            if found:
                return Lexeme(kind, found.group(), start, found.end())  # type: ignore[arg-type]
        raise QueryError(f"'{self.text[start]}' means nothing here", start, 'strings stand in quotes: token:"…"')

    def next(self) -> Lexeme:
        """The next piece, which is passed."""
        piece = self.peek()
        self.position = piece.stop
        return piece

    def take(self, *values: str) -> Lexeme | None:
        """Pass the next piece if it is a sign or word of these (in any case); None if it is not."""
        piece = self.peek()
        if piece.kind in ("sign", "word") and piece.value.lower() in values:
            self.position = piece.stop
            return piece
        return None

    def touches(self, piece: Lexeme) -> bool:
        """Whether no space stands between ``piece`` and what follows it."""
        return self.text[piece.stop : piece.stop + 1].strip() != ""

    def raw(self) -> tuple[str, int]:
        """Everything up to the next space or parenthesis, strings after a comma left whole; and where it starts."""
        space = _SPACE.match(self.text, self.position)
        start = self.position = space.end() if space else self.position
        while self.position < len(self.text) and not self.text[self.position].isspace():
            if self.text[self.position] in "()":
                break
            first = self.position == start or self.text[self.position - 1] == ","
            if first and self.text[self.position] in "\"'":
                self.position = self._string(self.position)[1]
            else:
                self.position += 1
        return self.text[start : self.position], start

    def _string(self, start: int) -> tuple[str, int]:
        quote, at = self.text[start], start + 1
        out: list[str] = []
        while at < len(self.text):
            char = self.text[at]
            if char == quote:
                return "".join(out), at + 1
            if char == "\\" and at + 1 < len(self.text):
                piece, at = self._escape(at)
                out.append(piece)
            else:
                out.append(char)
                at += 1
        raise QueryError("a string has no end", start, f"close it with {quote}")

    def _escape(self, at: int) -> tuple[str, int]:
        """An escape and where it ends; a backslash before anything unknown stays, as regular expressions need it."""
        follows = self.text[at + 1]
        if follows in _ESCAPES:
            return _ESCAPES[follows], at + 2
        code = self.text[at + 2 : at + 6]
        if follows == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", code):
            return chr(int(code, 16)), at + 6
        return "\\", at + 1
