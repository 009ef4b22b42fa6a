"""Claims about single samples: where their randomness comes from, and what a bad video becomes."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.data.augment import AugmentConfig, resize_centre
from videomae.data.datasets import BadVideo, ClipSample, FinetuningDataset, PretrainingDataset, SampleKey
from videomae.data.manifest import Manifest, VideoRow
from videomae.data.scan import scan_labelled, scan_unlabelled
from videomae.data.synthetic import write_motion_videos
from videomae.engine.seeding import numpy_generator
from videomae.errors import ConfigError
from videomae.masking import MaskConfig
from videomae.patches import TokenGrid
from videomae.video.decode import VideoReader, read_clip
from videomae.video.sampling import ClipConfig, finetuning_clip, pretraining_clip
from videomae.video.write import write_video

SIZE, NUM_FRAMES = 32, 24
CLIP = ClipConfig(num_frames=4, stride=2)
GRID = TokenGrid(frames=2, height=4, width=4)
CENTRE = AugmentConfig(crop="centre")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion")
    write_motion_videos(folder, videos_per_class=1, size=SIZE, num_frames=NUM_FRAMES)
    return folder


@pytest.fixture
def pretraining(folder: Path) -> PretrainingDataset:
    return make_pretraining(scan_unlabelled(folder))


@pytest.fixture
def finetuning(folder: Path) -> FinetuningDataset:
    return make_finetuning(scan_labelled(folder))


def make_pretraining(
    manifest: Manifest,
    *,
    augment: AugmentConfig = AugmentConfig(flip=True),  # noqa: B008 - frozen
    mask: MaskConfig = MaskConfig(),  # noqa: B008 - frozen
    seed: int = 3,
) -> PretrainingDataset:
    return PretrainingDataset(manifest, clip=CLIP, size=SIZE, augment=augment, mask=mask, grid=GRID, seed=seed)


def make_finetuning(manifest: Manifest, *, augment: AugmentConfig = CENTRE, seed: int = 3) -> FinetuningDataset:
    return FinetuningDataset(manifest, clip=CLIP, size=SIZE, augment=augment, seed=seed)


def good(sample: ClipSample | BadVideo) -> ClipSample:
    assert isinstance(sample, ClipSample)
    return sample


def content(sample: ClipSample | BadVideo) -> bytes:
    return pickle.dumps(
        [value.numpy() if isinstance(value, torch.Tensor) else value for value in vars(good(sample)).values()]
    )


def test_a_pretraining_sample_has_a_clip_and_masks_that_part_the_grid(pretraining: PretrainingDataset) -> None:
    sample = good(pretraining[SampleKey(0, 2)])
    assert sample.clip.shape == (4, 3, SIZE, SIZE)
    assert sample.clip.dtype == torch.uint8
    assert (sample.label, sample.index) == (-1, 2)
    assert sample.visible is not None
    assert sample.decoded is not None
    assert sample.visible.shape == (2 * 2,)  # of 16 places int(0.9 * 16) = 14 are hidden in both time slices
    assert sorted([*sample.visible.tolist(), *sample.decoded.tolist()]) == list(range(GRID.num_tokens))


def test_a_finetuning_sample_has_its_folders_label_and_no_masks(finetuning: FinetuningDataset) -> None:
    for index, name in enumerate(finetuning.manifest.classes):
        sample = good(finetuning[SampleKey(0, index)])
        assert finetuning.manifest.rows[index].path.parent.name == name
        assert (sample.label, sample.index, sample.visible, sample.decoded) == (index, index, None, None)


def test_the_clip_is_exactly_the_frames_that_the_samplers_draw(folder: Path) -> None:
    manifest = scan_labelled(folder)
    pretraining, finetuning = make_pretraining(manifest, augment=CENTRE), make_finetuning(manifest)
    for key in (SampleKey(0, 1), SampleKey(5, 7)):
        for dataset, draw in ((pretraining, pretraining_clip), (finetuning, finetuning_clip)):
            chosen = draw(NUM_FRAMES, CLIP, rng=numpy_generator(3, key.epoch, key.index, "clip"))
            frames = read_clip(manifest.rows[key.index].path, chosen)
            assert torch.equal(good(dataset[key]).clip, resize_centre(frames, size=SIZE))


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder: Path, pretraining: PretrainingDataset) -> None:
    keys = [SampleKey(epoch, index) for epoch in range(3) for index in range(8)]
    first = [content(pretraining[key]) for key in keys]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    fresh = make_pretraining(scan_unlabelled(folder))
    assert [content(fresh[key]) for key in reversed(keys)] == first[::-1]
    assert len(set(first)) == len(first)
    other_seed = make_pretraining(scan_unlabelled(folder), seed=4)
    assert content(other_seed[keys[0]]) != first[0]


def test_reading_a_sample_leaves_the_global_random_states_alone(pretraining: PretrainingDataset) -> None:
    before = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state()
    pretraining[SampleKey(0, 0)]
    assert random.getstate() == before[0]
    assert pickle.dumps(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_draws_for_one_purpose_do_not_move_those_for_another(folder: Path) -> None:
    manifest = scan_unlabelled(folder)
    base = make_pretraining(manifest)
    other_crop = make_pretraining(manifest, augment=AugmentConfig(crop="resized"))
    other_mask = make_pretraining(manifest, mask=MaskConfig(kind="random", ratio=0.5))
    for index in range(8):
        key = SampleKey(1, index)
        visible, other_visible = good(base[key]).visible, good(other_crop[key]).visible
        assert visible is not None
        assert other_visible is not None
        assert torch.equal(visible, other_visible)
        assert torch.equal(good(base[key]).clip, good(other_mask[key]).clip)


def test_masks_and_clips_change_from_epoch_to_epoch(pretraining: PretrainingDataset) -> None:
    samples = [good(pretraining[SampleKey(epoch, 0)]) for epoch in range(12)]
    assert len({sample.clip.numpy().tobytes() for sample in samples}) > 6
    assert len({tuple(sample.visible.tolist()) for sample in samples if sample.visible is not None}) > 6


@pytest.mark.parametrize("kind", ["pretraining", "finetuning"])
def test_a_pickled_data_set_gives_the_same_samples(kind: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(kind)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == len(dataset) == 8
    assert all(content(copy[SampleKey(1, i)]) == content(dataset[SampleKey(1, i)]) for i in range(8))


def test_segment_clips_take_one_frame_from_each_part(folder: Path) -> None:
    manifest = scan_labelled(folder)
    clip = replace(CLIP, kind="segment")
    dataset = FinetuningDataset(manifest, clip=clip, size=SIZE, augment=CENTRE, seed=3)
    chosen = finetuning_clip(NUM_FRAMES, clip, rng=numpy_generator(3, 0, 0, "clip"))
    assert [frame // 6 for frame in chosen] == [0, 1, 2, 3]
    frames = read_clip(manifest.rows[0].path, chosen)
    assert torch.equal(good(dataset[SampleKey(0, 0)]).clip, resize_centre(frames, size=SIZE))


def test_a_video_that_cannot_be_read_becomes_a_bad_video_with_its_name(tmp_path: Path) -> None:
    write_motion_videos(tmp_path, videos_per_class=1, size=SIZE, num_frames=NUM_FRAMES)
    manifest = scan_labelled(tmp_path)
    whole = manifest.rows[0].path.read_bytes()
    manifest.rows[0].path.write_bytes(whole[: len(whole) // 2])
    manifest.rows[1].path.write_text("a text that calls itself a video\n" * 50)
    manifest.rows[2].path.write_bytes(b"")
    manifest.rows[3].path.unlink()
    for dataset in (make_finetuning(manifest), make_pretraining(manifest)):
        for index in range(4):
            sample = dataset[SampleKey(0, index)]
            assert isinstance(sample, BadVideo)
            assert sample.path == str(manifest.rows[index].path)
            assert manifest.rows[index].path.name in sample.reason
            assert "\n" not in sample.reason
        assert isinstance(dataset[SampleKey(0, 4)], ClipSample)


def test_what_is_wrong_with_the_settings_is_said_before_a_video_is_read(folder: Path) -> None:
    unlabelled = scan_unlabelled(folder)
    with pytest.raises(ConfigError, match=r"mask\.ratio 0\.01 hides 0 of 16 tokens"):
        make_pretraining(unlabelled, mask=MaskConfig(ratio=0.01))
    with pytest.raises(ConfigError, match="the clip size is 0 pixels; it must be at least 1"):
        FinetuningDataset(scan_labelled(folder), clip=CLIP, size=0, augment=CENTRE, seed=0)


def test_samples_of_a_part_of_a_video_are_those_of_its_frames_alone(tiny_video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(read_clip(tiny_video, range(10, 22))):
        Image.fromarray(frame).save(folder / f"{number}.png")
    rows = VideoRow(tiny_video, 0, start_seconds=0.4, end_seconds=0.88), VideoRow(folder, 0)
    clip, config = ClipConfig(num_frames=4, stride=2), AugmentConfig()
    mask, grid = MaskConfig(ratio=0.5), TokenGrid(2, 2, 2)
    for epoch in range(5):
        key = SampleKey(epoch, 0)
        samples = []
        for row in rows:
            manifest = Manifest(tmp_path, (row,), ("a",))
            labelled = FinetuningDataset(manifest, clip=clip, size=32, augment=config, seed=1)[key]
            unlabelled = PretrainingDataset(
                manifest, clip=clip, size=32, augment=config, mask=mask, grid=grid, seed=1
            )[key]
            assert isinstance(labelled, ClipSample)
            assert isinstance(unlabelled, ClipSample)
            samples.append((labelled.clip, unlabelled.clip))
        assert torch.equal(samples[0][0], samples[1][0])
        assert torch.equal(samples[0][1], samples[1][1])
    beyond = VideoRow(tiny_video, 0, start_seconds=5.0)
    bad = FinetuningDataset(Manifest(tmp_path, (beyond,), ("a",)), clip=clip, size=32, augment=config, seed=1)
    found = bad[SampleKey(0, 0)]
    assert isinstance(found, BadVideo)
    assert found.path.endswith("tiny.mp4#t=5")
    assert "has no frame from second 5 to the end" in found.reason


def test_frames_much_larger_than_a_clip_are_scaled_while_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((12, 240, 320, 3), np.uint8) + np.arange(0, 240, 20, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "a.mp4", frames)
    manifest = Manifest(tmp_path, (VideoRow(tmp_path / "a.mp4", 0),), ("a",))
    sizes: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        "videomae.data.datasets.augment_clip",
        lambda frames, config, *, size, rng: sizes.append(frames.shape) or resize_centre(frames, size=size),
    )
    clips = []
    for size in (60, 48, 24):
        dataset = FinetuningDataset(manifest, clip=CLIP, size=size, augment=CENTRE, seed=3)
        clips.append(good(dataset[SampleKey(0, 0)]).clip.float())
    assert sizes == [(4, 240, 320, 3), (4, 192, 256, 3), (4, 96, 128, 3)]
    for clip in clips[1:]:
        assert torch.allclose(clip.mean((1, 2, 3)), clips[0].mean((1, 2, 3)), atol=1.0)


def test_the_second_epoch_reads_no_packets_and_gives_what_it_gives_without_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_motion_videos(tmp_path / "videos", videos_per_class=1, size=SIZE, num_frames=NUM_FRAMES)
    root = tmp_path / "videos"
    monkeypatch.setenv("VIDEOMAE_INDEX", "off")
    plain = make_pretraining(scan_unlabelled(root)), make_finetuning(scan_labelled(root))
    keys = [SampleKey(epoch, index) for epoch in range(2) for index in range(8)]
    wanted = [[content(dataset[key]) for key in keys] for dataset in plain]
    assert not (root / ".videomae").exists()
    monkeypatch.setenv("VIDEOMAE_INDEX", str(tmp_path / "index"))
    opened: list[str] = []
    original = VideoReader._index_packets
    monkeypatch.setattr(VideoReader, "_index_packets", lambda self: (opened.append("x"), original(self))[1])
    for make, scan, expected in (
        (make_pretraining, scan_unlabelled, wanted[0]),
        (make_finetuning, scan_labelled, wanted[1]),
    ):
        dataset = make(scan(root))
        assert [content(dataset[key]) for key in keys] == expected
    assert len(opened) == 8  # fine-tuning finds what pre-training has kept
