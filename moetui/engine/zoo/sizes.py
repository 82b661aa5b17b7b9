"""How large the fields of a small configuration are: rules by field name, whatever the architecture."""

from __future__ import annotations

HIDDEN = 64
HEADS = 4
HEAD_DIM = 16
INNER = 32
EXPERTS = 8
TOP_K = 2
LAYERS = 4
FEWEST_LAYERS = 3
TOWER_LAYERS = 2
VOCABULARY = 512
POSITIONS = 512
STRETCH = 16.0

#: Ids of the special tokens, the same in every small model and in its tokenizer.
PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = 4
#: After the special tokens come 256 bytes and 95 printable characters, then words.
FIRST_WORD = SPECIAL_TOKENS + 256 + 95

#: Upper bounds: a field that is smaller in the full-size default, zero or None stays as it is.
AT_MOST: dict[str, int] = {
    **dict.fromkeys(
        (
            "hidden_size", "d_model", "text_hidden_size", "out_hidden_size", "output_dim", "projector_hidden_size",
            "projection_hidden_dim", "projection_intermediate_size", "projector_input_dim",
            "projector_output_dim", "vision_output_dim", "adapter_in_dim", "adapter_out_dim",
            "adapter_input_size", "thinker_hidden_size", "moe_hidden_size", "ple_embed_dim", "decoder_dim",
            "downsample_hidden_size", "router_hidden_size",
        ),
        HIDDEN,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads",
            "swa_num_attention_heads", "num_sliding_attention_heads", "index_n_heads", "linear_num_heads",
            "linear_num_key_heads", "linear_num_value_heads", "mamba_n_heads", "mamba_num_heads",
        ),
        HEADS,
    ),
    **dict.fromkeys(
        (
            "head_dim", "kv_channels", "d_kv", "swa_head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim",
            "index_head_dim", "linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "kv_lora_rank",
            "q_lora_rank", "o_lora_rank", "mamba_d_state", "ssm_state_size",
            "gated_norm_rank", "hc_lowrank",
        ),
        HEAD_DIM,
    ),
    **dict.fromkeys(
        (
            "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size",
            "shared_experts_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size",
            "dense_intermediate_size", "prefix_dense_intermediate_size", "intermediate_size_mlp",
            "ffn_hidden_size", "expert_ffn_hidden_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "mlp_dim",
            "share_expert_dim", "mamba_d_head", "mamba_head_dim",
        ),
        INNER,
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers", "n_layers", "num_layers", "depth", "encoder_layers", "decoder_layers",
            "num_decoder_layers",
        ),
        LAYERS,
    ),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "max_seq_len", "max_source_positions"), POSITIONS),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(("moe_num_shared_experts", "mamba_n_groups"), 1),
    **dict.fromkeys(("num_nextn_predict_layers", "num_mtp_layers"), 0),
    "rotary_dim": 8,
    "hidden_size_per_layer_input": 8,
    "sliding_window": 16,
    "sliding_window_size": 16,
    "attention_chunk_size": 16,
    "index_topk": 8,
    "zero_expert_num": 2,
    "image_size": 56,
    "num_position_embeddings": 16,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 2,
    "encoder_sparse_step": 2,
    "decoder_sparse_step": 2,
    "hc_mult": 2,
}  # fmt: skip

#: Set wherever the field exists, also where the full-size default is None or smaller.
EXACTLY: dict[str, int | float] = {
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk", "moe_top_k"), TOP_K),
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "dropout": 0.0,
    "dropout_rate": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}

#: Set where the full-size default has a number: four groups of two experts, two groups stay eligible.
GROUPS: dict[str, int] = {"n_group": 4, "topk_group": 2}

#: Fields with fewer key/value heads than query heads get half of them; with equally many, as many.
KEY_VALUE_HEADS = ("num_key_value_heads", "swa_num_key_value_heads", "kv_n_heads")

#: Numbers of layers: a list as long as one of these is a list of one entry a layer.
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers")

#: Ids that a text-only prompt must never contain lie outside the small vocabulary.
TEXT_TOKEN_IDS = frozenset({"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"})

#: Nested configurations of the parts that a text-only prompt never reaches.
TOWERS = frozenset({"vision_config", "audio_config", "sam_config", "encoder_config"})
