"""The settings file: found, read, checked, and every value's origin known."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from moetui.cli.key_clashes import check_clashes
from moetui.cli.key_names import check_keys
from moetui.routing.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Origin = Literal["default", "file", "environment"]

# What click calls kinds of values.
_IN_WORDS = {
    "a valid float range": "a number",
    "a valid integer range": "a whole number",
    "a valid boolean": "true or false",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings file says.

    Attributes:
        path: where it is, or would be.
        exists: whether it is there.
        values: option name → value, checked.
        keys: binding id → keys, as the screen's keymap wants them.
    """

    path: Path
    exists: bool
    values: dict[str, Any]
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting's value and where it comes from."""

    name: str
    value: Any
    origin: Origin


def settings_path(explicit: str | None = None) -> Path:
    """The settings file: ``--config``, else ``MOETUI_CONFIG``, else the user's configuration folder."""
    chosen = explicit or os.environ.get("MOETUI_CONFIG")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_config_path

    return user_config_path("moetui") / "config.toml"


def load_settings(explicit: str | None = None) -> Settings:
    """Read and check the settings file; one that is not there is empty, unless it was named.

    Raises:
        UsageError: no such file though named, no TOML, an unknown name or key, a key given twice, a value of the
            wrong kind.
    """
    path = settings_path(explicit)
    if not path.is_file():
        if explicit or os.environ.get("MOETUI_CONFIG"):
            raise UsageError(f"no settings file at {path}", "'moetui config' prints where it is looked for")
        return Settings(path, False, {}, {})
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}", 'a setting is written like: theme = "dark"') from error
    keys = table.pop("keys", {})
    if not isinstance(keys, dict) or not all(isinstance(value, str) for value in keys.values()):
        raise UsageError(f"{path}: [keys] maps names of actions to keys", 'like: "network.follow" = "f"')
    check_keys(keys, str(path))
    check_clashes(keys, str(path))
    return Settings(path, True, _checked(table, path), dict(keys))


def resolve(settings: Settings) -> list[Setting]:
    """Every setting with its value and origin; the environment wins over the file.

    Raises:
        UsageError: a variable whose value its option does not take.
    """
    from moetui.cli.options import settings as known

    out = []
    for name, option in known().items():
        variable = option.envvar if isinstance(option.envvar, str) else ""
        if variable and os.environ.get(variable):
            out.append(Setting(name, _converted(option, os.environ[variable], variable), "environment"))
        elif name in settings.values:
            out.append(Setting(name, settings.values[name], "file"))
        else:
            out.append(Setting(name, option.to_info_dict()["default"], "default"))
    return out


def unknown_variables() -> list[str]:
    """A line for each ``MOETUI_*`` variable that nothing reads, with a suggestion: most are mistyped."""
    from moetui.cli.options import settings as known

    names = {option.envvar for option in known().values()} | {"MOETUI_CONFIG", "MOETUI_DEBUG", "MOETUI_PROMPT"}
    out = []
    for variable in sorted(name for name in os.environ if name.startswith("MOETUI_") and name not in names):
        near = difflib.get_close_matches(variable, [str(name) for name in names], n=1)
        out.append(f"{variable} is not read" + (f"; did you mean {near[0]}?" if near else ""))
    return out


def _checked(table: dict[str, Any], path: Path) -> dict[str, Any]:
    from moetui.cli.options import settings as known

    options = known()
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, [*options, "keys"], n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'moetui config' lists them"
            if isinstance(value, dict) and near != ["keys"]:
                hint = 'settings stand in no table, [keys] alone is one; like: theme = "dark"'
            raise UsageError(f"{path}: unknown setting '{key}'", hint)
        values[name] = _converted(options[name], value, f"{path}: {key}")
    return values


def _converted(option: click.Option, value: Any, where: str) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise UsageError(f"{where}: one value is wanted, not a list, a table or a date")
    try:
        # As text, as the command line has it: click's own types trust a number to be of the right kind.
        return option.type.convert(str(value), option, None)
    except click.BadParameter as error:
        message = error.message.partition(" Recognized values")[0]
        for click_says, words in _IN_WORDS.items():
            message = message.replace(click_says, words)
        raise UsageError(f"{where}: {message}", getattr(error, "hint", "")) from error
