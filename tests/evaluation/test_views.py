"""Views: what is read from real files, against cutting every view out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.errors import ConfigError, VideoReadError
from videomae.evaluation.views import View, ViewsConfig, check_views, read_views
from videomae.inference.clips import FRAMES_AT_ONCE
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.decode import VideoReader, read_clip
from videomae.video.sampling import ClipConfig, centre_clip, crop_views, view_clips
from videomae.video.write import write_video

UNSCALED = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}


@pytest.mark.parametrize("kind", ["dense", "segment"])
@pytest.mark.parametrize("name", ["0.mp4", "1.mp4"])
def test_views_are_those_of_the_protocol_cut_out_by_hand(
    videos: Path, processor: VideoMAEImageProcessor, kind: str, name: str
) -> None:
    path = videos / "run" / name
    clip = ClipConfig(num_frames=4, stride=3, kind=kind)  # type: ignore[arg-type]
    views = read_views(path, clip=clip, views=ViewsConfig(num_clips=3, num_crops=3), processor=processor)
    with VideoReader(path) as reader:
        rows = view_clips(len(reader), clip, num_views=3)
    expected: list[torch.Tensor] = []
    for row in rows:
        whole = processor(read_clip(path, row), do_center_crop=False, **UNSCALED).pixel_values[0]
        height, width = whole.shape[-2:]
        for top, left in crop_views(height, width, size=32, num_crops=3):
            expected.append(whole[:, :, top : top + 32, left : left + 32])
    found = [views.pixels(view) for view, count in views.counts.items() for _ in range(count)]
    assert len(found) == len(expected) == 9
    key = lambda clip: clip.numpy().tobytes()  # noqa: E731
    for one, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
        assert one.dtype == torch.uint8
        assert torch.equal(one, other)


def test_one_view_is_the_middle_clip_with_the_processors_own_crop(
    videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    path = videos / "cut" / "0.mp4"
    views = read_views(path, clip=clip, views=ViewsConfig(num_clips=1, num_crops=1), processor=processor)
    ((view, count),) = views.counts.items()
    assert count == 1
    expected = processor(read_clip(path, centre_clip(30, clip)), **UNSCALED).pixel_values[0]
    assert torch.equal(views.pixels(view), expected)


def test_every_frame_is_read_once_and_few_at_a_time(
    videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    resized: list[int] = []
    read, steps = VideoReader.frames_in_order, VideoMAEImageProcessor.frame_steps

    def noted(self: VideoReader, indices: np.ndarray, *, threads: int = 1) -> Iterator[np.ndarray]:
        calls.append(list(indices))
        return read(self, indices, threads=threads)

    def counted(self: VideoMAEImageProcessor, **settings: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        apply = steps(self, **settings)
        return lambda frames: (resized.append(len(frames)), apply(frames))[1]

    monkeypatch.setattr(VideoReader, "frames_in_order", noted)
    monkeypatch.setattr(VideoMAEImageProcessor, "frame_steps", counted)
    views = read_views(videos / "cut" / "0.mp4", clip=clip, views=ViewsConfig(12, 3), processor=processor)
    (taken,) = calls
    assert taken == sorted(set(taken)), "in one pass over the video"
    assert max(resized) == FRAMES_AT_ONCE
    assert sum(resized) == len(taken)
    assert sum(views.counts.values()) == 36
    assert len(views.frames) == len(taken) < 12 * 4


def test_some_of_the_clips_need_only_their_own_frames(
    videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    path, settings = videos / "cut" / "0.mp4", ViewsConfig(num_clips=5, num_crops=3)
    whole = read_views(path, clip=clip, views=settings, processor=processor)
    parts = [
        read_views(path, clip=clip, views=settings, processor=processor, clips=clips)
        for clips in (range(2), range(2, 4), range(4, 6))
    ]
    assert [sum(part.counts.values()) for part in parts] == [6, 6, 3]
    assert len(parts[0].frames) < len(whole.frames)
    pixels = lambda views: [views.pixels(view) for view, count in views.counts.items() for _ in range(count)]  # noqa: E731
    found = sorted(one.numpy().tobytes() for part in parts for one in pixels(part))
    assert found == sorted(one.numpy().tobytes() for one in pixels(whole))


def test_views_that_coincide_are_kept_once_with_their_number(
    tmp_path: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    path = tmp_path / "square.mp4"
    write_video(path, np.zeros((3, 40, 40, 3), dtype=np.uint8))
    views = read_views(path, clip=clip, views=ViewsConfig(num_clips=5, num_crops=3), processor=processor)
    assert list(views.counts.values()) == [15]


def test_frames_beyond_one_chunk_keep_their_order(tmp_path: Path, processor: VideoMAEImageProcessor) -> None:
    path = tmp_path / "ramp.mp4"
    write_video(path, np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3) * 6)
    clip = ClipConfig(num_frames=40, stride=1)
    views = read_views(path, clip=clip, views=ViewsConfig(num_clips=2, num_crops=1), processor=processor)
    (view,) = views.counts
    means = views.pixels(view).float().mean(dim=(1, 2, 3))
    assert torch.equal(means.argsort(), torch.arange(40))


def test_unreadable_video_raises_the_readers_error(
    tmp_path: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        read_views(path, clip=clip, views=ViewsConfig(), processor=processor)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"do_center_crop": False}, "the processor does not crop: use views.num_crops 1"),
        ({"crop_size": (32, 16)}, "crops to 32x16, which is no square"),
        ({"do_resize": False}, "resizes nothing, so that frames may be smaller than its crop of 32"),
        ({"size": 24}, r"resizes to \{'shortest_edge': 24\}, so that frames may be smaller than its crop of 32"),
    ],
)
def test_processor_that_leaves_no_room_for_several_crops_is_refused(settings: dict[str, object], reason: str) -> None:
    processor = VideoMAEImageProcessor(**{"size": 32, "crop_size": 32, **settings})  # type: ignore[arg-type]
    check_views(processor, ViewsConfig(num_clips=5, num_crops=1))
    with pytest.raises(ConfigError, match=reason):
        check_views(processor, ViewsConfig(num_clips=1, num_crops=3))


@pytest.mark.parametrize("name", ["num_clips", "num_crops"])
def test_fewer_than_one_view_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"views\.{name} is 0; at least one view is needed"):
        ViewsConfig(**{name: 0})


def test_views_with_the_same_frames_and_place_are_equal() -> None:
    assert View((0, 1), (2, 3)) == View((0, 1), (2, 3)) != View((0, 1), (2, 4))  # type: ignore[arg-type]
