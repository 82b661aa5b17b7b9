"""The option groups that `run`, `record` and `replay` share; each option is also a setting and MOETUI_<NAME>."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from moetui.cli.themes import ThemeName

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def _option(*names: str, **attributes: Any) -> Decorator:
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    attributes.setdefault("envvar", "MOETUI_" + long[2:].replace("-", "_").upper())
    attributes.setdefault("show_default", attributes.get("default") is not None and not attributes.get("is_flag"))
    return click.option(*names, **attributes)


class FiniteRange(click.FloatRange):
    """A range that ``nan`` does not lie in: no comparison with it holds, so that click lets it pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def _share() -> FiniteRange:
    return FiniteRange(0, 1, min_open=True)


PROMPT = (
    _option("-p", "--prompt", help="The prompt."),
    _option("--prompt-file", type=click.Path(exists=True, dir_okay=False), help="Read the prompt from a file."),
    _option(
        "-n", "--max-new-tokens", type=click.IntRange(1, 2**31 - 1), default=64, help="Tokens to generate at most."
    ),
)

GENERATION = (
    _option("--temperature", type=FiniteRange(0, min_open=True), help="Sample with this temperature."),
    _option("--top-p", type=_share(), help="Sample from the nucleus of this mass."),
    _option("--top-k-sampling", type=click.IntRange(1, 2**31 - 1), help="Sample from this many candidates."),
    _option("--seed", type=click.IntRange(0, 2**63 - 1), help="Repeat a sampled run exactly."),
    _option("--chat/--no-chat", default=None, help="Use the chat template (default: if the tokenizer has one)."),
    _option("--system", default="", help="System message for the chat template.", show_default=False),
)

MODEL = (
    _option("--device", default="auto", help="auto, cpu, cuda, cuda:N, or another accelerator of torch."),
    _option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto"),
    _option("--quantization", type=click.Choice(["none", "4bit", "8bit"]), default="none"),
    _option("--device-map", type=click.Choice(["auto", "none"]), default="none", help="Spread over devices."),
    _option("--revision", help="Branch, tag or commit of a hub model."),
    _option("--trust-remote-code", is_flag=True, help="Run code that comes with the model."),
    _option("--attn-implementation", help="As transformers names it: sdpa, eager, flash_attention_2 ..."),
    _option("--experts-implementation", help="As transformers names it: eager, batched_mm, grouped_mm ..."),
)

CAPTURE = (
    _option("--logits/--no-logits", default=True, help="Keep the router logits."),
    _option("--sample-rate", type=_share(), default=1.0, help="Share of the steps to capture."),
    _option("--buffer-tokens", type=click.IntRange(min=1), default=100_000, help="Tokens held in memory."),
)

SCREEN = (
    _option("--fps", type=FiniteRange(0.5, 30), help="Frames a second at most (default: by the line's speed)."),
    _option("--low-bandwidth", is_flag=True, help="256 colours, no mouse, fewer frames (set under ssh)."),
    _option("--color", type=click.Choice(["auto", "truecolor", "256", "16", "none"]), default="auto"),
    _option("--ascii", is_flag=True, help="Draw with ASCII alone."),
    _option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal."),
    _option("--theme", type=ThemeName(), help="Name of a theme; the palette lists them."),
)

CONSOLE = (_option("--no-python", is_flag=True, help="Let the console run its commands alone, and no Python."),)

GROUPS = {
    "prompt": PROMPT,
    "console": CONSOLE,
    "generation": GENERATION,
    "model": MODEL,
    "capture": CAPTURE,
    "screen": SCREEN,
}


def grouped(*groups: tuple[Decorator, ...]) -> Callable[[F], F]:
    """Add whole option groups to a command, in the order given."""

    def decorate(function: F) -> F:
        for group in reversed(groups):
            for option in reversed(group):
                function = option(function)
        return function

    return decorate


def settings() -> dict[str, click.Option]:
    """Every option that may stand in the settings file, by name."""

    @grouped(*GROUPS.values())
    def probe() -> None:
        pass

    options: list[click.Option] = list(reversed(probe.__click_params__))  # type: ignore[attr-defined]
    return {str(option.name): option for option in options if option.name not in ("prompt", "prompt_file")}
