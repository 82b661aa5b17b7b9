"""The ``moetui`` command: its sub-commands, loaded when called, and the way errors leave it."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from moetui._version import __version__
from moetui.cli.interrupts import interruptible
from moetui.cli.streams import STDOUT, guard_streams, leave_stdout, open_streams

# name → (module, one-line help): listed here so that `--help` imports no command.
_COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("moetui.cli.run", "Watch and debug a model live."),
    "replay": ("moetui.cli.replay", "Open a recording; needs no model."),
    "record": ("moetui.cli.record", "Record a run without a screen."),
    "stats": ("moetui.cli.stats", "Print a recording's numbers."),
    "export": ("moetui.cli.export", "Write a recording in another format."),
    "diff": ("moetui.cli.diff", "Say what changed between two recordings."),
    "import": ("moetui.cli.import_", "Make a recording from another tool's router log."),
    "models": ("moetui.cli.models", "List aliases and architectures, and what works with each."),
    "config": ("moetui.cli.config", "Print the settings and where each comes from."),
    "doctor": ("moetui.cli.doctor", "Check terminal, colour, GPU and versions."),
}

_MAX_LINE = 400


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; their help lines are known before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a newcomer meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a mistyped name."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in _COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see 'moetui --help'"
            raise _UnknownCommandError(f"no such command: {name}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


class _UnknownCommandError(click.UsageError):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", prog_name="moetui")
@click.option("--config", "config_file", type=click.Path(dir_okay=False), help="Read settings from this file.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no notices.")
@click.pass_context
def cli(ctx: click.Context, config_file: str | None, debug: bool, quiet: bool) -> None:
    """A debugger for the routers of Mixture-of-Experts language models.

    Try it with nothing to download: moetui run demo
    """
    from moetui.cli.common import Common

    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
    ctx.obj = Common(debug=debug, quiet=quiet, config_file=config_file)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 the call was wrong, 130 interrupted.

    Hung up on is 129 and told to end 143: 128 and the number of the signal, as shells have it.
    """
    open_streams()
    arguments = sys.argv[1:] if args is None else args
    debug = "--debug" in arguments or os.environ.get("MOETUI_DEBUG", "") not in ("", "0")
    try:
        with interruptible():
            status = _call(arguments)
        _flush()
        sys.exit(status if isinstance(status, int) else 0)
    except KeyboardInterrupt as error:
        number = _signal(error)
        if number == signal.SIGINT and sys.stderr.isatty():
            sys.stderr.write("\n")  # what the terminal wrote as ^C stands by itself
        sys.exit(128 + number)
    except BrokenPipeError:
        leave_stdout()  # who reads a help has seen what they wanted
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last place where an error can become one line
        if debug and not isinstance(error, click.ClickException):
            traceback.print_exc()
        message, hint, status = _describe(error)
        _say(message, hint)
        if isinstance(error, OSError) and error.filename == STDOUT:
            leave_stdout()
        sys.exit(status)


def _call(arguments: list[str]) -> object:
    """What click's own ``main`` does, but for what it writes and how it ends when interrupted or on a closed pipe."""
    if "_MOETUI_COMPLETE" in os.environ:  # the shell asks for completions
        cli.main(arguments, prog_name="moetui")
    try:
        with cli.make_context("moetui", list(arguments)) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code


def run_and_leave() -> NoReturn:
    """``main``, and no waiting for the interpreter to take torch apart, which is seconds."""
    open_streams()
    guard_streams()
    try:
        main()
    except SystemExit as end:
        if "torch" not in sys.modules:
            raise
        # Everything that holds anything is closed by now: sessions, recordings, streams.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _signal(error: KeyboardInterrupt) -> int:
    """The signal that ended it; Ctrl-C names none."""
    number = error.args[0] if error.args else signal.SIGINT
    return int(number) if isinstance(number, int) else int(signal.SIGINT)


def _describe(error: Exception) -> tuple[str, str, int]:
    from moetui.routing.errors import MoetuiError

    if isinstance(error, MoetuiError):
        return error.message, error.hint, error.exit_status
    if isinstance(error, click.ClickException):
        hint = getattr(error, "hint", "")
        context = getattr(error, "ctx", None)
        if not hint and context is not None:
            hint = f"see '{context.command_path} --help'"
        if isinstance(error, click.BadParameter):
            return _blame(error), hint, error.exit_code
        return error.format_message(), hint, error.exit_code
    if isinstance(error, OSError) and error.strerror:
        if error.filename == STDOUT:
            hint = "" if error.errno == errno.EBADF else "make room, or write somewhere else"
            return f"cannot write {STDOUT}: {error.strerror.lower()}", hint, 1
        name = f"{error.filename}: " if error.filename else ""
        hint = "choose a shorter name" if error.errno == errno.ENAMETOOLONG else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, or write somewhere else"
        return f"{name}{error.strerror}", hint, 1
    return f"internal error: {type(error).__name__}: {error}", "this is a bug in moetui; --debug shows the traceback", 1


def _blame(error: click.BadParameter) -> str:
    """The message, naming the environment's variable where the value came from there: nobody typed the option then."""
    context, parameter = error.ctx, error.param
    if context is None or parameter is None or not parameter.name:
        return error.format_message()
    if context.get_parameter_source(parameter.name) is click.core.ParameterSource.ENVIRONMENT:
        return f"{parameter.envvar}: {error.message}"
    return error.format_message()


def _say(message: str, hint: str) -> None:
    from moetui.routing.text import drawable

    lines = [f"error: {drawable(_one_line(message))}"]
    if hint:
        lines.append(f"hint: {drawable(_one_line(hint))}")
    click.echo("\n".join(lines), err=True)


def _one_line(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _MAX_LINE else line[:_MAX_LINE] + " …"


def _flush() -> None:
    # A full disk or a closed pipe shows up when the last bytes leave, and must not be a success.
    sys.stdout.flush()
