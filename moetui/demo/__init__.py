"""The embedded model: a small trained Mixtral, the corpus that it learnt and the script that trains it.

Nothing here imports torch: the paths and prompts are needed before a model is loaded. Only `moetui.demo.train` does.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal, get_args

__all__ = ["DOMAINS", "PROMPTS", "Domain", "model_path"]

Domain = Literal["story", "french", "recipe", "arithmetic", "python", "json", "log", "html"]
"""A kind of text that the embedded model has learnt."""

DOMAINS: Final[tuple[Domain, ...]] = get_args(Domain)

PROMPTS: Final[dict[Domain, str]] = {
    "story": "Once there was",
    "french": "Il était une fois",
    "recipe": "Recipe: Tomato",
    "arithmetic": "(3 + 4) * 2 =",
    "python": "def count_",
    "json": '{\n  "name": "',
    "log": "2024-03-05 08:14:02 INFO",
    "html": "<ul>\n  <li>",
}
"""One prompt a domain that the embedded model continues well; the first is the default."""


def model_path() -> Path:
    """The folder with the shipped weights and tokenizer, as `save_pretrained` writes it."""
    return Path(str(files(__package__))) / "model"
