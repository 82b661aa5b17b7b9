"""Small helpers that several grammars share."""

from collections.abc import Sequence


def with_article(phrase: str) -> str:
    """`a` or `an` before a phrase, by its first letter."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def sentence(text: str) -> str:
    """The text with a capital first letter; the rest stays as it is."""
    return text[0].upper() + text[1:]


def listed(items: Sequence[str], joiner: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joiner} {items[-1]}"
