"""Literal tables of configurations: the sizes of the published networks, and what other programs' files say."""

from __future__ import annotations

_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4,
    "decoder_num_attention_heads": 6,
    "decoder_intermediate_size": 1536,
}
# Encoder and decoder sizes of the published networks. Decoder depth: 4 (small, base) and 12 (large, huge) in
# VideoMAE; giant exists in VideoMAE V2 alone, whose decoder MLP keeps the encoder's ratio 48/11.
PRESETS: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "decoder_hidden_size": 192,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 3,
        "decoder_intermediate_size": 768,
    },
    "base": _BASE,
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "decoder_hidden_size": 512,
        "decoder_num_hidden_layers": 12,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2048,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "decoder_hidden_size": 640,
        "decoder_num_hidden_layers": 12,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2560,
    },
    "giant": {
        "patch_size": 14,
        "hidden_size": 1408,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "intermediate_size": 6144,
        "decoder_hidden_size": 512,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 2234,
    },
}

# Keys that transformers 4 and 5 write into every config.json and that say nothing about the network.
UPSTREAM_KEYS = frozenset(
    """_attn_implementation_autoset _attn_implementation _attn_implementation_internal _commit_hash
    _experts_implementation_internal _name_or_path _output_attentions add_cross_attention architectures
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size custom_pipelines decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id is_decoder is_encoder_decoder length_penalty max_length min_length
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix pruned_heads quantization_config remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version transformers.js_config typical_p use_bfloat16 use_cache""".split()
)

# Fields that only this package writes.
OWN_FIELDS = frozenset("drop_path_rate classifier_dropout init_values use_cls_token head_layer_norm_eps".split())

# VideoMAE V2's repositories -> ours.
V2_BLOCK = "model_config"  # where the configurations of VideoMAE V2's repositories have their sizes
V2_FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "layer_norm_eps": "layer_norm_eps",
    "qkv_bias": "qv_bias",
    "use_mean_pooling": "use_mean_pooling",
    "init_values": "init_values",
}
V2_UNSUPPORTED = ("cos_attn", "use_learnable_pos_emb")  # in no released network
