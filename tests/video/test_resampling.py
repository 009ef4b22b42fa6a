"""Videos at a frame rate of one's choice: one action looks alike whatever the camera's rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from videomae.data.augment import AugmentConfig
from videomae.data.datasets import ClipSample, FinetuningDataset, SampleKey
from videomae.data.scan import scan_labelled
from videomae.errors import ConfigError, VideoReadError
from videomae.video.opening import open_reader, part_name, stored_frames
from videomae.video.sampling import ClipConfig, clip_indices
from videomae.video.write import write_video

SECONDS = 2
WIDTH = 64


def bar_at(second: float) -> np.ndarray:
    """A frame whose brightness left of a bar tells the time: the bar crosses in two seconds."""
    frame = np.full((WIDTH, WIDTH, 3), 20, dtype=np.uint8)
    frame[:, : round(WIDTH * second / SECONDS)] = 230
    return frame


@pytest.fixture
def filmed(tmp_path: Path) -> Callable[[int], Path]:
    def film(rate: int) -> Path:
        path = tmp_path / f"class/{rate}.mp4"
        path.parent.mkdir(exist_ok=True)
        frames = np.stack([bar_at(number / rate) for number in range(SECONDS * rate)])
        write_video(path, frames, frame_rate=rate)
        return path

    return film


def bars(frames: np.ndarray) -> np.ndarray:
    """Where the bar ends in each frame, in pixels."""
    return (frames[:, 24, :, 1] > 128).sum(axis=1)


def test_one_action_filmed_at_15_and_at_60_frames_a_second_gives_like_clips(filmed: Callable[[int], Path]) -> None:
    clip = ClipConfig(num_frames=8, stride=3, fps=15)
    found = []
    for rate in (15, 60):
        with open_reader(filmed(rate), fps=clip.fps) as reader:
            assert len(reader) == 30
            found.append(bars(reader.frames(clip_indices(len(reader), clip)[0])))
    assert np.abs(found[0] - found[1]).max() <= 1
    with open_reader(filmed(60)) as reader:  # the same sampling of the file's own frames sees a quarter of it
        own = bars(reader.frames(clip_indices(len(reader), clip)[0]))
    assert np.ptp(own) < 0.4 * np.ptp(found[0])


def test_a_lower_rate_repeats_frames_and_a_higher_one_leaves_some_out(filmed: Callable[[int], Path]) -> None:
    with open_reader(filmed(15), fps=30) as reader:
        assert len(reader) == 59  # from the first frame to the last, both included
        assert stored_frames(reader, np.arange(5)).tolist() == [0, 0, 1, 1, 2]
        assert reader.timestamps_seconds[:3].tolist() == pytest.approx([0, 1 / 30, 2 / 30])
        every = np.stack(list(reader.all_frames()))
        assert np.array_equal(every, reader.frames(np.arange(59)))
    with open_reader(filmed(60), fps=15) as reader:
        assert stored_frames(reader, np.arange(4)).tolist() == [0, 4, 8, 12]
        assert np.array_equal(np.stack(list(reader.all_frames())), reader.frames(np.arange(len(reader))))
    with open_reader(filmed(15), fps=15) as reader:
        assert stored_frames(reader, np.arange(len(reader))).tolist() == list(range(30))


def test_a_part_is_resampled_from_its_first_frame(filmed: Callable[[int], Path]) -> None:
    with open_reader(part_name(filmed(60), 1.0, 1.5), fps=15) as reader:
        assert stored_frames(reader, np.arange(len(reader))).tolist() == [60, 64, 68, 72, 76, 80, 84, 88]
        assert reader.timestamps_seconds[0] == pytest.approx(1.0)


def test_a_tick_that_is_not_there_and_a_rate_of_nothing_are_refused(filmed: Callable[[int], Path]) -> None:
    with open_reader(filmed(60), fps=15) as reader, pytest.raises(VideoReadError, match=r"frame 30 .* 0 to 29 at"):
        reader.frames([30])
    for fps in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"clip\.fps is .*a number of frames a second"):
            ClipConfig(fps=fps)


def test_training_reads_at_the_rate_of_its_clips(filmed: Callable[[int], Path]) -> None:
    for rate in (15, 60):
        filmed(rate)
    manifest = scan_labelled(filmed(15).parents[1], subset=True)
    spans = []
    for fps in (15.0, None):
        clip = ClipConfig(num_frames=4, stride=4, fps=fps)
        data = FinetuningDataset(
            manifest, clip=clip, size=32, augment=AugmentConfig(crop="centre", flip=False), seed=0
        )
        samples = [data[SampleKey(0, index)] for index in range(2)]
        assert all(isinstance(sample, ClipSample) for sample in samples)
        lit = [(sample.clip[:, 1, 16] > 128).sum(dim=1) for sample in samples if isinstance(sample, ClipSample)]
        spans.append([int(row[-1] - row[0]) for row in lit])
    assert abs(spans[0][0] - spans[0][1]) <= 2
    assert spans[1][1] < 0.5 * spans[1][0]
