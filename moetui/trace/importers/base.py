"""What importers share: looking at a file's beginning, a model as far as a log tells it, writing what it holds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moetui.routing.errors import TraceError
from moetui.routing.events import Branch, BranchAdded, Finding, FindingRaised
from moetui.routing.model import LogitsForm, ModelInfo, Scoring, Site
from moetui.routing.phase import Phase
from moetui.routing.step import NO_EXPERT, Step
from moetui.trace.arrays import Array
from moetui.trace.from_arrays import step_from_arrays
from moetui.trace.layout import Widths
from moetui.trace.source import cannot_open
from moetui.trace.values import last_component
from moetui.trace.writer import TraceWriter

_OPENING = 1 << 16
_SOUGHT = 64 << 20  # bytes in which a JSON document's keys are looked for: texts and token ids may stand before them
MAX_EXPERTS = 1 << 15
COUNTED = Finding(
    "import_experts_counted",
    "info",
    "the log does not say how many experts there are: those up to the highest id were counted",
    "if there are more, the spread is less even than it looks; a JSON log may say num_experts",
)


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a file: enough to tell its format.

    Attributes:
        data: its first bytes; text: the same as text, without a byte order mark and leading white space.
    """

    path: Path
    data: bytes
    text: str

    @classmethod
    def of(cls, path: Path) -> Opening:
        """Read it.

        Raises:
            TraceError: the file cannot be read, or is empty.
        """
        if path.is_dir():
            raise TraceError(f"{path.name or path} is a folder", "name a file in it")
        if path.exists() and not path.is_file():  # a pipe would be waited for, and could be read only once
            raise TraceError(f"{path.name} is no regular file", "copy it to disk first")
        try:
            with path.open("rb") as stream:
                data = stream.read(_OPENING)
        except OSError as error:
            raise cannot_open(path, error) from None
        except ValueError:
            raise TraceError("that is no file name", "check the name") from None
        if not data:
            raise TraceError(f"{path.name} is empty", "check what wrote it")
        return cls(path, data, data.decode("utf-8-sig", "replace").lstrip())

    @property
    def is_json(self) -> bool:
        """Whether it begins like an object or a list."""
        return self.text[:1] in ("{", "[")

    def has_key(self, *names: str) -> bool:
        """Whether a JSON document has one of these keys somewhere in its first part."""
        key = re.compile(rb'"(?:' + "|".join(map(re.escape, names)).encode() + rb')"\s*:')
        if key.search(self.data):
            return True
        overlap = max(map(len, names)) + 64
        tail = b""
        try:
            with self.path.open("rb") as stream:
                while stream.tell() < _SOUGHT and (block := stream.read(1 << 20)):
                    if key.search(tail + block):
                        return True
                    tail = block[-overlap:]
        except OSError:
            return False
        return False


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import gave; ``str`` says it in a line."""

    path: Path
    source: str
    tokens: int
    sites: int
    num_experts: int
    top_k: int
    unknown: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        """One line."""
        unknown = f"; unknown: {', '.join(self.unknown)}" if self.unknown else ""
        return (
            f"{self.path.name}: {_count(self.tokens, 'token')}, {_count(self.sites, 'site')} × "
            f"{self.num_experts} experts, top-{self.top_k}, from {self.source}{unknown}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Tokens of a log that went through the model together.

    Attributes:
        indices: ``[n, S, K]``, ``NO_EXPERT`` where there is none.
        weights, logits: ``[n, S, K]``, ``[n, S, E]``; None where the log has none.
        token_id, position: ``[n]``; None for unknown ids, positions in order.
        texts: by token id, those not given before.
        sequence, branch, step, phase: as in ``Step``; ``step`` None counts.
    """

    indices: Array
    weights: Array | None = None
    logits: Array | None = None
    token_id: Array | None = None
    position: Array | None = None
    texts: Mapping[int, str] | None = None
    sequence: int = 0
    branch: int = 0
    step: int | None = None
    phase: Phase = Phase.PREFILL


def model_of(
    name: str,
    layers: Sequence[int],
    experts: int,
    top_k: int,
    *,
    classes: int = 0,
    scoring: Scoring = "unknown",
    logits_form: LogitsForm = "unknown",
    normalised: bool | None = None,
    site_names: Sequence[str] | None = None,
) -> ModelInfo:
    """A model as far as a log tells it: a site for each of ``layers``, all alike, named for them or ``site_names``.

    ``classes`` past the number of experts are zero-experts.

    Raises:
        TraceError: no layers, or more of anything than a trace can hold.
    """
    if not layers or experts < 1 or top_k < 1:
        raise TraceError("the log holds no routing", "check what wrote it")
    classes = max(experts, classes)
    if classes > MAX_EXPERTS or not Widths(len(layers), top_k, classes, 0).plausible:
        raise TraceError(
            f"{len(layers)} layers of {experts} experts, top-{top_k}, are more than a trace can hold", "check the log"
        )
    names: dict[str, int] = {}
    sites = []
    for index, layer in enumerate(layers):
        count = names[f"L{layer}"] = names.get(f"L{layer}", -1) + 1
        sites.append(
            Site(
                index,
                site_names[index] if site_names else f"L{layer}" if not count else f"L{layer}.{count}",
                layer,
                "",
                "",
                experts,
                classes,
                top_k,
                zero_experts=classes - experts,
                scoring=scoring,
                logits_form=logits_form,
                normalised=normalised,
                note="imported from a log",
            )
        )
    return ModelInfo(last_component(name), "", "", tuple(sites), num_layers=max(layers) + 1)


def write_trace(
    out: Path,
    info: ModelInfo,
    passages: Iterable[Passage],
    *,
    source: str,
    has_weights: bool,
    has_logits: bool,
    branches: Sequence[Branch] = (),
    findings: Sequence[Finding] = (),
    overwrite: bool,
) -> Imported:
    """Write passages as a trace.

    Raises:
        TraceError: the trace cannot be written.
    """
    writer = TraceWriter(
        out,
        info,
        overwrite=overwrite,
        has_logits=has_logits,
        has_weights=has_weights,
        has_timings=False,
        flush_seconds=math.inf,
    )
    tokens = 0
    waiting = list(branches)
    with writer:
        for number, passage in enumerate(passages):
            while waiting and waiting[0].first_token <= tokens:
                writer.write_event(BranchAdded(waiting.pop(0)))
            writer.write_step(_step(number, passage))
            tokens += len(passage.indices)
        for finding in findings:
            writer.write_event(FindingRaised(finding))
    if writer.problem:
        raise TraceError(writer.problem, "make room, or choose another place")
    lacking = (("weights", has_weights), ("entropy", has_logits), ("times", False))
    return Imported(
        out,
        source,
        tokens,
        len(info.sites),
        info.num_experts,
        info.top_k,
        tuple(name for name, has in lacking if not has),
        tuple(findings),
    )


def narrow_experts(values: Array, experts: int, where: str) -> Array:
    """Expert ids as ``uint16``; negative ones are ``NO_EXPERT``.

    Raises:
        TraceError: ids that are no expert's.
    """
    if values.size and int(values.max()) >= experts:
        raise TraceError(f"{where}: there is no expert {int(values.max())} among {experts}", "the log is damaged")
    return np.where(values < 0, NO_EXPERT, values).astype(np.uint16)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _step(number: int, passage: Passage) -> Step:
    return step_from_arrays(
        passage.indices,
        index=number if passage.step is None else passage.step,
        weights=passage.weights,
        logits=passage.logits,
        token_id=passage.token_id,
        texts=passage.texts,
        position=passage.position,
        sequence=passage.sequence,
        phase=passage.phase,
        branch=passage.branch,
    )
