"""The text of token ids, byte by byte: what a tokenizer's decoder would make of each piece alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from moetui.routing import UsageError
from moetui.routing.given import shown

_Rule: TypeAlias = Callable[[str], bytes]

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_SPACE = "▁"


class TokenTexts:
    """Token id → text, cached.

    Joining the texts of a sequence and re-encoding with ``surrogateescape`` gives the bytes that the tokenizer's
    own decoder makes of it, but for the one leading space that SentencePiece decoders strip.

    Args:
        tokenizer: a transformers tokenizer or processor; None shows ids.

    Raises:
        UsageError: it is neither.
    """

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        if self._tokenizer is not None and not hasattr(self._tokenizer, "convert_ids_to_tokens"):
            raise UsageError(
                f"{shown(tokenizer)} is no tokenizer", "AutoTokenizer.from_pretrained gives one; None shows ids"
            )
        self._rule = _rule(self._tokenizer)
        self._known: dict[int, str] = {}

    def text(self, token_id: int) -> str:
        """The text of one token; bytes that are no UTF-8 by themselves as lone surrogates; ``‹id›`` if unknown."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._make(token_id)
        return known

    def texts(self, token_ids: Iterable[int]) -> list[str]:
        """The texts of several tokens."""
        return [self.text(token_id) for token_id in token_ids]

    def _make(self, token_id: int) -> str:
        unknown = f"‹{token_id}›"
        if self._tokenizer is None:
            return unknown
        try:
            piece = self._tokenizer.convert_ids_to_tokens(token_id)
        except (IndexError, KeyError, OverflowError, ValueError, TypeError):
            return unknown
        if not isinstance(piece, str):
            return unknown
        if self._rule is not None:
            return self._rule(piece).decode("utf-8", "surrogateescape")
        return self._by_difference(token_id)

    def _by_difference(self, token_id: int) -> str:
        """What decoding the token twice adds to decoding it once: its text with what it puts between words."""
        once = self._decode([token_id])
        twice = self._decode([token_id, token_id])
        return twice[len(once) :] if twice.startswith(once) else once

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _rule(tokenizer: Any) -> _Rule | None:
    """How a tokenizer's decoder turns one piece into bytes; None where only the decoder itself knows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _sentencepiece if hasattr(tokenizer, "sp_model") else None
    decoder = json.loads(backend.to_str()).get("decoder")
    steps = decoder.get("decoders", []) if decoder and decoder.get("type") == "Sequence" else [decoder]
    kinds = {step["type"] for step in steps if step}
    if "ByteLevel" in kinds:
        return _byte_level if kinds <= {"ByteLevel", "Fuse"} else None
    replacements = [_replacement(step) for step in steps if step and step["type"] in ("Replace", "Metaspace")]
    if None in replacements or kinds - {"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"}:
        return None
    if not replacements and "ByteFallback" not in kinds:
        return None
    pairs = [pair for pair in replacements if pair is not None]
    return _pieces(pairs, "ByteFallback" in kinds)


def _replacement(step: dict[str, Any]) -> tuple[str, str] | None:
    if step["type"] == "Metaspace":
        return str(step.get("replacement", _SPACE)), " "
    pattern = step.get("pattern", {}).get("String")
    return None if pattern is None else (str(pattern), str(step["content"]))


def _pieces(pairs: list[tuple[str, str]], byte_fallback: bool) -> _Rule:
    def rule(piece: str) -> bytes:
        found = _BYTE_PIECE.match(piece) if byte_fallback else None
        if found:
            return bytes([int(found[1], 16)])
        for old, new in pairs:
            piece = piece.replace(old, new)
        return piece.encode("utf-8", "surrogateescape")

    return rule


_sentencepiece = _pieces([(_SPACE, " ")], byte_fallback=True)


def _byte_alphabet() -> dict[str, int]:
    """The printable characters that byte-level BPE writes bytes as (Radford et al. 2019, GPT-2's ``encoder.py``)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(0x100 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _byte_level(piece: str) -> bytes:
    """Added tokens with a character outside the alphabet stand for themselves, as the decoder has it."""
    values = [_BYTES.get(char) for char in piece]
    known = [value for value in values if value is not None]
    return bytes(known) if len(known) == len(values) else piece.encode("utf-8", "surrogateescape")
