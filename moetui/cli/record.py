"""``moetui record``: a run without a screen."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from moetui.cli.common import (
    OUTPUT,
    Common,
    check_stdout,
    check_writable,
    common_options,
    pass_on,
    print_json,
    progress_wanted,
    temporary_recording,
)
from moetui.cli.options import CAPTURE, CONSOLE, GENERATION, MODEL, PROMPT, grouped

# `--force` names experts here, and replaces files everywhere else: without experts it does that here as well.
_FLAG = "overwrite"


@click.command("record")
@click.argument("model")
@grouped(PROMPT)
@click.option("-o", "--output", required=True, type=OUTPUT, help="The recording to write; - for standard output.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file (so does --force without experts).")
@click.option("--force", is_flag=False, flag_value=_FLAG, help="Send tokens to these experts: 0,3,7.")
@click.option("--ban", help="Keep tokens from these experts: 1 or 0-3.")
@click.option("--top-k", type=click.IntRange(min=1), help="Experts a token may use.")
@click.option("--layers", help="Only in these layers: 3, or 0,2, or 2-5, of which those with a router.")
@click.option(
    "--exec",
    "script",
    type=click.Path(),
    help="Run console commands first; one that fails ends it, what was recorded stays.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the recording's numbers as one JSON document.")
@grouped(CONSOLE, GENERATION, MODEL, CAPTURE)
@common_options
@click.pass_context
def command(ctx: click.Context, /, model: str, output: str, as_json: bool, **options: Any) -> int:
    """Run MODEL on a prompt and record it, without a screen."""
    from moetui.routing.errors import TraceError, UsageError

    if options["force"] == _FLAG:
        options["force"], options["overwrite"] = None, True
    if output == "-":
        if as_json:
            raise UsageError("--json and '-o -' both want standard output", "write the recording to a file")
        check_stdout("a recording")
        with temporary_recording() as target:
            try:
                status = _record(ctx, model, target, as_json, options, named=False)
            except BaseException:  # what was recorded before that as well
                if target.exists():
                    with suppress(TraceError):
                        pass_on(target)
                raise
            pass_on(target)
            return status
    check_writable(Path(output), force=options["overwrite"], option="--overwrite")
    return _record(ctx, model, Path(output), as_json, options)


def _record(
    ctx: click.Context, model: str, target: Path, as_json: bool, options: dict[str, Any], *, named: bool = True
) -> int:
    from moetui.cli.progress import Progress
    from moetui.cli.script import commands, script_lines
    from moetui.cli.values import generation_settings, interventions_of, load_request, prompt_of
    from moetui.routing.errors import TraceError, UsageError, incomplete_recording
    from moetui.session import LiveOptions
    from moetui.session.headless import run_headless

    prompt = prompt_of(options["prompt"], options["prompt_file"])
    if prompt is None and options["script"] is None:
        raise UsageError("record needs a prompt", "for instance: -p 'Once there was'")
    live = LiveOptions(
        load=load_request(model, options),
        prompt=prompt or "",
        settings=generation_settings(options),
        interventions=interventions_of(options["force"], options["ban"], options["top_k"], options["layers"]),
        record=target,
        force=options["overwrite"],
        logits=options["logits"],
        sample_rate=options["sample_rate"],
        buffer_tokens=options["buffer_tokens"],
    )
    lines = None if options["script"] is None else script_lines(options["script"])
    quiet, python = ctx.ensure_object(Common).quiet, not options["no_python"]
    with Progress(progress_wanted(ctx), live.settings.max_new_tokens, quiet=quiet) as progress:
        prepare = None if lines is None else commands(lines, options["script"], quiet=quiet, python=python)
        try:
            run = run_headless(live, on_event=progress.take, prepare=prepare)
        except KeyboardInterrupt:
            progress.interrupted(target, str(target) if named else "standard output")
            raise
        finally:
            if named:
                progress.wrote(target)
    if run.problem:
        raise incomplete_recording(run.problem)
    if not run.view.end:
        raise TraceError("nothing was recorded: no token went through the model", "add -p, or 'generate' to the script")
    if as_json:
        from moetui.trace import trace_stats

        print_json(trace_stats(target))
    return 0
