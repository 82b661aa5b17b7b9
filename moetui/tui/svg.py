"""A screenshot as SVG that every viewer draws alike."""

from __future__ import annotations

import re
from html import escape, unescape

from rich.cells import cell_len

_FONT_FACES = re.compile(r"@font-face \{.*?\}\n\s*", re.DOTALL)
_FONTS = "DejaVu Sans Mono, Menlo, Consolas"
_FONT_SIZE = 20.27  # px at which those fonts are as wide as the picture's cells, for viewers that do not stretch text
_CELL = 12.2  # px
_TEXT = re.compile(
    r'<text class="([^"]*)" x="([^"]*)" y="([^"]*)" textLength="[^"]*" clip-path="([^"]*)">([^<]*)</text>'
)
_PIECES = re.compile("[^\xa0]+(?:\xa0[^\xa0]+)*")  # Rich writes blanks as no-break spaces
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def self_contained(svg: str) -> str:
    """Textual's screenshot without links to fonts elsewhere, in what every viewer draws alike."""
    plain = (
        _FONT_FACES.sub("", svg).replace("Fira Code", _FONTS).replace("font-size: 20px", f"font-size: {_FONT_SIZE}px")
    )
    return _NO_XML.sub("\ufffd", _TEXT.sub(_placed, plain)) + "\n"


def _placed(found: re.Match[str]) -> str:
    """A text as pieces, each at its own place: some viewers drop leading blanks, and fonts differ in their width."""
    style, x, y, clip, escaped = found.groups()
    text = unescape(escaped)
    out = []
    for piece in _PIECES.finditer(text):
        at, width = float(x) + _CELL * cell_len(text[: piece.start()]), _CELL * cell_len(piece[0])
        shown = escape(piece[0]).replace("\xa0", "&#160;")
        out.append(
            f'<text class="{style}" x="{at:.5g}" y="{y}" textLength="{width:.5g}" clip-path="{clip}">{shown}</text>'
        )
    return "".join(out)
