"""Settings of runs that are small enough for tests: a model of two blocks and 16 tokens."""

from __future__ import annotations

NETWORK = {
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
SMALL = [
    *(word for name, value in NETWORK.items() for word in (f"--model.overrides.{name}", str(value))),
    *("--model.image_size", "32", "--clip.num_frames", "8", "--clip.stride", "1"),
    *("--loop.batch_size", "2", "--loop.workers", "0", "--loop.checkpoint_steps", "3", "--loop.log_steps", "2"),
]
