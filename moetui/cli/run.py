"""``moetui run``: a model, live, on the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from moetui.cli.common import OUTPUT_PATH, Common, check_writable, common_options
from moetui.cli.options import CAPTURE, CONSOLE, GENERATION, MODEL, PROMPT, SCREEN, grouped


@click.command("run")
@click.argument("model")
@grouped(PROMPT)
@click.option("--record", type=OUTPUT_PATH, help="Record the session to this file.")
@click.option("--force", is_flag=True, help="Replace an existing recording.")
@click.option("--exec", "script", type=click.Path(), help="Run the console commands of this file first.")
@grouped(CONSOLE, GENERATION, MODEL, CAPTURE, SCREEN)
@common_options
@click.pass_context
def command(
    ctx: click.Context, /, model: str, record: Path | None, force: bool, script: str | None, **options: Any
) -> int:
    """Watch and debug MODEL: an alias, a hub id, a folder, or random:ARCH.

    moetui run demo needs no download.
    """
    from platformdirs import user_state_path

    from moetui.cli.screen import screen_options
    from moetui.cli.script import script_lines
    from moetui.cli.values import generation_settings, load_request, prompt_of
    from moetui.session import ComingSession, Session
    from moetui.tui import run_app

    prompt = prompt_of(options["prompt"], options["prompt_file"])
    if record is not None:
        check_writable(record, force=force)
    lines = [] if script is None else script_lines(script)
    settings = generation_settings(options)

    def live() -> Session:
        from moetui.session import LiveOptions, LiveSession

        return LiveSession(
            LiveOptions(
                load=load_request(model, options),
                prompt=prompt or "",
                begin=False,
                settings=settings,
                record=record,
                force=force,
                logits=options["logits"],
                sample_rate=options["sample_rate"],
                buffer_tokens=options["buffer_tokens"],
                state=user_state_path("moetui"),
            )
        )

    # The screen begins the run, behind the script, when there is something to see it on.
    screen = screen_options(options, ctx.ensure_object(Common).keys)
    screen = replace(screen, script=tuple(lines), script_name=script or "", prompt=prompt or "")
    return run_app(ComingSession(model, live, settings=settings), screen)
