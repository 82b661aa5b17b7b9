"""What the rules by field name cannot know about single architectures.

Nested tables are nested configurations; a function takes the number of decoder layers and gives the field's value.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import Any


def _first(first: str, then: str) -> Callable[[int], list[str]]:
    """One layer of the first kind, all others of the second."""
    return lambda layers: [first, *[then] * (layers - 1)]


def _pattern(*kinds: str) -> Callable[[int], list[str]]:
    """The kinds in turn, as often as the layers need."""
    return lambda layers: list(islice(cycle(kinds), layers))


_DENSE_FIRST = _first("dense", "sparse")
_SLIDING_WIDTHS = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 32,
    "swa_qk_nope_head_dim": 16,
    "swa_v_head_dim": 16,
}
_NEMOTRON_H = {
    "layers_block_type": _pattern("full_attention", "moe", "linear_attention", "moe", "mlp"),
    "n_groups": 1,
}
_QUERY_SPARSE_ATTENTION = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    # The attention layer reads a field that its configuration does not declare, and always clips.
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": _DENSE_FIRST}},
    # The published V2 checkpoints choose within groups; the default configuration does not.
    "deepseek_v2": {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1},
    "diffusion_gemma": {"canvas_length": 8, "text_config": {"moe_intermediate_size": 32, "global_head_dim": 16}},
    # The number of keys is the root of the number of experts.
    "doge": {"is_moe": True, "num_experts": 16},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note": {"text_config": _SLIDING_WIDTHS},
    # Sections of the rotary frequencies add up to half the rotary width.
    "ernie4_5_vl_moe": {
        "text_config": {
            "moe_intermediate_size": [32, 16],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [3, 3, 2]},
        }
    },
    "gemma4": {"text_config": {"enable_moe_block": True, "moe_intermediate_size": 32, "global_head_dim": 16}},
    "glm4v_moe": {
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
            }
        }
    },
    "glm5_next": {"text_config": {"index_kpool": 4}},
    "granitemoe_swa": {"shared_intermediate_size": 32},
    "granitemoehybrid": {"layer_types": _pattern("linear_attention", "full_attention")},
    "granitemoeshared": {"shared_intermediate_size": 32},
    "cohere2_moe": {"num_shared_experts": 1, "logit_scale": 1.0},
    "hunyuan_v1_moe": {"head_dim": 16, "eod_token_id": 2, "sep_token_id": 2},
    "hy_v4_vl": {
        "text_config": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]},
        }
    },
    # A vision tower with fewer stages than its patch has prime factors would need SciPy.
    "inkling": {
        "vision_config": {"patch_size": 4, "n_layers": 4},
        "text_config": {"logits_mup_width_multiplier": 1.0},
    },
    # The loop: all layers but the first, twice.
    "inkling2_loop": {
        "text_config": {
            "n_layers_per_attn_res_block": 1,
            "loop_layer_index_start": 1,
            "loop_layer_index_end": lambda layers: layers,
            "loop_num_passes": 2,
        }
    },
    "jamba": {"attn_layer_period": 4, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": _pattern("conv", "full_attention")},
    "llama4": {"num_experts_per_tok": 1, "moe_layers": None, "interleave_moe_layer_step": 2},
    "muse_spark": {
        "text_config": {"mlp_layer_types": _DENSE_FIRST, "output_multiplier": 1.0},
        "audio_config": {"patch_sizes": (4, 4), "hidden_sizes": (16, 16), "depths": (1, 1)},
    },
    "nemotron3_5_transcribe": {
        "text_config": _NEMOTRON_H,
        "audio_config": {"diarization_config": {"head_config": {"audio_hidden_size": 64}}},
        "word_timestamp_config": {"blank_token_id": 511},
    },
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_omni": {
        "text_config": _NEMOTRON_H,
        "vision_hidden_size": 64,
        "vision_config": {"max_img_size": 64, "video_temporal_patch_size": 2},
    },
    # The thinker's forward reads a field that only the whole model's configuration declares.
    "qwen3_omni_moe": {"vision_start_token_id": 151652},
    "qwen4_exp": {"text_config": _QUERY_SPARSE_ATTENTION},
    "step3p7": {"text_config": {"sliding_window": 16, "layer_types": _first("full_attention", "sliding_attention")}},
    "unlimited_ocr": {"vision_config": {"sam_config": {"output_channels": 16, "downsample_channels": (16, 64)}}},
    # Top-1 by design, in every published checkpoint.
    "zaya": {"num_experts_per_tok": 1},
}

MODEL_TYPES: dict[str, str] = {"llama4": "llama4_text"}
"""What is built in place of an architecture's most complete model; the notes say why."""

NOTES: dict[str, str] = {
    "llama4": "the decoder alone: with its vision tower, every forward fails in transformers 5.24",
    "diffusion_gemma": "denoises a block of tokens at a time: it writes no text token by token",
    "inkling2_loop": "a pass goes through its inner layers several times: what they show is their last routing",
    "nemotron3_5_transcribe": "transcribes by a generate of its own, which is not run: it writes no text here",
    "nllb_moe": "transformers runs experts 0 and 1 whatever the router says",
    "openai_privacy_filter": "classifies tokens: it writes no text",
    "qwen3_omni_moe": "the thinker alone, which writes the text; the talker and its codec are left out",
}
