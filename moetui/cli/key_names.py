"""What a settings file may give keys to, and which keys there are: told here, without loading what draws the screen."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping

from moetui.routing import UsageError

ACTIONS: dict[str, str] = {
    "": "breakpoints compare console console_tab copy elements faster findings finish force fork help loop"
    " network next_event next_tab picture previous_event previous_tab profiler prompt quit redraw restart"
    " resume rewind save seek slower step step_back step_layer stop toggle",
    "network": "attention baseline digits filter follow hide layer_after layer_before mark measure next_mark next_match"
    " pooling previous_match relative reverse sort turn why window",
    "tokens": "down first last layer_after layer_before open page_down page_up up",
    "heatmap": "down filter fit left right up zoom_in zoom_out",
    "detail": "layer_after layer_before",
    "profiler": "parts",
    "filter": "complete down leave",
    "diff": "beside first next prefix previous site_after site_before",
}
NAMES = frozenset(f"{part}.{name}".lstrip(".") for part, names in ACTIONS.items() for name in names.split())

_MODIFIERS = re.compile(r"(?:(?:ctrl|shift|alt|super|hyper|meta)\+)*")
_KEYS = (
    {"tab", "enter", "escape", "space", "backspace", "delete", "insert", "home", "end", "pageup", "pagedown"}
    | {"up", "down", "left", "right", "plus", "minus", "slash", "backslash", "at", "underscore"}
    | {f"f{number}" for number in range(1, 25)}
    | {re.sub("[ -]", "_", unicodedata.name(chr(code)).lower()) for code in range(0x21, 0x7F)}
)


def check_keys(keys: Mapping[str, str], where: str) -> None:
    """Look for mistyped names.

    Args:
        keys: name of what a key does → keys, several with commas between them.
        where: the file, for the message.

    Raises:
        UsageError: nothing is called so, or there is no such key.
    """
    for name, wanted in keys.items():
        if name not in NAMES:
            near = [each for each in sorted(NAMES) if each.rpartition(".")[2] == name]
            near = near or difflib.get_close_matches(name, sorted(NAMES), n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'moetui config --keys' lists what there is"
            raise UsageError(f"{where}: [keys] nothing is called '{name}'", hint)
        for key in wanted.split(","):
            if not is_key(key.strip()):
                near = difflib.get_close_matches(key.strip(), sorted(_KEYS), n=1)
                hint = f"did you mean '{near[0]}'?" if near else "like: f, ctrl+n, f5, question_mark"
                raise UsageError(f"{where}: [keys] {name}: there is no key '{key.strip()}'", hint)


def is_key(text: str) -> bool:
    """Whether a key is called so: a character, its Unicode name (``question_mark``), a named key; with modifiers."""
    key = text[_MODIFIERS.match(text).end() :]  # type: ignore[union-attr]
    return key in _KEYS or (len(key) == 1 and key.isprintable())
