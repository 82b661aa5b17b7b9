"""The text of token ids, byte by byte."""

from __future__ import annotations

from typing import Any


class TokenTexts:
    """Token id → text, cached.

    Args:
        tokenizer: a transformers tokenizer, or None.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def text(self, token_id: int) -> str:
        """The text of one token; bytes that are no UTF-8 by themselves as lone surrogates."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._make(token_id)
        return known

    def _make(self, token_id: int) -> str:
        if self._tokenizer is None:
            return f"‹{token_id}›"
        return str(self._tokenizer.decode([token_id]))
