"""Folders and names for what is written: the user's, and those of files that are not whole yet."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

_SHOWN = 40  # characters, of at most four bytes


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, but no home: one that is not there is not mounted, or is nobody's.

    Raises:
        OSError: it cannot be made.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - as it stands where nobody knows the home
    if home in folder.parents and not home.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", str(home))
    folder.mkdir(parents=True, exist_ok=True)


def beside(target: Path) -> Path:
    """A hidden name beside a file, for what shall take its place: nothing else has it, and it is short enough."""
    return target.with_name(f".{target.name[:_SHOWN]}.{secrets.token_hex(4)}.partial")
