"""Folders of the user's, for what lasts from one session to the next."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, but no home: one that is not there is not mounted, or is nobody's.

    Raises:
        OSError: it cannot be made.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - as it stands where nobody knows the home
    if home in folder.parents and not home.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", str(home))
    folder.mkdir(parents=True, exist_ok=True)
