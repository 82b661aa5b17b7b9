"""What the columns and signs of the Network tab mean, for the help."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.routing.scores import NEAR_TIE
from moetui.tui.glyphs import Glyphs


def network_signs(glyphs: Glyphs) -> Sequence[tuple[str, str]]:
    """Signs, and each in a sentence."""
    return (
        ("H", "Entropy of the routers' distributions in nats, mean over the layers"),
        ("conf", "Probability of the router's first choice, mean over the layers"),
        (f"margin {glyphs.delta}", "K-th minus k+1-th score of the router; in the table the mean over the layers"),
        ("logp", "Log-probability that the model gave the token, in nats; p is the probability"),
        ("b", "Branch, by its number"),
        (glyphs.block, "The first choice of a layer, in the expert's colour"),
        (glyphs.forced, "An intervention changed the choice"),
        (glyphs.near_tie, f"A near tie: a margin below {NEAR_TIE}, at any of the layers"),
        (glyphs.dropped, "The token got no expert at some layer"),
        (glyphs.broken, "NaN or infinity in a router"),
        (glyphs.prefill, "A token of the prompt"),
        (glyphs.stopped, "Where the run stands"),
        (glyphs.mark, "A token that was marked"),
        (glyphs.zero, "An expert that no token of the window went to"),
        ("fairness", "With CV and max/mean: of the last 64 tokens, mean over the layers"),
        ("dead", "Experts that no token went to, of all tokens; with ? after too few to tell"),
    )
