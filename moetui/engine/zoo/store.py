"""A small random model in a folder that ``from_pretrained`` reads."""

from __future__ import annotations

from pathlib import Path

from moetui.engine.zoo.small_model import BuiltModel
from moetui.engine.zoo.words import tokenizer
from moetui.routing import ModelError


def save(built: BuiltModel, folder: str | Path) -> Path:
    """Write model, tokenizer and generation settings, so that ``auto_class(config).from_pretrained(folder)`` works.

    Raises:
        ModelError: the folder cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        built.model.save_pretrained(path)
        tokenizer(built.vocab_size).save_pretrained(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}", "choose another folder") from error
    return path
