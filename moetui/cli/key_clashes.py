"""A key that a settings file gives to one thing while it does another in the same place: one would be lost."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from moetui.routing import UsageError

# What each key does unless a settings file says otherwise; told here, without loading what draws the screen.
_DEFAULTS: dict[str, str] = {
    "": "breakpoints=b compare=C console=escape,colon console_tab=3 copy=y,f7 elements=2 faster=plus,equals_sign"
    " findings=exclamation_mark finish=E force=e fork=F help=question_mark,f1 loop=o network=1 next_event=J"
    " next_tab=right_curly_bracket,ctrl+pagedown picture=P previous_event=K"
    " previous_tab=left_curly_bracket,ctrl+pageup profiler=4 prompt=p quit=q redraw=ctrl+l restart=X resume=c,f5"
    " rewind=backspace save=Y,f8 seek=g slower=minus step=n,f10 step_back=comma step_layer=s,f11 stop=x toggle=space",
    "network": "attention=A baseline=B digits=d filter=slash follow=f hide=backslash"
    " layer_after=right_square_bracket layer_before=left_square_bracket mark=m measure=v next_mark=apostrophe"
    " next_match=greater_than_sign pooling=a previous_match=less_than_sign relative=r reverse=R sort=S turn=t why=W"
    " window=w",
    "tokens": "down=down,j first=home last=end layer_after=right,l layer_before=left,h open=enter page_down=pagedown"
    " page_up=pageup up=up,k",
    "heatmap": "down=down,j filter=enter fit=0 left=left,h right=right,l up=up,k zoom_in=z zoom_out=Z",
    "detail": "layer_after=down,j,right,l layer_before=up,k,left,h",
    "profiler": "parts=m",
    "filter": "complete=tab down=down leave=escape",
    "diff": "beside=v first=d next=n prefix=p previous=N site_after=right_square_bracket"
    " site_before=left_square_bracket",
}
DEFAULTS = {
    f"{part}.{name}".lstrip("."): keys
    for part, names in _DEFAULTS.items()
    for name, keys in (each.split("=") for each in names.split())
}

# Parts whose keys do something at the same time: a panel's beside those of the app and of what it stands in. The filter
# line takes most keys as text and its own before any other.
_TOGETHER = {
    "": ("", "network", "tokens", "heatmap", "detail", "profiler"),
    "network": ("network", "tokens", "heatmap", "detail"),
    "tokens": ("tokens",),
    "heatmap": ("heatmap",),
    "detail": ("detail",),
    "profiler": ("profiler",),
    "filter": ("filter",),
    "diff": ("diff",),
}
_IN_A_DIFF = ("copy", "help", "picture", "quit", "redraw", "save")  # the app's that a comparison has too
_LIVE = frozenset({"resume", "step_layer", "stop", "finish", "restart", "prompt", "fork", "rewind", "force"})
_REPLAYED = frozenset({"step_back", "faster", "slower", "seek", "loop", "next_event", "previous_event"})
_SAME = frozenset({"filter.down", "filter.leave"})  # these two do the same
_SHORT = {
    "solidus": "slash",
    "reverse_solidus": "backslash",
    "commercial_at": "at",
    "hyphen_minus": "minus",
    "plus_sign": "plus",
    "low_line": "underscore",
}


def check_clashes(keys: Mapping[str, str], where: str) -> None:
    """Look for keys given to what they cannot do beside something else.

    Args:
        keys: name of what a key does → keys, several with commas between them; names and keys are known to exist.
        where: the file, for the message.

    Raises:
        UsageError: a key would do two things in the same place.
    """
    effective = {name: _keys(wanted) for name, wanted in {**DEFAULTS, **keys}.items()}
    for name in keys:
        for other, taken in effective.items():
            both = sorted(effective[name] & taken)
            if other == name or not both or not _meet(name, other, given=other in keys):
                continue
            hint = f"give '{name}' another key, or '{other}'"
            says = f"is given to '{name}' and to '{other}'" if other in keys else f"of '{name}' is that of '{other}'"
            raise UsageError(f"{where}: [keys] '{both[0]}' {says}", hint)


def _meet(name: str, other: str, *, given: bool) -> bool:
    """Whether both do something in one place; ``given``: the file gives the other its key too."""
    (part, _, what), (second, _, whats) = name.rpartition("."), other.rpartition(".")
    if {name, other} == _SAME or (what == whats and what.startswith("layer_")):
        return False
    if given and ({name, other} & _LIVE and {name, other} & _REPLAYED):
        return False  # never in one session
    if "diff" in (part, second) and part != second:
        return not (part and second) and (what if not part else whats) in _IN_A_DIFF
    return second in _TOGETHER[part] or part in _TOGETHER[second]


def _keys(wanted: str) -> frozenset[str]:
    """Keys by one name each: ``/`` is ``slash``."""
    return frozenset(_named(key.strip()) for key in wanted.split(","))


def _named(key: str) -> str:
    head, plus, last = key.rpartition("+") if len(key) > 1 and not key.endswith("+") else ("", "", key)
    if len(last) == 1 and not last.isalnum():
        last = re.sub("[ -]", "_", unicodedata.name(last, last).lower())
    return head + plus + _SHORT.get(last, last)
