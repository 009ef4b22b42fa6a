"""Overlays: they point at what a classifier decides by, more often than random points; bad input is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tiny_networks import tiny_network
from videomae.cli import main
from videomae.explain.attributions import gradient_attention, occlusion, rollout
from videomae.explain.overlay import colored, overlaid
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.video.decode import VideoReader

GRID = (2, 4, 4)


def planted(rng: np.random.Generator, label: int) -> tuple[Tensor, tuple[int, int]]:
    """Draw a clip `[4, 3, 32, 32]` of noise with a moving block, red or green by its label; returns its position.

    A block of the other kind of brightness, gray, moves too.
    """
    pixels = 0.3 * rng.normal(size=(4, 3, 32, 32))
    places = rng.permutation(16)[:2]
    for place, is_object in zip(places, (True, False), strict=True):
        y, x = 8 * (place // 4), 8 * (place % 4)
        color = np.array([2.5, -2.5, 0.0] if label else [-2.5, 2.5, 0.0]) if is_object else np.full(3, 1.5)
        pixels[:, :, y : y + 8, x : x + 8] += color[:, None, None]
    return torch.from_numpy(pixels).float(), (int(places[0]) // 4, int(places[0]) % 4)


@pytest.fixture(scope="module")
def color_classifier() -> VideoMAEForVideoClassification:
    """A tiny classifier, trained to tell the color of the block."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = VideoMAEForVideoClassification(tiny_network(num_labels=2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        labels = rng.integers(0, 2, 16)
        clips = torch.stack([planted(rng, int(label))[0] for label in labels])
        loss = model(clips, labels=torch.from_numpy(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return model.eval()


@pytest.mark.slow
def test_gradient_and_occlusion_point_at_the_object_and_random_points_do_not(
    color_classifier: VideoMAEForVideoClassification,
) -> None:
    rng = np.random.default_rng(1)
    hits = {"gradient": 0, "occlusion": 0, "random": 0}
    for number in range(40):
        clip, place = planted(rng, number % 2)
        heats = {
            "gradient": gradient_attention(color_classifier, clip[None], number % 2),
            "occlusion": occlusion(color_classifier, clip[None], number % 2),
            "random": torch.from_numpy(rng.random(GRID)),
        }
        for name, heat in heats.items():
            _, row, column = np.unravel_index(int(heat.argmax()), GRID)
            hits[name] += (int(row), int(column)) == place
    assert hits["random"] <= 8  # one in 16 by chance
    assert hits["gradient"] >= 20, hits
    assert hits["occlusion"] >= 18, hits


def test_maps_are_of_the_grid_and_rollout_is_a_distribution(classifier_folder: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_folder).eval()
    pixels = torch.randn(1, 4, 3, 32, 32)
    flow = rollout(model.videomae, pixels)
    assert tuple(flow.shape) == GRID
    assert float(flow.sum()) == pytest.approx(1.0, abs=1e-5)
    for heat in (gradient_attention(model, pixels, 1), occlusion(model, pixels, 1)):
        assert tuple(heat.shape) == GRID
        assert float(heat.min()) >= 0.0
        assert heat.isfinite().all()


def test_occlusion_of_a_block_that_a_class_needs_is_what_its_logit_loses(
    color_classifier: VideoMAEForVideoClassification,
) -> None:
    clip, (row, column) = planted(np.random.default_rng(5), 1)
    heat = occlusion(color_classifier, clip[None], 1)
    hidden = clip.clone()
    hidden[:2, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0.0
    with torch.no_grad():
        whole, without = (color_classifier(one[None]).logits[0, 1] for one in (clip, hidden))
    assert float(heat[0, row, column]) == pytest.approx(max(0.0, float(whole - without)), abs=1e-4)


def test_a_cold_map_leaves_frames_as_they_are_and_a_hot_place_is_bright() -> None:
    frames = np.full((4, 32, 32, 3), 60, np.uint8)
    assert (colored(frames, torch.zeros(2, 4, 4), largest=1.0) == 60).all()
    heat = torch.zeros(2, 4, 4)
    heat[:, 1, 2] = 1.0
    shown = overlaid(frames, heat)
    assert shown.shape == (4, 224, 224, 3)
    assert shown[0, 84, 140].mean() > 140
    assert (shown[0, 200, 20] == 60).all()


def test_explain_writes_a_picture_and_a_video_and_names_the_class(
    classifier_folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(classifier_folder), str(video), "--label", "jump", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "e.png"), "--video_out", str(tmp_path / "e.mp4")]) == 0
    assert capsys.readouterr().out.startswith(f"{video}: jump, ")
    with Image.open(tmp_path / "e.png") as image:
        assert image.width > 600
    with VideoReader(tmp_path / "e.mp4") as reader:
        assert (len(reader), reader.info.width) == (4, 4 * 224)


def test_what_cannot_be_explained_is_refused_with_the_choices(
    classifier_folder: Path, encoder_folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "e.png"), "--device", "cpu"]
    assert main(["explain", str(classifier_folder), str(video), "--label", "swim", *out]) == 2
    assert "label is 'swim', and the classes of" in (message := capsys.readouterr().err)
    assert "are: cut, jump, run; choose one of them" in message
    assert main(["explain", str(encoder_folder), str(video), "--methods", "gradient", *out]) == 2
    assert "has none: give a fine-tuned classifier, or --methods rollout" in capsys.readouterr().err
    assert main(["explain", str(encoder_folder), str(video), *out]) == 0  # rollout needs no classes
    assert main(["explain", str(classifier_folder), str(video), "--out", "e.jpg"]) == 2
    assert "its name must end with .png" in capsys.readouterr().err
