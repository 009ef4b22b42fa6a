"""Repositories in the layout of the published models: their file names, key names and spellings, random values.

Written out here instead of by the package, so that a name which the package gets wrong on both sides is seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# The first published repositories hold the first of these, later ones the second.
FIRST_PROCESSOR = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    **IMAGENET,
    "resample": 2,
    "size": 224,
}
LATER_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_processor_type": "VideoMAEImageProcessor",
    **IMAGENET,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


def published_config(architecture: str, **settings: Any) -> dict[str, Any]:
    """Return a `config.json` as it is published, with the sizes of a tiny model unless settings say otherwise."""
    return {
        "architectures": [architecture],
        "attention_probs_dropout_prob": 0.0,
        "decoder_hidden_size": 24,
        "decoder_intermediate_size": 48,
        "decoder_num_attention_heads": 6,
        "decoder_num_hidden_layers": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 48,
        "image_size": 224,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-12,
        "model_type": "videomae",
        "norm_pix_loss": True,
        "num_attention_heads": 12,
        "num_channels": 3,
        "num_frames": 16,
        "num_hidden_layers": 2,
        "patch_size": 16,
        "qkv_bias": True,
        "torch_dtype": "float32",
        "transformers_version": "4.22.0.dev0",
        "tubelet_size": 2,
        "use_mean_pooling": architecture == "VideoMAEForVideoClassification",
        **settings,
    }


def published_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a published file by its name."""
    width, inner = config["hidden_size"], config["decoder_hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "videomae.embeddings.patch_embeddings.projection.weight": (width, 3, 2, 16, 16),
        "videomae.embeddings.patch_embeddings.projection.bias": (width,),
    }
    for number in range(config["num_hidden_layers"]):
        shapes |= _block(f"videomae.encoder.layer.{number}", width, config["intermediate_size"])
    if config["architectures"] == ["VideoMAEForVideoClassification"]:
        num_labels = len(config["id2label"])
        shapes |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
        return shapes | {"classifier.weight": (num_labels, width), "classifier.bias": (num_labels,)}
    shapes |= {"videomae.layernorm.weight": (width,), "videomae.layernorm.bias": (width,)}
    shapes |= {"encoder_to_decoder.weight": (inner, width), "mask_token": (1, 1, inner)}
    for number in range(config["decoder_num_hidden_layers"]):
        shapes |= _block(f"decoder.decoder_layers.{number}", inner, config["decoder_intermediate_size"])
    shapes |= {"decoder.norm.weight": (inner,), "decoder.norm.bias": (inner,)}
    return shapes | {"decoder.head.weight": (1536, inner), "decoder.head.bias": (1536,)}


def _block(name: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    attention = f"{name}.attention"
    return {
        f"{attention}.attention.q_bias": (width,),
        f"{attention}.attention.v_bias": (width,),
        f"{attention}.attention.query.weight": (width, width),
        f"{attention}.attention.key.weight": (width, width),
        f"{attention}.attention.value.weight": (width, width),
        f"{attention}.output.dense.weight": (width, width),
        f"{attention}.output.dense.bias": (width,),
        f"{name}.intermediate.dense.weight": (hidden, width),
        f"{name}.intermediate.dense.bias": (hidden,),
        f"{name}.output.dense.weight": (width, hidden),
        f"{name}.output.dense.bias": (width,),
        f"{name}.layernorm_before.weight": (width,),
        f"{name}.layernorm_before.bias": (width,),
        f"{name}.layernorm_after.weight": (width,),
        f"{name}.layernorm_after.bias": (width,),
    }


def random_state(shapes: dict[str, tuple[int, ...]], *, seed: int = 0) -> dict[str, Tensor]:
    """Return random values of a size that keeps activations near one; no bias is zero, no gain is one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1 and name != "mask_token":
            state[name] = noise / noise[0].numel() ** 0.5
        else:
            state[name] = 0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return state


def write_repository(
    folder: Path, config: dict[str, Any], processor: dict[str, Any], *, pickled: bool, seed: int = 0
) -> Path:
    """Write a repository with random weights; pickled as the first ones are, else as safetensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
    state = random_state(published_shapes(config), seed=seed)
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
