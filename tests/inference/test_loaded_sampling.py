"""The clip entry of a model folder: written and read back, assumed aloud where absent, refused where wrong."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from videomae.errors import ConfigError, WeightsError
from videomae.inference.loaded import check_clip, stored_clip
from videomae.model.config import VideoMAEConfig
from videomae.sharing.record import ModelRecord, TrainingRecord, sampling_from, save_record
from videomae.video.sampling import ClipConfig
from videomae.weights.sources import RECORD_FILE

SEGMENT = ClipConfig(num_frames=8, stride=2, kind="segment")
CONFIG = VideoMAEConfig(num_frames=12)


def test_clip_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    save_record(tmp_path, ModelRecord(sampling=SEGMENT, training=TrainingRecord.from_dict({"steps": 3})))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stored_clip(tmp_path / RECORD_FILE, CONFIG, name="net") == SEGMENT


def test_record_without_clip_gives_none() -> None:
    assert sampling_from({"training": {}}) is None


@pytest.mark.parametrize("has_record", [True, False])
def test_network_without_clip_gets_the_published_stride_and_says_so(tmp_path: Path, has_record: bool) -> None:
    save_record(tmp_path, {"training": {}})
    record = tmp_path / RECORD_FILE if has_record else None
    with pytest.warns(
        UserWarning, match=r"^net does .*assuming 12 frames, stride 4; give the clip to choose another"
    ):
        assert stored_clip(record, CONFIG, name="net") == ClipConfig(num_frames=12, stride=4, kind="original")


def test_the_assumption_is_said_once_for_a_network() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for _ in range(3):
            stored_clip(None, CONFIG, name="net")
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"num_frames": 8}, "must be an object with num_frames, stride, kind"),
        ([8, 4, "dense"], "must be an object with num_frames, stride, kind"),
        ({"num_frames": 8, "stride": 4, "kind": "dense", "rate": 3}, "must be an object with"),
        (
            {"num_frames": 8, "stride": 4, "kind": "dense", "fps": "3"},
            "clip.fps is '3'; it must be a number of frames",
        ),
        ({"num_frames": 8, "stride": 4, "kind": "dense", "fps": 0}, "clip.fps is 0"),
        ({"num_frames": "8", "stride": 4, "kind": "dense"}, "clip.num_frames is '8'; it must be a whole number"),
        ({"num_frames": 8, "stride": 0, "kind": "dense"}, "clip.stride is 0"),
        ({"num_frames": 8, "stride": 4, "kind": "sparse"}, "clip.kind is 'sparse'"),
    ],
)
def test_wrong_entry_is_refused_with_file_and_reason(tmp_path: Path, entry: object, message: str) -> None:
    (tmp_path / RECORD_FILE).write_text(json.dumps({"clip": entry}), encoding="utf-8")
    with pytest.raises(WeightsError, match=message) as caught:
        stored_clip(tmp_path / RECORD_FILE, CONFIG, name="net")
    assert str(tmp_path / "videomae.json") in str(caught.value)


def test_clip_that_tubelets_do_not_divide_is_refused() -> None:
    check_clip(ClipConfig(num_frames=6), CONFIG)
    with pytest.raises(ConfigError, match=r"clip\.num_frames is 7, .* tubelets of 2 frames .* use a multiple of 2"):
        check_clip(ClipConfig(num_frames=7), CONFIG)


def test_network_for_other_than_rgb_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes frames of 4 channels, but videos are read as RGB"):
        check_clip(ClipConfig(num_frames=6), VideoMAEConfig(num_frames=12, num_channels=4))
