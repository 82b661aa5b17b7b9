"""Which tokens to put in the place of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moetui.engine.texts import TokenTexts
from moetui.routing import UsageError

_NEUTRAL = (" ", "\n", " the", ",", ".")
_SPECIAL = ("unk_token_id", "pad_token_id", "eos_token_id", "bos_token_id")


def chosen(tokenizer: Any, text: str, count: int) -> tuple[int, ...]:
    """The tokens that ``text`` is in ``count`` places: one for each, or the same one for all.

    Raises:
        UsageError: it is another number of tokens, or none.
    """
    if not text:
        raise UsageError("the replacement is empty", "give a text, or leave it out for a neutral token")
    if tokenizer is None:
        return _numbers(text, count)
    texts = TokenTexts(tokenizer)
    found = [ids for each in dict.fromkeys((text, text.strip(), " " + text.strip())) if (ids := _ids(tokenizer, each))]
    # Tokenizers put a space before a text or take one away: the way of writing that reads as wanted is the best.
    found.sort(key=lambda ids: "".join(texts.texts(ids)) != text)
    for ids in found:
        if len(ids) in (1, count):
            return ids * count if len(ids) == 1 else ids
    if not found:
        raise UsageError("the replacement has no tokens: the tokenizer makes nothing of it", "write a word")
    wanted = "one token" if count == 1 else f"one token or {count}"
    raise UsageError(f"the replacement is {len(found[0])} tokens, its place wants {wanted}", "choose a shorter word")


def neutral(tokenizer: Any, config: Any, original: Iterable[int]) -> int:
    """A token that says as little as there is: a space, else a frequent word or mark, else a special token.

    A token of the vocabulary and no mean of embeddings: the model has seen it, and routers that look up token ids work.
    Special tokens come last, as models take them for the end of a text or lean their attention on them.

    Args:
        original: tokens to be replaced, which it must not be.

    Raises:
        UsageError: there is none.
    """
    avoided = set(original)
    if tokenizer is not None:
        texts = TokenTexts(tokenizer)
        for text in _NEUTRAL:
            ids = _ids(tokenizer, text)
            if len(ids) == 1 and ids[0] not in avoided and texts.text(ids[0]).strip() == text.strip():
                return ids[0]
    inner = config.get_text_config() if hasattr(config, "get_text_config") else None  # of models that see, too
    for owner in (tokenizer, config, inner):
        for name in _SPECIAL:
            value = getattr(owner, name, None)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int) and value >= 0 and value not in avoided:
                return value
    raise UsageError("the model has no neutral token", "name a replacement")


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # a processor's
    return tuple(int(token) for token in inner(text, add_special_tokens=False).input_ids) if text else ()


def _numbers(text: str, count: int) -> tuple[int, ...]:
    words = text.split()
    if not words or not all(word.isascii() and word.isdecimal() for word in words) or len(words) not in (1, count):
        raise UsageError("the model has no tokenizer, so the replacement must be a token id", "for example: 300")
    ids = tuple(int(word) for word in words)
    return ids * count if len(ids) == 1 else ids
