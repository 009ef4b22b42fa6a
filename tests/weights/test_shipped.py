"""The shipped model is found by its name wherever a model is, and a folder of that name is not shadowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomae import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)
from videomae.errors import WeightsError
from videomae.sharing.shipped import shipped_line
from videomae.weights.shipped import resolved, shipped_folder, unnamed_model
from videomae.weights.sources import find_source


def test_the_shipped_model_is_an_encoder_with_its_decoder_under_its_name() -> None:
    model, report = VideoMAEForPreTraining.from_pretrained("default", output_loading_info=True)
    assert 5.2e6 < model.num_parameters() < 5.4e6
    assert not report.fresh
    assert model.config.name_or_path == "default"


def test_configuration_processor_and_weights_are_all_found_by_the_name() -> None:
    by_name, by_folder = VideoMAEModel.from_pretrained("default"), VideoMAEModel.from_pretrained(shipped_folder())
    assert all(torch.equal(a, b) for a, b in zip(by_name.parameters(), by_folder.parameters(), strict=True))
    assert VideoMAEConfig.from_pretrained("default").hidden_size == by_name.config.hidden_size
    assert VideoMAEImageProcessor.from_pretrained("default").crop_size["height"] == by_name.config.image_size


def test_a_folder_of_that_name_is_an_error_that_tells_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    VideoMAEForVideoClassification(tiny()).save_pretrained(tmp_path / "default")
    for load in (VideoMAEModel.from_pretrained, VideoMAEConfig.from_pretrained, find_source):
        with pytest.raises(WeightsError, match=r"write \./default for what lies there, or \S+procedural-small"):
            load("default")


def test_paths_named_default_are_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    VideoMAEForVideoClassification(tiny()).save_pretrained(tmp_path / "default")
    for source in ("./default", Path("default")):
        assert VideoMAEModel.from_pretrained(source).config.hidden_size == tiny().hidden_size
    assert resolved(Path("default")) == Path("default")


def test_where_no_model_is_named_a_folder_of_that_name_plays_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert unnamed_model() == "default"
    (tmp_path / "default").mkdir()
    assert find_source(unnamed_model()).folder == shipped_folder()


def test_the_line_about_it_says_what_it_is() -> None:
    line = shipped_line("--model")
    for part in ("5.3 million", "procedural video only", "Apache-2.0", "16 frames, stride 2", "64x64", "--model"):
        assert part in line


def tiny() -> VideoMAEConfig:
    return VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
