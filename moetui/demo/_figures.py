"""What is measured of the demo model, as plain values that go to `figures.json` and come back."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

FIGURES_FILE: Final = "figures.json"
SHUFFLES: Final = 50

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer on the held-out documents.

    `mutual_information` is between a token's domain and its first-choice expert, in nats, with every domain weighing
    the same; `shuffled_maximum` is the largest of `SHUFFLES` values with the domains of the documents permuted.
    `fairness` is Jain's index of the loads, `dead` the experts without a token, `shares` each domain's first choices by
    expert.
    """

    mutual_information: float
    shuffled_maximum: float
    fairness: float
    dead: list[int]
    shares: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything in the model card. `loss` is nats a token on the held-out documents of a domain.

    `seconds` is the training's wall time, `cpu_seconds` its processor time, summed over threads.
    """

    seed: int
    steps: int
    trained_tokens: int
    threads: int
    seconds: float
    cpu_seconds: float
    parameters: int
    versions: dict[str, str]
    loss: dict[str, float]
    held_out_tokens: dict[str, int]
    layers: list[LayerFigures]

    def save(self, folder: Path) -> None:
        """Write `figures.json` into a folder."""
        (folder / FIGURES_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def load_figures(folder: Path) -> Figures:
    """Read the figures beside a trained model. Raises `OSError` or `TypeError` where they are missing or foreign."""
    raw = json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))
    layers = [LayerFigures(**layer) for layer in raw.pop("layers")]
    return Figures(layers=layers, **raw)


def domain_counts(counts: Counts, domains: Counts, number: int) -> Counts:
    """Sum counts over the documents of each domain: `[documents, ...]` and `[documents]` to `[number, ...]`."""
    total = np.zeros((number, *counts.shape[1:]), dtype=np.int64)
    np.add.at(total, domains, counts)
    return total


def mutual_information(joint: Counts) -> float:
    """Mutual information in nats of row and column, every row weighing the same. `joint` is `[domains, experts]`."""
    rows = joint / joint.sum(axis=1, keepdims=True)
    share = rows / len(rows)
    expected = np.full((len(rows), 1), 1 / len(rows)) * share.sum(axis=0, keepdims=True)
    used = share > 0
    return float((share[used] * np.log(share[used] / expected[used])).sum())


def shuffled_maximum(counts: Counts, domains: Counts, number: int, seed: int = 0) -> float:
    """The largest mutual information of `SHUFFLES` permutations of the documents' domains.

    Documents are permuted, not tokens: the tokens of a document go together, and a control that tears them apart would
    be too easy to beat. `counts` is `[documents, experts]`.
    """
    rng = np.random.default_rng(seed)
    return max(mutual_information(domain_counts(counts, rng.permutation(domains), number)) for _ in range(SHUFFLES))


def fairness(loads: Counts) -> float:
    """Jain's fairness index of `[experts]` loads: 1 when equal, 1 / experts when one has all (Jain et al. 1984)."""
    return float(loads.sum() ** 2 / (len(loads) * (loads.astype(np.float64) ** 2).sum()))


def layer_figures(first: Counts, loads: Counts, domains: Counts, names: tuple[str, ...]) -> LayerFigures:
    """Figures of a layer from first choices `[documents, experts]`, loads `[experts]` and domains `[documents]`."""
    joint = domain_counts(first, domains, len(names))
    shares = joint / joint.sum(axis=1, keepdims=True)
    return LayerFigures(
        mutual_information=round(mutual_information(joint), 4),
        shuffled_maximum=round(shuffled_maximum(first, domains, len(names)), 4),
        fairness=round(fairness(loads), 4),
        dead=[int(expert) for expert in np.flatnonzero(loads == 0)],
        shares={name: [round(float(share), 3) for share in row] for name, row in zip(names, shares, strict=True)},
    )
