"""What is known of the published models: their sizes, their numbers of heads, the pixels they were trained on."""

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
# Encoder and decoder sizes of the published models. Decoder depth: 4 (small, base) and 12 (large, huge) in
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

# Number of attention heads by width, which no tensor shows: those of every published VideoMAE and VideoMAE V2 model.
ENCODER_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {192: 3, 384: 6, 512: 8, 640: 8}

# The pixels that a three-channel model predicts are those before this normalization: the original pre-training
# engine and transformers both undo it with these constants, whatever the processor used.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
