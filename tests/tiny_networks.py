"""The size of the models in the tests of files: milliseconds to save."""

from __future__ import annotations

from videomae.model.config import VideoMAEConfig


def tiny_network(**settings: object) -> VideoMAEConfig:
    """Return a tiny configuration; settings win."""
    sizes: dict[str, object] = {
        "image_size": 32,
        "patch_size": 8,
        "num_frames": 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32,
    }
    return VideoMAEConfig(**{**sizes, **settings})
