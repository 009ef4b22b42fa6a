"""What other programs write into a `config.json`, and which of this package's fields they do not know."""

from __future__ import annotations

# Keys that transformers 4 and 5 write into every config.json and that say nothing about the model.
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
OWN_FIELDS = frozenset(
    "drop_path_rate classifier_dropout init_values use_cls_token head_layer_norm_eps position_grid".split()
)

# What saving writes besides the configuration.
WRITTEN_KEYS = frozenset("model_type architectures dtype torch_dtype transformers_version".split())

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
V2_UNSUPPORTED = ("cos_attn", "use_learnable_pos_emb")  # in no released model
