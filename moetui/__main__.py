"""``python -m moetui``."""

from moetui.cli import entry

if __name__ == "__main__":
    entry()
