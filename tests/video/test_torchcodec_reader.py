"""torchcodec gives the frames of PyAV, or PyAV gives them; skipped where it is not installed, as on CI's machines."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from odd_videos import damaged, encode_video, turn
from videomae.cli import main
from videomae.data.augment import AugmentConfig
from videomae.data.datasets import ClipSample, FinetuningDataset, SampleKey
from videomae.data.scan import scan_labelled
from videomae.errors import ConfigError, VideoReadError
from videomae.video import torchcodec_reader
from videomae.video.decode import VideoReader
from videomae.video.decoders import check_decoder
from videomae.video.opening import open_reader
from videomae.video.sampling import ClipConfig
from videomae.video.torchcodec_reader import TorchcodecReader

try:
    check_decoder("torchcodec")
except ConfigError as error:
    pytest.skip(f"torchcodec is not tested: {error}", allow_module_level=True)

ONE = 1 << 16
GROUPS = {"g": "12", "bf": "3", "sc_threshold": "0"}
IRREGULAR = [0, 40, 55, 200, 210, 400, 480, 1000, 1010, 1500, *range(1600, 2400, 40)]
QUARTER_TURN = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30]
MIRROR = [-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30]
X265 = {"x265-params": "keyint=12:open-gop=1:log-level=none"}

SAME = {
    "bframes.mp4": {"options": GROUPS},
    "open_groups.mp4": {"options": {**GROUPS, "x264-params": "open-gop=1:b-pyramid=normal"}},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "irregular.mp4": {"times": IRREGULAR},
    "irregular.mkv": {"times": IRREGULAR},
    "late.mp4": {"times": [5000 + 40 * number for number in range(30)]},
    "full_range_709.mp4": {"options": {"x264-params": "colormatrix=bt709:fullrange=on"}},
    "limited_2020.mp4": {"options": {"x264-params": "colormatrix=bt2020nc"}},
    "444.mp4": {"pix_fmt": "yuv444p"},
    "turned.mp4": {"options": GROUPS},
}
LEFT_TO_PYAV = {
    "short.avi": ({"codec": "mpeg4"}, "its container is avi"),
    "short.ts": ({"options": GROUPS}, "its container is mpegts"),
    "refreshed.mp4": (
        {"options": {"x264-params": "intra-refresh=1:keyint=15"}, "num_frames": 80},
        "frames? |in place of",
    ),
    "interlaced.mp4": ({"options": {"x264-params": "tff=1:bframes=2"}}, "its packets alone do not tell"),
    "mirrored.mp4": ({}, "it is to be mirrored"),
}


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchcodec_reader, "_LEFT", [0])


def alike(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> bool:
    """But for the rounding of another version of FFmpeg; neighbouring frames are some 20 grey levels apart."""
    return one.shape == two.shape and np.abs(one.astype(int) - two).mean() < 0.5


def read_alike(path: Path) -> Iterator[bool]:
    """Whether both readers agree: shuffled with repeats, spread, and in order from the middle on."""
    with VideoReader(path) as plain, TorchcodecReader(path) as other:
        order = np.random.default_rng(0).permutation(len(plain))
        for chosen in (order, np.append(order[:5], order[:2]), order[:1], np.sort(order[:6])):
            yield alike(other.frames(chosen), plain.frames(chosen))
        rest = range(len(plain) // 2, len(plain))
        in_order = zip(other.frames_in_order(rest), plain.frames_in_order(rest), strict=True)
        yield all(alike(one, two) for one, two in in_order)
        yield np.array_equal(other.timestamps_seconds, plain.timestamps_seconds)


@pytest.mark.parametrize("name", SAME)
def test_frames_are_those_of_pyav(tmp_path: Path, name: str) -> None:
    path = encode_video(tmp_path / name, **SAME[name])
    if name == "turned.mp4":
        turn(path, QUARTER_TURN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left to PyAV
        assert all(read_alike(path))


@pytest.mark.parametrize("name", LEFT_TO_PYAV)
def test_what_torchcodec_may_read_wrong_is_left_to_pyav_which_is_said_once(tmp_path: Path, name: str) -> None:
    settings, reason = LEFT_TO_PYAV[name]
    path = encode_video(tmp_path / name, **settings)
    if name == "mirrored.mp4":
        turn(path, MIRROR)
    with pytest.warns(UserWarning, match=f"is read by PyAV instead of torchcodec.*: .*({reason}).*1 so far") as told:
        assert all(read_alike(path))
    with TorchcodecReader(path) as reader:
        reader.frames(range(len(reader)))
    assert len(told) == 1


def test_frames_are_numbered_anew_where_one_is_damaged(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "whole.mp4", options={**GROUPS, "bf": "0"})
    path = damaged(whole, tmp_path / "damaged.mp4", packet=20)
    with VideoReader(path) as plain, TorchcodecReader(path) as other:
        for chosen in ([3, 14], [5, 22], [28]):
            assert len(other) == len(plain)
            with warnings.catch_warnings(record=True) as told:
                assert alike(other.frames(chosen), plain.frames(chosen))
            assert len(told) == (chosen == [5, 22])
        assert len(other) == 29


def test_ten_bits_differ_by_rounding(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "ten.mkv", pix_fmt="yuv420p10le")
    with VideoReader(path) as plain, TorchcodecReader(path) as other:
        assert np.abs(other.frames(range(30)).astype(int) - plain.frames(range(30))).mean() < 4  # it is all noise


def test_scaled_frames_are_full_frames_resized(tmp_path: Path, tiny_video: Path) -> None:
    path = tmp_path / "turned.mp4"
    path.write_bytes(tiny_video.read_bytes())
    turn(path, QUARTER_TURN)
    with TorchcodecReader(path) as reader:
        frames = reader.frames([5, 3, 5], size=(40, 20))
        for frame, whole in zip(frames, reader.frames([5, 3, 5]), strict=True):
            expected = Image.fromarray(whole).resize((20, 40), Image.Resampling.BILINEAR)
            assert np.abs(frame.astype(int) - np.asarray(expected)).mean() < 1
        with pytest.raises(ConfigError, match=r"size is \(0, 40\)"):
            reader.frames([5], size=(0, 40))


def test_bytes_open_files_and_parts_are_read(tiny_video: Path) -> None:
    with VideoReader(tiny_video) as plain, tiny_video.open("rb") as file:
        expected = plain.frames([12, 39])
        for video in (tiny_video.read_bytes(), file):
            with open_reader(video, decoder="torchcodec") as reader:
                assert alike(reader.frames([12, 39]), expected)
        with open_reader(f"{tiny_video}#t=0.4,1.6", decoder="torchcodec") as reader:
            assert alike(reader.frames([2, len(reader) - 1]), plain.frames([12, 39]))


def test_a_frame_that_is_not_there_and_a_closed_reader_are_errors(tiny_video: Path) -> None:
    with TorchcodecReader(tiny_video) as reader:
        with pytest.raises(VideoReadError, match=r"frame 40 was asked of .* which has frames 0 to 39"):
            reader.frames([3, 40])
        frames = reader.frames_in_order([38, 40])
        assert next(frames).shape == (48, 64, 3)
        with pytest.raises(VideoReadError, match="frame 40 was asked of"):
            next(frames)
    with pytest.raises(VideoReadError, match="was closed"):
        reader.frames([3])


def test_training_samples_and_predictions_are_the_same(
    labelled_folder: Path, classifier_folder: Path, tiny_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"clip": ClipConfig(num_frames=4, stride=2), "size": 32, "augment": AugmentConfig(), "seed": 0}
    manifest = scan_labelled(labelled_folder)
    one, other = (
        FinetuningDataset(manifest, decoder=name, **settings)[SampleKey(0, 1)] for name in ("pyav", "torchcodec")
    )
    assert isinstance(one, ClipSample)
    assert isinstance(other, ClipSample)
    assert alike(one.clip.numpy(), other.clip.numpy())
    said = []
    for decoder in ("pyav", "torchcodec"):
        assert main(["predict", str(classifier_folder), str(tiny_video), "--json", "--decoder", decoder]) == 0
        said.append(json.loads(capsys.readouterr().out)["predictions"][0])
    assert said[0]["frame_indices"] == said[1]["frame_indices"]
    assert said[0]["probabilities"] == pytest.approx(said[1]["probabilities"], abs=0.01)


@pytest.mark.skipif("+cpu" not in sys.modules["torchcodec"].__version__, reason="this torchcodec has CUDA")
def test_a_build_without_cuda_is_refused_where_a_gpu_is_to_decode(tiny_video: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch finds no CUDA device|is built without CUDA"):
        check_decoder("torchcodec-cuda")
