"""What the rules by field name cannot know about single architectures. Nested tables are nested configurations."""

from __future__ import annotations

from typing import Any

OVERRIDES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1},
    "doge": {"is_moe": True, "num_experts": 16},
    "llama4": {"text_config": {"num_experts_per_tok": 1, "moe_layers": None, "interleave_moe_layer_step": 2}},
    "zaya": {"num_experts_per_tok": 1},
}

NOTES: dict[str, str] = {}
