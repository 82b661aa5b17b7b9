"""What works with every Mixture-of-Experts architecture, found out by trying each on a small random model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moetui._version import __version__
from moetui.engine.models import ALIASES
from moetui.engine.surroundings import check_surroundings
from moetui.engine.zoo import Architecture, architectures
from moetui.routing.folders import make_folder

if TYPE_CHECKING:
    from moetui.routing import Step
    from moetui.routing.interventions import Intervention

_CACHE_VERSION = 4


@dataclass(frozen=True, slots=True)
class Support:
    """What one architecture's small random model showed.

    Attributes:
        name: folder in transformers' ``models``; what ``random:NAME`` takes.
        kinds: how routing reaches the experts.
        sites: routers in the small model, by name.
        scoring: the scoring rules found; ``unknown`` where no rule reproduces the weights.
        logits: what the routers' first output is.
        captured: what is known of a token: routing, weights, logits, entropy.
        interventions: ``force``, ``ban``, ``fewer``, ``more`` → ``yes`` (asked for everywhere, it is what ran), or
            why not.
        weights: how weights of a changed choice are found: ``numeric``, ``reroute``, ``keep_mass``.
        rewind: ``crop``, ``snapshot``, or why not.
        note: what is peculiar, one line.
    """

    name: str
    kinds: tuple[str, ...]
    sites: tuple[str, ...]
    scoring: tuple[str, ...]
    logits: tuple[str, ...]
    captured: tuple[str, ...]
    interventions: dict[str, str]
    weights: tuple[str, ...]
    rewind: str
    note: str = ""


def catalog(
    progress: Callable[[str, float], None] | None = None, cache: Path | None = None, *, fresh: bool = False
) -> dict[str, Any]:
    """Aliases, and every architecture of the installed transformers with what works.

    Trying all of them takes some seconds, so the result is kept for this transformers, torch and moetui.

    Args:
        progress: called with an architecture's name and the share done.
        cache: folder for the result; None for the user's cache folder.
        fresh: try all again.

    Returns:
        The document of ``moetui models --json``.

    Raises:
        ModelError: transformers cannot start here.
    """
    versions = {name: metadata.version(name) for name in ("transformers", "torch")}
    file = _cache_file(cache, versions)
    found = None if fresh else _read(file)
    if found is None:
        check_surroundings()
        found = [_describe(architecture, progress, share) for architecture, share in _shares(architectures())]
        _write(file, found)
    return {
        "versions": {"moetui": __version__, **versions},
        "aliases": [{**asdict(alias), "memory_bytes": alias.nbytes} for alias in ALIASES.values()],
        "architectures": found,
    }


def _shares(all_of_them: Sequence[Architecture]) -> list[tuple[Architecture, float]]:
    return [(architecture, number / len(all_of_them)) for number, architecture in enumerate(all_of_them)]


def _describe(
    architecture: Architecture, progress: Callable[[str, float], None] | None, share: float
) -> dict[str, Any]:
    if progress is not None:
        progress(architecture.name, share)
    if architecture.status != "built":
        return {"name": architecture.name, "supported": False, "reason": architecture.reason}
    try:
        return {"supported": True, **asdict(examine(architecture.name))}
    except Exception as error:  # noqa: BLE001 - the model's own code, which may ask for a newer torch
        words = " ".join(str(error).split())
        reason = f"its small model does not run here: {type(error).__name__}: {words}"
        return {"name": architecture.name, "supported": False, "reason": reason}


def examine(name: str) -> Support:
    """Build one architecture's small model, run it under capture, and see what can be changed.

    Raises:
        ModelError: there is no such architecture.
    """
    import torch

    from moetui.engine.capture import Capture
    from moetui.engine.libraries import overheard
    from moetui.engine.rewind import rewind_method
    from moetui.engine.zoo import build

    with overheard(lambda _: None):
        built = build(name)
        steps: list[Step] = []
        capture = Capture(built.model, on_step=steps.append)
        try:
            with capture, torch.no_grad():

                def run() -> list[Step]:
                    steps.clear()
                    built.model(**built.inputs(2, 24, 0))
                    capture.flush()
                    return list(steps)

                known = {"routing", "weights", *(["logits"] if any(step.logits is not None for step in run()) else [])}
                interventions, rules = _interventions(capture, run)
        finally:
            capture.close()
        sites = capture.sites
        rewind = rewind_method(built.model, built.inputs(1, 8, 0)) if built.can_generate else "writes no text"
    if all(site.scoring != "unknown" for site in sites):
        known.add("entropy")
    return Support(
        name=name,
        kinds=_distinct(site.kind for site in sites),
        sites=tuple(site.name for site in sites),
        scoring=_distinct(site.scoring for site in sites),
        logits=_distinct(site.logits_form for site in sites),
        captured=tuple(sorted(known)),
        interventions=interventions,
        weights=rules,
        rewind=rewind,
        note=built.note or next((site.note for site in sites if site.note), ""),
    )


def _interventions(capture: Any, run: Callable[[], list[Step]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What each intervention comes to where it is asked for at every site, and the rules that weighed it."""
    from moetui.engine.interventions import plan
    from moetui.routing import UnsupportedError, UsageError
    from moetui.routing.interventions import BanExperts, ForceExperts, SetTopK

    k = min(site.top_k for site in capture.sites)
    last = min(site.num_experts for site in capture.sites)
    wanted: dict[str, Intervention] = {
        "force": ForceExperts(tuple(range(last - k, last))),
        "ban": BanExperts((0,)),
        "fewer": SetTopK(k - 1),
        "more": SetTopK(k + 1),
    }
    out: dict[str, str] = {}
    rules: dict[str, None] = {}
    for name, intervention in wanted.items():
        if name == "fewer" and k == 1:
            out[name] = "a token has one expert only"
            continue
        try:
            made = plan([intervention], lambda: capture.handles)
        except (UnsupportedError, UsageError) as error:
            out[name] = error.message
            continue
        capture.set_functions(made.functions)
        steps = run()
        capture.set_functions({})
        out[name] = "yes" if _obeyed(intervention, steps) else "something else ran"
        rules.update(dict.fromkeys(made.rules.values()))
    return out, tuple(rules)


def _obeyed(intervention: Intervention, steps: list[Step]) -> bool:
    """Whether what ran is what an intervention asked for."""
    import numpy as np

    from moetui.routing import NO_EXPERT
    from moetui.routing.interventions import BanExperts, ForceExperts

    most = 0
    for step in steps:
        assert step.weights is not None
        ran = (step.indices != NO_EXPERT) & (step.weights != 0) & ~step.pad[:, None, None]
        named = np.isin(step.indices, getattr(intervention, "experts", ()))
        if isinstance(intervention, ForceExperts) and (ran & ~named).any():
            return False
        if isinstance(intervention, BanExperts) and (ran & named).any():
            return False
        most = max(most, int(ran.sum(-1).max(initial=0)))
    return most == getattr(intervention, "k", most)


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _cache_file(folder: Path | None, versions: dict[str, str]) -> Path:
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("moetui")
    name = f"models-{_CACHE_VERSION}-{__version__}-{versions['transformers']}-{versions['torch']}.json"
    return folder / name


def _read(file: Path) -> list[dict[str, Any]] | None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    good = isinstance(document, list) and all(isinstance(row, dict) and "supported" in row for row in document)
    return document if good and document else None


def _write(file: Path, found: list[dict[str, Any]]) -> None:
    try:
        make_folder(file.parent)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(file)
    except OSError:
        # A home that cannot be written costs the wait again next time, nothing else.
        return
