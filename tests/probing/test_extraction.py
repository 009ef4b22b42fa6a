"""Features are computed once, and again only where the video, the model or the clip is another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.errors import RunError
from videomae.inference.predictor import Predictor
from videomae.probing.extraction import Features, cache_files, extract, load_frozen
from videomae.probing.videos import find_videos
from videomae.video import opening
from videomae.video.decode import VideoReader
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    shutil.copytree(clips, tmp_path / "clips")
    return tmp_path / "clips"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the videos that are opened."""
    names: list[str] = []

    class Counting(VideoReader):
        def __init__(self, path: Path, *, store: IndexStore | None = None, **settings: bool) -> None:
            names.append(Path(path).name)
            super().__init__(path, store=store, **settings)

    monkeypatch.setattr(opening, "VideoReader", Counting)
    return names


def computed(encoder: Path, folder: Path, cache: Path, clip: ClipConfig | None = None) -> Features:
    manifest = find_videos(folder).manifest
    loaded = load_frozen(encoder, manifest.classes, clip=clip, device="cpu")
    return extract(loaded, manifest, cache_files(loaded, manifest, cache), workers=2)


def test_the_second_time_nothing_is_decoded(encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = computed(encoder, folder, tmp_path / "cache")
    assert len(decoded) == 12
    again = computed(encoder, folder, tmp_path / "cache")
    assert len(decoded) == 12
    assert (first.num_cached, again.num_cached) == (0, 12)
    assert np.array_equal(first.pooled, again.pooled)
    assert torch.equal(first.tokens, again.tokens)


def test_only_a_changed_video_is_decoded_again(
    encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    computed(encoder, folder, tmp_path / "cache")
    decoded.clear()
    shutil.copy(folder / "right" / "right_0001.mp4", folder / "left" / "left_0003.mp4")
    os.utime(folder / "right" / "right_0005.mp4", ns=(1, 1))
    computed(encoder, folder, tmp_path / "cache")
    assert sorted(decoded) == ["left_0003.mp4", "right_0005.mp4"]


def test_labels_and_groups_are_no_part_of_the_key(
    encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    computed(encoder, folder, tmp_path / "cache")
    decoded.clear()
    text = (folder / "labels.csv").read_text().replace(",right,right1,", ",left,left9,")
    (folder / "labels.csv").write_text(text)
    computed(encoder, folder, tmp_path / "cache")
    assert decoded == []


def test_another_clip_or_model_is_another_key(
    encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    computed(encoder, folder, tmp_path / "cache")
    computed(encoder, folder, tmp_path / "cache", ClipConfig(num_frames=8, stride=1))
    assert len(decoded) == 24
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    text = (other / "preprocessor_config.json").read_text().replace("0.5", "0.4")
    (other / "preprocessor_config.json").write_text(text)
    computed(other, folder, tmp_path / "cache")
    assert len(decoded) == 36


def test_a_damaged_file_of_features_is_computed_again(
    encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    first = computed(encoder, folder, tmp_path / "cache")
    decoded.clear()
    file = sorted((tmp_path / "cache").rglob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:50])
    assert np.array_equal(computed(encoder, folder, tmp_path / "cache").pooled, first.pooled)
    assert len(decoded) == 1


def test_pooled_features_are_what_a_classifier_of_the_predictor_sees(
    encoder: Path, clips: Path, tmp_path: Path
) -> None:
    videos = find_videos(clips)
    loaded = load_frozen(encoder, videos.manifest.classes, clip=None, device="cpu")
    found = extract(loaded, videos.manifest, cache_files(loaded, videos.manifest, tmp_path), workers=1)
    logits = Predictor.from_loaded(loaded).view_logits(videos.manifest.rows[3].path).logits[0]
    with torch.no_grad():
        expected = loaded.model.classify(torch.from_numpy(found.pooled[3]).float())
    torch.testing.assert_close(logits.float(), expected, rtol=1e-5, atol=1e-6)


def test_tokens_keep_the_times_and_at_most_four_by_four_positions(encoder: Path, clips: Path, tmp_path: Path) -> None:
    assert computed(encoder, clips, tmp_path).tokens.shape == (12, 4, 16, 32)


def test_too_many_bad_videos_stop_it_and_the_good_ones_are_kept(
    encoder: Path, folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    (folder / "left" / "left_0002.mp4").write_text("no video")
    with pytest.raises(
        RunError, match=r"1 of 12 videos cannot be read, more than 5%; the first is left/left_0002.mp4"
    ):
        computed(encoder, folder, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 11
