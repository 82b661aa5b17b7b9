"""What transformers and its hub client would print: caught, so that it can be shown without tearing a screen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from time import monotonic
from typing import Any

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

Progress = Callable[[str, float | None], None]
"""Called with what is being done and how much of it is done (0..1, None where that is not known)."""

Say = Callable[[str], None]

_LOGGERS = ("transformers", "huggingface_hub", "accelerate", "bitsandbytes", "py.warnings")
_REQUESTS = ("huggingface_hub.utils._http", "huggingface_hub.file_download")
_TRIES_AGAIN = ("thrown while requesting", "Retrying in ", "Rate limited. Waiting ", "Error while downloading from ")
_REPORT_SECONDS = 0.1
_BAR_ARGUMENTS = frozenset({"iterable", "desc", "total", "initial", "unit"})


class _Voice(logging.Handler):
    """Hands each warning on once, as one line; that a request failed and is tried again, every time and elsewhere."""

    def __init__(self, say: Say, again: Say | None) -> None:
        super().__init__(logging.WARNING)
        self._say, self._again = say, again
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if record.name in _REQUESTS and any(words in line for words in _TRIES_AGAIN):
            if self._again is not None:
                self._again(line)
        elif line and line not in self._said:
            self._said.add(line)
            self._say(line)


@contextmanager
def overheard(say: Say, again: Say | None = None) -> Iterator[None]:
    """Within it, warnings of transformers, its hub client and Python go to ``say`` instead of standard error.

    It acts on the whole process, and leaves every logger as it was.

    Args:
        say: called with each warning once.
        again: called instead with every line on a request to the hub that failed and is made again; it ends in an error
            if it goes on failing.
    """
    voice = _Voice(say, again)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.handlers[:] = [voice]
        logger.propagate = False
    bars_were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagate in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
        if not bars_were_off:
            enable_progress_bars()


class _Bar:
    """What stands in for a ``tqdm``: draws nothing, and reports a few times a second."""

    def __init__(
        self,
        progress: Progress,
        iterable: Iterable[Any] | None = None,
        *,
        desc: str | None = None,
        total: float | None = None,
        initial: float = 0,
        unit: str = "it",
    ) -> None:
        self._progress, self._iterable, self._unit = progress, iterable, unit
        self.desc, self.n = desc or "working", initial
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self._next_report = 0.0
        self.refresh()

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable or ():
            yield item
            self.update()
        self.close()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: float | None = 1) -> bool:
        self.n += n or 0
        now = monotonic()
        if now < self._next_report:
            return False
        self._next_report = now + _REPORT_SECONDS
        self.refresh()
        return True

    def refresh(self, *_: object, **__: object) -> None:
        if not self.n and not self.total:
            return
        what = self.desc.rpartition("/")[2].rstrip(": ")
        if self._unit == "B" and self.total:
            what = f"{what} {_amount(self.n)} of {_amount(self.total)}"
        self._progress(what, min(1.0, self.n / self.total) if self.total else None)

    def close(self) -> None:
        self.refresh()

    def set_description(self, desc: str | None = None, refresh: bool = True) -> None:
        del refresh
        self.desc = desc or self.desc

    set_description_str = set_description

    def __getattr__(self, name: str) -> Any:
        # What else a bar can do (postfixes, colours, locks) changes its looks only.
        if name.startswith("__"):
            raise AttributeError(name)
        return _nothing


def _amount(nbytes: float) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _nothing(*_: object, **__: object) -> None:
    return None


def reporting_bar(progress: Progress) -> Callable[..., Any]:
    """Something to call in the place of ``tqdm``; its bars draw nothing and call ``progress``."""

    def make(*args: Any, **kwargs: Any) -> _Bar:
        return _Bar(progress, *args, **{name: kwargs[name] for name in _BAR_ARGUMENTS & kwargs.keys()})

    return make


@contextmanager
def reported(progress: Progress) -> Iterator[Callable[..., Any]]:
    """Within it, transformers' own progress bars call ``progress``; gives the bar class to hand to downloads."""
    bar = reporting_bar(progress)

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del factory
        return bar(*args, **kwargs)

    before = transformers_logging.set_tqdm_hook(hook)
    try:
        yield bar
    finally:
        transformers_logging.set_tqdm_hook(before)
