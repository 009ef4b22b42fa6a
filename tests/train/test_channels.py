"""Other channels than three: what the patch embedding starts from, and grey models on real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.errors import ConfigError
from videomae.inference.clips import as_channels
from videomae.inference.features import extract_features
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.presets import IMAGENET_MEAN, IMAGENET_STD
from videomae.recipes.schema import FinetuneRecipe
from videomae.train.channels import with_channels
from videomae.train.finetune import finetune

Finetune = Callable[..., FinetuneRecipe]


def made(num_channels: int = 3) -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_channels=num_channels,
    )
    model = VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        model.videomae.embeddings.patch_embeddings.projection.weight.normal_(std=0.5)
        model.classifier.weight.normal_(std=2.0)
    return model


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """Return `[1, T, 3, H, W]` normalized RGB for pixels `[1, T, C, H, W]` in [0, 1]."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


def test_a_grey_video_gives_what_it_gave_as_rgb() -> None:
    model = made()
    grey = with_channels(model, 1)
    clip = normalized(torch.rand(1, 4, 1, 32, 32).expand(-1, -1, 3, -1, -1))
    with torch.no_grad():
        expected, found = model(clip).logits, grey(as_channels(clip, 1)).logits
        summed = model(normalized(torch.rand(1, 4, 3, 32, 32))).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(summed, expected, atol=1e-2), "the logits would not show a difference"


def test_further_channels_change_nothing_at_first() -> None:
    model = made()
    more = with_channels(model, 5)
    clip = torch.randn(1, 4, 5, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(more(clip).logits, model(clip[:, :, :3]).logits)


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 3 channels and 2 are asked for: from three channels one can be made"):
        with_channels(made(), 2)
    with pytest.raises(ConfigError, match="has 1 channels and 3 are asked for"):
        with_channels(made(1), 3)


def test_a_grey_classifier_is_trained_from_rgb_weights_and_used_on_files(
    finetune_recipe: Finetune, labelled_folder: Path, tmp_path: Path
) -> None:
    first = finetune(finetune_recipe("--schedule.steps", "1"), out=tmp_path / "rgb")
    words = ("--init", str(first.model_folder), "--model.overrides.num_channels", "1", "--schedule.steps", "1")
    result = finetune(finetune_recipe(*words), out=tmp_path / "grey")
    model = VideoMAEForVideoClassification.from_pretrained(result.model_folder)
    assert model.config.num_channels == 1
    video = labelled_folder / "left" / "0.mp4"
    prediction = Predictor(result.model_folder, device="cpu").predict(video)
    assert np.isclose(sum(prediction.probabilities), 1.0)
    found = extract_features(result.model_folder, [video], device="cpu")
    assert all(np.isfinite(np.asarray(one.features)).all() for one in found.videos)
    with pytest.raises(ConfigError, match="frames of 4 channels, but videos are read as RGB or as grey"):
        finetune(finetune_recipe("--model.overrides.num_channels", "4"), out=tmp_path / "four")
    assert not (tmp_path / "four").exists()


@pytest.mark.parametrize("num_frames", [8, 64])
def test_clips_of_other_lengths_and_sizes_start_from_interpolated_positions(
    finetune_recipe: Finetune, tmp_path: Path, num_frames: int
) -> None:
    first = finetune(finetune_recipe("--schedule.steps", "1"), out=tmp_path / "first")
    words = ("--clip.num_frames", str(num_frames), "--model.image_size", "48", "--schedule.steps", "1")
    result = finetune(finetune_recipe("--init", str(first.model_folder), *words), out=tmp_path / "other")
    model = VideoMAEForVideoClassification.from_pretrained(result.model_folder)
    assert model.config.token_grid == (num_frames // 2, 3, 3)
    assert model.config.position_grid == (4, 2, 2)
