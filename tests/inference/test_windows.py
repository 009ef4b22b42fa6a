"""Windows over a whole video: where they lie, that frames are read once, and what is left of a file that breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.errors import ConfigError, DamagedVideoError, TruncatedVideoError, VideoReadError
from videomae.inference.clips import clip_batches
from videomae.inference.predictor import Predictor
from videomae.inference.windows import frame_times, open_as_far_as_whole, plan_windows, window_batches
from videomae.video.decode import read_clip
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig
from videomae.video.write import write_video

CLIP = ClipConfig(num_frames=4, stride=3)
RATE = 20.0  # of the video: 30 frames, 1.5 seconds


def test_windows_of_the_models_own_sampling_cover_the_video_and_overlap_by_half(video: Path) -> None:
    with open_reader(video) as reader:
        windows = plan_windows(reader, CLIP)
    assert windows.indices[:, 0].tolist() == [0, 6, 12, 18, 20]
    assert windows.indices[0].tolist() == [0, 3, 6, 9]
    assert windows.indices[-1, -1] == 29
    np.testing.assert_allclose(windows.start_seconds, windows.indices[:, 0] / RATE, atol=1e-6)
    np.testing.assert_allclose(windows.end_seconds, (windows.indices[:, -1] + 1) / RATE, atol=1e-6)
    assert windows.step_seconds == pytest.approx(0.3)


def test_a_window_and_a_step_in_seconds_become_a_stride_and_a_distance_in_frames(video: Path) -> None:
    with open_reader(video) as reader:
        windows = plan_windows(reader, CLIP, window_seconds=1.0, step_seconds=0.1)
        segments = plan_windows(reader, ClipConfig(4, 1, "segment"), window_seconds=1.0, step_seconds=0.1)
    assert np.diff(windows.indices, axis=1).tolist() == [[5, 5, 5]] * len(windows.indices)
    assert windows.indices[:3, 0].tolist() == [0, 2, 4]
    assert segments.indices.tolist() == windows.indices.tolist()


@pytest.mark.parametrize(
    ("clip", "lengths", "message"),
    [
        (CLIP, (2.0, None), r"window is 2 seconds and .*clip\.mp4 has 1\.50: give a --window of at most 1\.50"),
        (
            CLIP,
            (0.1, None),
            r"window is 0\.1 seconds, in which .* has 2 frames, and the model takes 4: .* least 0\.20",
        ),
        (CLIP, (0.0, None), "window is 0; it is in seconds, above 0, such as --window 2"),
        (CLIP, (None, 0.0), "step is 0; it is in seconds, above 0, such as --step 2"),
        (CLIP, (None, float("inf")), "step is inf; it is in seconds"),
        (ClipConfig(4, 1, "segment"), (None, None), "spread over whole videos .*: give --window, in seconds"),
    ],
)
def test_lengths_that_cannot_be_are_refused_with_what_to_give(
    video: Path, clip: ClipConfig, lengths: tuple[float | None, float | None], message: str
) -> None:
    with open_reader(video) as reader, pytest.raises(ConfigError, match=message):
        plan_windows(reader, clip, window_seconds=lengths[0], step_seconds=lengths[1])


def test_each_frame_is_read_once_and_batches_are_those_of_each_alone(classifier_folder: Path, video: Path) -> None:
    processor = Predictor(classifier_folder, device="cpu").processor
    asked: list[int] = []
    with open_reader(video) as reader:
        windows = plan_windows(reader, CLIP, step_seconds=0.15)
        alone = [next(clip_batches(reader.frames, row[None], processor, batch_size=1)) for row in windows.indices]

        def read(wanted: np.ndarray) -> np.ndarray:
            asked.extend(wanted.tolist())
            return reader.frames(wanted)

        found = list(clip_batches(read, windows.indices, processor, batch_size=2))
        later = list(window_batches(reader, windows, processor, batch_size=2, first=4))
    assert torch.equal(torch.cat(found), torch.cat(alone))
    assert sorted(asked) == np.unique(windows.indices).tolist()
    assert [batch.first for batch in later] == list(range(4, len(windows.indices), 2))
    assert torch.equal(torch.cat([batch.clips for batch in later]), torch.cat(alone[4:]))


@pytest.fixture(scope="module")
def cut(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video without the last third of its bytes; the index of its frames stands in front, and is whole."""
    import av

    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    with av.open(str(video)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def test_a_video_that_was_cut_off_is_read_as_far_as_it_goes_and_marked(video: Path, cut: Path) -> None:
    with pytest.raises(TruncatedVideoError):
        open_reader(cut)
    with open_as_far_as_whole(cut) as (reader, fault), open_reader(video) as whole:
        assert fault is not None
        assert "is truncated: it promises 30 frames" in fault
        assert 10 < len(reader) < 25
        assert np.array_equal(reader.frames(range(len(reader) - 1)), whole.frames(range(len(reader) - 1)))
    with open_as_far_as_whole(video) as (reader, fault):
        assert (len(reader), fault) == (30, None)


def test_of_a_file_with_a_hole_in_the_middle_the_frames_that_decode_are_read_and_it_is_marked(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (120, 12, 16, 3), dtype=np.uint8)
    path = tmp_path / "hole.mp4"
    write_video(path, noise.repeat(4, axis=1).repeat(4, axis=2), frame_rate=20.0)
    whole = read_clip(path, [0, 30, 119])
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 8
    content[middle : middle + length] = bytes(length)
    path.write_bytes(content)
    with pytest.raises(DamagedVideoError, match=r"is damaged: 120 packets give only"), open_reader(path) as reader:
        len(reader)
    with open_as_far_as_whole(path) as (reader, fault):
        assert fault is not None
        assert "is damaged: 120 packets give only" in fault
        assert 100 <= len(reader) < 120
        assert (reader.frames([0, 30, len(reader) - 1]) == whole).all()
        assert reader.timestamps_seconds[-1] == pytest.approx(119 / 20)  # what is lost is a gap in time


def test_a_file_of_which_nothing_can_be_read_is_an_error(bad_video: Path) -> None:
    with pytest.raises(VideoReadError, match=r"bad\.mp4"), open_as_far_as_whole(bad_video):
        pass


def test_a_failed_read_comes_out_where_the_batches_are_taken(classifier_folder: Path, video: Path) -> None:
    processor = Predictor(classifier_folder, device="cpu").processor
    with open_reader(video) as reader:
        windows = plan_windows(reader, CLIP)
        windows.indices[3] += 100
        batches = window_batches(reader, windows, processor, batch_size=1)
        assert [next(batches).first for _ in range(3)] == [0, 1, 2]
        with pytest.raises(VideoReadError, match="frame 118 was asked"):
            next(batches)


def test_last_frame_ends_after_the_usual_time() -> None:
    starts, ends = frame_times(np.array([0.0, 0.1, 0.2, 0.5]), 10.0)
    np.testing.assert_allclose(ends, [0.1, 0.2, 0.5, 0.6])
    assert starts.tolist() == [0.0, 0.1, 0.2, 0.5]
    assert frame_times(np.array([0.0]), 25.0)[1].tolist() == [0.04]
    assert frame_times(np.array([0.0]), None)[1].tolist() == [0.0]
