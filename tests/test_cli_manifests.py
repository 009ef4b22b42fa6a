"""Manifest files wherever the command takes a folder: training, evaluation, prediction, features, probe."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from videomae.cli import main
from videomae.inference.features import load_features
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.sampling import ClipConfig

SIZES = {
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
FRAMES = "num_frames"
TRAINING = [
    *(
        f"--model.overrides.{name}={value}"
        for name, value in SIZES.items()
        if name not in ("image_size", "num_frames")
    ),
    *("--config", "tiny", "--model.image_size", "32", "--clip.num_frames", "4", "--clip.stride", "1"),
    *("--schedule.steps", "2", "--loop.batch_size", "2", "--loop.workers", "0"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny classifier of left and right."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    VideoMAEForVideoClassification(VideoMAEConfig(**SIZES, id2label={0: "left", 1: "right"})).save_pretrained(folder)
    size = {"shortest_edge": 32}
    VideoMAEImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=ClipConfig(num_frames=4, stride=1)))
    return str(folder)


@pytest.fixture
def parts(tmp_path: Path, labelled_folder: Path) -> Path:
    """A manifest of parts, a third of a second each, of six videos of 24 frames that are elsewhere."""
    rows = []
    for number, path in enumerate(sorted(labelled_folder.rglob("*.mp4"))):
        for part in range(2):
            start = part * 0.4
            split = "test" if number % 3 == 2 else "train"
            rows.append([path, path.parent.name, start, start + 0.32, f"g{number}", split, "x"])
    with (tmp_path / "parts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "start", "end", "group", "split", "note"], *rows])
    return tmp_path / "parts.csv"


def test_finetune_trains_on_a_manifest_and_keeps_its_test_rows(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--evaluation.workers", "0", "--init", "null", *TRAINING, "--out", str(out)]
    assert main(["finetune", str(parts), *words]) == 0
    told = capsys.readouterr()
    assert f"videos: 8 of the 12 in {parts}; the others are of another split" in told.out
    assert "warning" not in told.err
    videos = [row["path"] for row in json.loads((out / "evaluation.json").read_text())["videos"]]
    assert len(videos) == 4
    assert all("#t=0" in name for name in videos), "each row is a part of a video"
    assert len({name.partition("#")[0] for name in videos}) == 2, "the parts of a group are on one side"
    assert main(["evaluate", str(out), str(parts), "--workers", "0", "--out", str(tmp_path / "test.json")]) == 0
    assert "evaluating the 4 videos of the split test of" in capsys.readouterr().err
    tested = [row["path"] for row in json.loads((tmp_path / "test.json").read_text())["videos"]]
    assert {name.partition("#")[0].rpartition("/")[2] for name in tested} == {"2.mp4"}
    assert main(["evaluate", str(out), str(parts), "--workers", "0", "--split", "all"]) == 0
    assert "split" not in capsys.readouterr().err


def test_finetune_says_once_that_recordings_may_leak_where_nothing_names_groups(
    labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--evaluation.workers", "0", "--init", "null", *TRAINING, "--out", str(tmp_path / "run")]
    assert main(["finetune", str(labelled_folder), *words]) == 0
    err = capsys.readouterr().err
    assert err.count("clips of one recording may be in training and in validation") == 1
    assert main(["finetune", str(labelled_folder), "--data.val", str(labelled_folder), *words, "--overwrite"]) == 0
    assert "recording" not in capsys.readouterr().err


def test_pretrain_takes_the_training_rows_of_a_manifest(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAINING, "--mask.ratio", "0.75", "--out", str(tmp_path / "run")]
    assert main(["pretrain", str(parts), *words]) == 0
    assert f"videos: 8 of the 12 in {parts}" in capsys.readouterr().out


def test_predict_and_features_take_their_frames_from_within_the_rows(
    model: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, str(parts), "--json", "--num_views", "2"]) == 0
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert len(predictions) == 12
    for one in predictions:
        first, last = (0, 8) if one["path"].endswith("#t=0,0.32") else (10, 18)
        assert all(first <= index < last for view in one["frame_indices"] for index in view)
        assert all(first / 25 - 1e-6 <= time < last / 25 for view in one["frame_seconds"] for time in view)
    out = tmp_path / "f.safetensors"
    assert main(["features", model, str(parts), "--out", str(out), "--step_frames", "2"]) == 0
    for video in load_features(out).videos:
        first, last = (0, 8) if video.path.endswith("#t=0,0.32") else (10, 18)
        assert (int(video.frame_indices.min()), int(video.frame_indices.max())) == (first, last - 1)
        assert float(video.time_spans.min()) == pytest.approx(first / 25)


def test_a_part_may_be_named_on_the_command_line(
    model: str, labelled_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{labelled_folder}/left/0.mp4#t=0.4,0.72"
    assert main(["predict", model, name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["path"] == name
    assert main(["predict", model, f"{labelled_folder}/left/0.mp4#t=30,40"]) == 2
    assert "has no frame from second 30 to second 40" in capsys.readouterr().err


def test_missing_videos_of_a_manifest_are_named_and_do_not_stop_a_prediction(
    model: str, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.csv"
    path.write_text(f"path\n{labelled_folder}/left/0.mp4\ngone.mp4\n")
    assert main(["predict", model, str(path)]) == 2
    told = capsys.readouterr()
    assert "0.mp4" in told.out
    assert "gone.mp4" in told.err
    path.write_text("nothing\n1\n")
    assert main(["predict", model, str(path)]) == 2
    assert "two.csv has no column path" in capsys.readouterr().err


def test_a_probe_takes_a_manifest_with_its_groups(
    model: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", model, str(parts), "--out", str(tmp_path / "probe"), "--workers", "1", "--attentive", "false"]
    assert main(["probe", *words]) == 0
    assert "videos: 12 in 6 groups, 2 classes: left 6, right 6" in capsys.readouterr().err


def test_a_manifest_of_several_labels_is_refused_where_one_is_needed(
    model: str, labelled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "several.csv"
    path.write_text(f"path,labels\n{labelled_folder}/left/0.mp4,left;right\n")
    for words in (["evaluate", model, str(path)], ["probe", str(path), "--out", str(tmp_path / "run")]):
        assert main(words) == 2
        assert "has 2 labels, left;right: here one is taken for each video" in capsys.readouterr().err


def test_folders_of_pictures_are_trained_on_and_evaluated(
    tiny_frames: NDArray[np.uint8], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "frames"
    for number in range(6):
        folder = data / ("left" if number % 2 else "right") / f"clip {number}"
        folder.mkdir(parents=True)
        for frame in range(8):
            Image.fromarray(tiny_frames[number + frame]).save(folder / f"img_{frame + 1:05}.jpg")
    words = ["--evaluation.workers", "0", "--init", "null", *TRAINING, "--out", str(tmp_path / "run")]
    assert main(["finetune", str(data), "--data.val", str(data), *words]) == 0
    words = [*TRAINING, "--mask.ratio", "0.75", "--out", str(tmp_path / "pre")]
    assert main(["pretrain", str(data), *words]) == 0
    (data / "left" / "clip 1" / "img_00003.jpg").unlink()
    capsys.readouterr()
    assert main(["predict", model, str(data)]) == 2
    told = capsys.readouterr()
    assert "clip 1 has no picture of number 3, between img_00002.jpg and img_00004.jpg" in told.err
    assert told.out.count("clip ") == 5
