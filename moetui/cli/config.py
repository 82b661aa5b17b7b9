"""``moetui config``: the settings, and where each comes from."""

from __future__ import annotations

import click

from moetui.cli.common import Common, common_options, print_json, print_text, warn_of_variables


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--keys", "names", is_flag=True, help="Print what the file's [keys] may give other keys to.")
@common_options
@click.pass_context
def command(ctx: click.Context, as_json: bool, names: bool) -> None:
    """Print the settings file's path, every setting's value, and where it comes from.

    The file is TOML: theme = "light", and under [keys] "network.follow" = "f,ctrl+n".
    """
    if names:
        _print_names(as_json)
        return
    from moetui.cli.settings import load_settings, resolve
    from moetui.routing.text import drawable

    warn_of_variables()
    settings = load_settings(ctx.ensure_object(Common).config_file)
    rows = resolve(settings)
    if as_json:
        print_json(
            {
                "path": str(settings.path),
                "exists": settings.exists,
                "settings": {row.name: {"value": row.value, "origin": row.origin} for row in rows},
                "keys": settings.keys,
            }
        )
        return
    lines = [f"{drawable(str(settings.path))}{'' if settings.exists else '  (not there: all defaults)'}"]
    width = max(len(row.name) for row in rows)
    for row in rows:
        value = "–" if row.value is None or row.value == "" else str(row.value)
        lines.append(f"  {row.name:<{width}}  {drawable(value):<12}  {row.origin}")
    lines += [f"  key {drawable(name)}: {drawable(keys)}" for name, keys in settings.keys.items()]
    print_text("\n".join(lines))


def _print_names(as_json: bool) -> None:
    from moetui.cli.key_names import ACTIONS, NAMES

    if as_json:
        print_json({"actions": sorted(NAMES)})
        return
    print_text("\n".join(f"{part}.{name}".lstrip(".") for part, names in ACTIONS.items() for name in names.split()))
