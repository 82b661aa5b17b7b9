"""The scroll bar of widgets that draw their own lines: one cell a line."""

from __future__ import annotations


def thumb(line: int, top: int, page: int, total: int, *, ascii_only: bool) -> str:
    """The cell on line ``line`` of ``page``: a thumb as long as the share in view, a blank where all is in view."""
    if total <= page:
        return " "
    size = max(1, round(page * page / total))
    start = round((page - size) * top / (total - page))
    inside = start <= line < start + size
    if ascii_only:
        return "#" if inside else "|"
    return "▐" if inside else " "
