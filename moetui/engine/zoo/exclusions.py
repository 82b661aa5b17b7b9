"""Model folders that look like Mixture-of-Experts in the source but route no token, each with its reason."""

from __future__ import annotations

EXCLUDED: dict[str, str] = {
    "bamba": "its decoder names num_experts but fixes it at 1: every layer is one dense MLP and there is no router",
    "gemma4_assistant": "its configuration refuses a text model with experts: every layer is dense",
    "granite_docling": "its density router picks one of two vision connectors for a whole image",
    "vitpose_backbone": "its experts are chosen by the data-set index that the caller passes; there is no router",
}
