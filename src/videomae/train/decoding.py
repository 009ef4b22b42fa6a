"""How many clips a step of pre-training decodes at once on a CPU.

The decoder keeps most of what a step keeps for its backward pass, and needs nothing of one clip for another. So some
clips at a time go through decoder, loss and their backward pass (`engine/parted.py`); the gradients are the same.
"""

from __future__ import annotations

from videomae.model.config import VideoMAEConfig
from videomae.model.embeddings import native_grid
from videomae.model.pretraining import VideoMAEForPreTraining

# Values of the decoder's width that go through it at once: a clip of ViT-S or of ViT-B, some of smaller models, whose
# time would go into calls.
VALUES = 300_000


def decode_in_parts(model: VideoMAEForPreTraining) -> None:
    """Let a model, which is on the device of a run, decode few clips at once on a CPU; a GPU wants many."""
    if model.mask_token.device.type == "cpu":
        model.clips_decoded_at_once = clips_decoded_at_once(model.config)


def clips_decoded_at_once(config: VideoMAEConfig) -> int | None:
    """Return how many clips are decoded at once on a CPU; None: all of a batch.

    Dropout and stochastic depth are drawn for all clips of a batch together: with either, they are decoded together.
    """
    if config.hidden_dropout_prob or config.attention_probs_dropout_prob or config.drop_path_rate:
        return None
    return max(1, VALUES // (native_grid(config).num_tokens * config.decoder_hidden_size))
