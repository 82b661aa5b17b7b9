"""``moetui doctor``: what this machine and terminal can do, what is missing, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from moetui.cli.common import common_options, print_json, print_text

_PACKAGES = ("torch", "transformers", "accelerate", "textual", "rich", "numpy", "msgpack", "zstandard")
_OPTIONAL = {
    "pyarrow": "export --format parquet: pip install 'moetui[parquet]'",
    "bitsandbytes": "--quantization 4bit|8bit: pip install bitsandbytes (CUDA)",
}
_GPU_PROBE = (
    # Only what is installed: with -c a torch.py of the folder that one stands in would come first, and run.
    "import sys\n"
    "sys.path[:] = [entry for entry in sys.path if entry]\n"
    "import torch\n"
    "on = torch.accelerator.is_available()\n"
    "found = torch.accelerator.current_accelerator() if on else None\n"
    "print(torch.version.cuda or torch.version.hip or '', found.type if on else '', sep='|')\n"
    "module = torch.get_device_module(found) if on else None\n"
    "for i in range(torch.accelerator.device_count() if on else 0):\n"
    "    try:\n"
    "        p = module.get_device_properties(i)\n"
    "    except Exception:\n"  # not every kind has them
    "        p = None\n"
    "    print(getattr(p, 'name', ''), getattr(p, 'total_memory', 0), sep='|')\n"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its state in words, and what to do if it is not fine."""

    name: str
    state: Literal["ok", "note", "missing"]
    detail: str
    advice: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@common_options
def command(as_json: bool) -> int:
    """Check versions, terminal, colour and GPU; exit 1 when something needed is missing."""
    from moetui.routing.text import drawable

    checks = [*_versions(), *_terminal(dict(os.environ), sys.stdout.isatty()), *_gpu(), *_folder()]
    if as_json:
        print_json(
            {
                "checks": [
                    {"name": c.name, "state": c.state, "detail": c.detail, "advice": c.advice or None} for c in checks
                ]
            }
        )
    else:
        marks = {"ok": "✓", "note": "•", "missing": "✗"}
        width = max(len(check.name) for check in checks)
        lines = []
        for check in checks:
            lines.append(f" {marks[check.state]} {check.name:<{width}}  {drawable(check.detail)}")
            if check.advice:
                lines.append(f"   {'':<{width}}  → {drawable(check.advice)}")
        print_text("\n".join(lines))
    return int(any(check.state == "missing" for check in checks))


def _versions() -> list[Check]:
    out = [Check("python", "ok", platform.python_version())]
    if sys.flags.optimize >= 2:
        out = [Check("python", "missing", "without docstrings, which transformers needs", "unset PYTHONOPTIMIZE")]
    for name in _PACKAGES:
        try:
            out.append(Check(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            out.append(Check(name, "missing", "not installed", f"pip install {name}"))
    for name, purpose in _OPTIONAL.items():
        try:
            out.append(Check(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            out.append(Check(name, "note", "not installed (optional)", purpose))
    return out


def _terminal(environment: dict[str, str], is_terminal: bool) -> list[Check]:
    term = environment.get("TERM", "")
    size = shutil.get_terminal_size()
    out = []
    if not is_terminal:
        out.append(Check("terminal", "note", "standard output is no terminal", "run doctor in the terminal you use"))
    elif term in ("", "dumb"):
        out.append(Check("terminal", "missing", f"TERM={term or 'unset'}", "set TERM, or use 'record' and 'stats'"))
    elif size.columns < 80 or size.lines < 24:
        out.append(Check("terminal", "note", f"{term} {size.columns}×{size.lines}", "80×24 or more shows more"))
    else:
        out.append(Check("terminal", "ok", f"{term} {size.columns}×{size.lines}"))
    out.append(_colour(environment, term))
    if "TMUX" in environment:
        out.append(
            Check("tmux", "note", "inside tmux", "for 24-bit colour: set -as terminal-features ',*:RGB' in tmux.conf")
        )
    if "SSH_CONNECTION" in environment:
        out.append(Check("ssh", "note", "over ssh: low-bandwidth settings are used", "ssh -C compresses full frames"))
    return out


def _colour(environment: dict[str, str], term: str) -> Check:
    if environment.get("NO_COLOR"):
        return Check("colour", "note", "NO_COLOR is set: no colour", "")
    if term in ("", "dumb"):
        return Check("colour", "note", "none: the terminal says that it has none", "")
    if environment.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return Check("colour", "ok", "truecolor")
    if "256color" in term:
        return Check("colour", "ok", "256 colours", "COLORTERM=truecolor if your terminal has 24-bit colour")
    return Check("colour", "note", "16 colours", "TERM=xterm-256color if your terminal has them")


def _folder() -> list[Check]:
    try:
        Path.cwd()
    except FileNotFoundError:
        return [Check("folder", "missing", "the folder that this was started in is gone", "change to one that exists")]
    return [_free_space()]


def _gpu() -> list[Check]:
    # In a process of its own: a broken driver or torch must not take the doctor with it. Its folder is one that is
    # there: torch does not start in one that was removed.
    try:
        done = subprocess.run(
            [sys.executable, "-c", _GPU_PROBE], cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return [Check("gpu", "missing", "torch did not answer within 60 s", "look at the driver, as with nvidia-smi")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["torch does not import"])[-1]
        return [Check("gpu", "missing", last, "reinstall torch")]
    return _devices(done.stdout)


def _devices(told: str) -> list[Check]:
    """What the probe found: each accelerator, or why there is none."""
    first, *devices = told.strip("\n").splitlines()
    build, kind = first.split("|")
    if kind:
        out = []
        for number, line in enumerate(devices):
            name, memory = line.rsplit("|", 1)
            size = f"{int(memory) / 2**30:.0f} GiB" if int(memory) else ""
            out.append(Check(f"{kind}:{number}", "ok", ", ".join(part for part in (name, size) if part) or "there"))
        return out
    for tool, word in (("nvidia-smi", "CUDA"), ("rocm-smi", "ROCm"), ("xpu-smi", "XPU")):
        if shutil.which(tool) and not build:
            article = "an" if word == "XPU" else "a"
            return [Check("gpu", "note", "a GPU, but torch is a CPU build", f"install {article} {word} build of torch")]
    return [Check("gpu", "note", "none: models run on the CPU", "")]


def _free_space() -> Check:
    usage = shutil.disk_usage(".")
    state: Literal["ok", "note"] = "ok" if usage.free > 2**30 else "note"
    return Check(
        "disk", state, f"{usage.free / 2**30:.1f} GiB free here", "" if state == "ok" else "recordings need room"
    )
