"""A prepared video has every frame of its source at its own time, turned and even, and looks like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import QUARTER_TURN, audio_only

from odd_videos import encode_video, turn
from videomae.collection.configs import PrepareConfig
from videomae.collection.quality import luma_psnr
from videomae.collection.transcode import PreparedPart, PrepareJob, part_starts, prepare_file, prepared_size
from videomae.errors import ConfigError, NoVideoError
from videomae.video.decode import VideoReader
from videomae.video.probe import probe

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"
LATE = [40 * number + (23 if number % 3 else 0) for number in range(30)]


def prepared(source: Path, **settings: float) -> list[PreparedPart]:
    target = source.with_name(f"{source.stem}_prepared.mp4")
    return prepare_file(PrepareJob(source, target, PrepareConfig(**settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {"options": {"g": "12", "bf": "3"}}),
        ("variable.mkv", {"times": LATE}),
        ("variable.mp4", {"times": LATE, "options": {"bf": "2"}}),
        ("coarse.avi", {"codec": "mpeg4"}),
        ("program.mpg", {"codec": "mpeg2video"}),
        ("transport.ts", {}),
        ("flash.flv", {"codec": "flv1"}),
        ("pictures.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
        ("full_range.mp4", {"pix_fmt": "yuvj420p"}),
        ("odd.mp4", {"size": (47, 63), "pix_fmt": "yuv444p"}),
    ],
)
def test_every_frame_is_there_at_its_own_time(tmp_path: Path, name: str, settings: dict) -> None:
    source = encode_video(tmp_path / name, **settings)
    (part,) = prepared(source, crf=10)
    with VideoReader(source) as before, VideoReader(part.path) as after:
        assert len(after) == len(before) == part.num_frames
        np.testing.assert_allclose(after.timestamps_seconds, before.timestamps_seconds, atol=1e-6)
        assert (after.info.width, after.info.height) == (before.info.width // 2 * 2, before.info.height // 2 * 2)
        # The colors of a GIF and of odd sizes change with the subsampling; the luma is compared below.
        if name not in ("pictures.gif", "odd.mp4"):
            difference = after.frames([7]).astype(float) - before.frames([7])
            assert np.square(difference).mean() < 255**2 / 10 ** (25 / 10)  # 25 dB, of noise in RGB
    assert part.size_bytes == part.path.stat().st_size
    assert luma_psnr(source, part.path) > 35


def test_a_turned_video_is_stored_as_it_is_shown(tmp_path: Path) -> None:
    source = turn(encode_video(tmp_path / "a.mp4", options={"crf": "10"}), QUARTER_TURN)
    (part,) = prepared(source, crf=10)
    with VideoReader(source) as before, VideoReader(part.path) as after:
        assert (before.info.rotation_degrees, after.info.rotation_degrees) == (90, 0)
        assert (after.info.width, after.info.height) == (before.info.width, before.info.height) == (48, 64)
        difference = after.frames([7]).astype(float) - before.frames([7])
    assert np.square(difference).mean() < 255**2 / 10 ** (25 / 10)


def test_sound_is_dropped_and_every_frame_is_a_keyframe(tmp_path: Path) -> None:
    (part,) = prepared(encode_video(tmp_path / "a.mp4"))
    info = probe(part.path)
    assert (info.codec, info.has_audio, info.num_frames_claimed) == ("h264", False, 30)
    with VideoReader(part.path) as reader:
        assert len(reader._known_index().seek_frames) == 30
    with pytest.raises(NoVideoError):
        prepared(audio_only(tmp_path / "sound.mp4"))
    assert not (tmp_path / "sound_prepared.mp4").exists()


def test_the_same_video_gives_the_same_bytes(tmp_path: Path) -> None:
    source = encode_video(tmp_path / "a.mp4", num_frames=12)
    first = prepared(source)[0].path.read_bytes()
    assert prepared(source)[0].path.read_bytes() == first


def test_a_long_video_is_split_into_equal_parts(tmp_path: Path) -> None:
    source = encode_video(tmp_path / "a.mp4", num_frames=30)  # 1.2 seconds
    parts = prepared(source, split_seconds=0.5)
    assert [part.path.name for part in parts] == [f"a_prepared_part000{number}.mp4" for number in range(3)]
    assert [part.num_frames for part in parts] == [10, 10, 10]
    with VideoReader(parts[1].path) as part, VideoReader(source) as whole:
        np.testing.assert_allclose(part.timestamps_seconds, np.arange(10) / 25, atol=1e-6)
        assert np.abs(part.frames([0]).astype(float) - whole.frames([10])).mean() < 12
    assert [part.path.name for part in prepared(source, split_seconds=1.2)] == ["a_prepared.mp4"]


def test_parts_without_a_frame_are_not_made() -> None:
    assert part_starts([0.0, 0.1, 0.2, 5.0], 1.0) == pytest.approx([0.0, 5.0 + 5.0 / 3 - 5.0 - 0.0], abs=10)
    assert part_starts([0.0], 1.0) == [0.0]
    assert part_starts([0.0, 1.0, 2.0, 3.0], None) == [0.0]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((340, 256), (340, 256)), ((1920, 1080), (456, 256)), ((1080, 1920), (256, 456)), ((161, 121), (160, 120))],
)
def test_frames_are_scaled_to_the_short_side_and_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert prepared_size(*size, 256) == expected


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared videos are not beside the project")
@pytest.mark.slow
def test_the_shared_odd_files_keep_their_frames_and_times(tmp_path: Path) -> None:
    count = 0
    for source in sorted((SHARED / "edge_cases").iterdir()):
        if source.name in ("README.md", "sample_ac3.ts", "sample_malformed_free_box.mp4", "invalid-bitstream.webm"):
            continue
        (part,) = prepare_file(PrepareJob(source, tmp_path / f"{source.name}.mp4", PrepareConfig(gop=8)))
        with VideoReader(source) as before, VideoReader(part.path) as after:
            assert len(after) == len(before)
            np.testing.assert_allclose(after.timestamps_seconds, before.timestamps_seconds, atol=1e-6)
        assert luma_psnr(source, part.path) > 25
        count += 1
    assert count == 19


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="short_side is 8; it is in pixels"):
        PrepareConfig(short_side=8)
    with pytest.raises(ConfigError, match="crf is 60; it goes from 0"):
        PrepareConfig(crf=60)
    with pytest.raises(ConfigError, match="gop is 0"):
        PrepareConfig(gop=0)
    with pytest.raises(ConfigError, match="split_seconds is 0"):
        PrepareConfig(split_seconds=0)
