"""``python -m moetui``."""

from moetui.cli import main

if __name__ == "__main__":
    main()
