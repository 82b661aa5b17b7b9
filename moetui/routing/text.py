"""Makes any string drawable: the one door through which strings of models, files and networks reach a screen."""

from __future__ import annotations

import re
import unicodedata

# Cf holds bidi and zero-width marks, Cc controls, Cs lone surrogates, Co and Cn what no font has; Zl, Zp and Zs
# other than the plain space would break or fake a layout. Mn/Me combine and stay, but not at the start of a string.
_SAFE_ASCII = re.compile(r"[ -~]*\Z")
_SYMBOLS = {"\n": "↵", "\r": "␍", "\t": "⇥", "\x7f": "␡", "\xa0": "⍽", "\u200b": "␣", "\ufffd": "\ufffd"}
_MAX_COMBINING = 2
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
# Letters and a symbol that are drawn as nothing: Hangul fillers, the empty Braille pattern.
_INVISIBLE = "\u115f\u1160\u3164\uffa0\u2800"
# What chooses among the looks of the character before: with it some terminals draw two cells, others one.
_SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Skin colours and letters of flags, which some terminals draw into what stands before, and others beside it.
_JOINING = re.compile("[\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]")


def drawable(text: str, *, spaces: bool = False) -> str:
    """Return ``text`` with nothing left in it that a terminal, a layout or a reader could be misled by.

    Args:
        text: any string, lone surrogates of ``surrogateescape`` included.
        spaces: show a leading or trailing plain space as ``·`` (token text, where it matters).

    Returns:
        One line of printable characters. Controls become their control pictures (``␛``), newline ``↵``, tab ``⇥``;
        bytes that are no UTF-8 become ``‹E2›``; bidi, zero-width, private and unassigned characters ``‹U+202E›``, and
        so do parts of emoji that not all terminals draw as one; selectors of a look are left out behind a character;
        more than two combining marks in a row are cut to two, none starts the string.
    """
    if not _SAFE_ASCII.match(text):
        text = _draw(text)
    if spaces and text:
        stripped = text.strip(" ")
        if not stripped:
            return "·" * len(text)
        lead = len(text) - len(text.lstrip(" "))
        tail = len(text) - len(text.rstrip(" "))
        return "·" * lead + stripped + "·" * tail
    return text


def no_formula(text: str) -> str:
    """``text`` drawable, with an apostrophe before what a spreadsheet would take for a formula."""
    text = drawable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _draw(text: str) -> str:
    out: list[str] = []
    combining = _MAX_COMBINING
    for char in text:
        category = unicodedata.category(char)
        if _SELECTORS.match(char):
            if not out:
                out.append(f"‹U+{ord(char):04X}›")
            continue
        if category in ("Mn", "Me"):
            combining += 1
            if combining <= _MAX_COMBINING:
                out.append(char)
            elif not out:
                out.append("◌" + char)
                combining = 1
            continue
        combining = 0
        out.append(_draw_char(char, category))
    return "".join(out)


def _draw_char(char: str, category: str) -> str:
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if 0xDC80 <= code <= 0xDCFF:
        return f"‹{code - 0xDC00:02X}›"
    if (
        category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        or (category == "Zs" and char != " ")
        or char in _INVISIBLE
        or _JOINING.match(char)
    ):
        return f"‹U+{code:04X}›"
    return char
