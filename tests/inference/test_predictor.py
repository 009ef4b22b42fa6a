"""Predictions of a real classifier: which frames, which numbers, and what happens to bad files."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from videomae.data.manifest import Manifest, VideoRow
from videomae.errors import ConfigError, RunError, VideoReadError
from videomae.evaluation.evaluator import evaluate
from videomae.evaluation.results import EvaluationConfig
from videomae.evaluation.views import ViewsConfig
from videomae.inference.predict_files import predict_files, print_prediction
from videomae.inference.predictor import Predictor
from videomae.video import decode
from videomae.video.decode import read_clip
from videomae.video.sampling import ClipConfig, centre_clip, view_clips
from videomae.video.write import write_video


@pytest.fixture
def predictor(classifier_folder: Path) -> Predictor:
    return Predictor(classifier_folder, device="cpu")


def test_prediction_is_the_softmax_of_the_model_on_the_middle_clip(predictor: Predictor, video: Path) -> None:
    prediction = predictor.predict(video)
    frames = centre_clip(30, ClipConfig(4, 3))
    pixel_values = predictor.processor(read_clip(video, frames), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = predictor.model(pixel_values).logits[0].double().softmax(dim=0).numpy()
    order = np.argsort(-expected)
    assert prediction.label_numbers == tuple(order)
    assert prediction.labels == tuple(("cut", "jump", "run")[number] for number in order)
    np.testing.assert_allclose(prediction.probabilities, expected[order], atol=1e-6)
    assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1.0)
    assert expected.max() - expected.min() > 0.05


def test_frames_and_times_used_are_told(predictor: Predictor, video: Path) -> None:
    prediction = predictor.predict(video)
    (frames,) = prediction.frame_indices
    assert list(frames) == centre_clip(30, ClipConfig(4, 3)).tolist()
    assert prediction.frame_seconds is not None
    np.testing.assert_allclose(prediction.frame_seconds[0], np.array(frames) / 20.0, atol=1e-6)
    assert prediction.path == str(video)


def test_several_views_are_averaged_as_in_testing(predictor: Predictor, video: Path) -> None:
    prediction = predictor.predict(video, num_views=3)
    assert np.array(prediction.frame_indices).tolist() == view_clips(30, ClipConfig(4, 3), num_views=3).tolist()
    single = [predictor.probabilities(read_clip(video, row)[None]) for row in np.array(prediction.frame_indices)]
    expected = np.mean(single, axis=0)
    np.testing.assert_allclose(prediction.probabilities, np.sort(expected)[::-1], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_views_are_classified_one_by_one_on_a_processor_and_are_the_same_to_the_bit_in_any_batch(
    classifier_folder: Path, video: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Predictor(classifier_folder, device="cpu").predict(video, num_views=5)
    predictor = Predictor(classifier_folder, device="cpu", batch_size=batch_size)
    sizes: list[int] = []
    forward = predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda pixels: (sizes.append(len(pixels)), forward(pixels))[1])
    found = predictor.predict(video, num_views=5)
    assert sizes == [1] * 5
    assert found == wanted
    with pytest.raises(ConfigError, match="batch_size is 0; it is a number of clips, at least 1"):
        Predictor(classifier_folder, device="cpu", batch_size=0)


@pytest.mark.parametrize("num_views", [1, 3])
def test_prediction_equals_evaluation_with_as_many_clips_and_one_crop(
    predictor: Predictor, video: Path, num_views: int
) -> None:
    manifest = Manifest(video.parent, (VideoRow(video, 0),), ("cut", "jump", "run"))
    config = EvaluationConfig(views=ViewsConfig(num_clips=num_views, num_crops=1), workers=0, precision="fp32")
    result = evaluate(predictor.model, manifest, processor=predictor.processor, clip=predictor.clip, config=config)
    prediction = predictor.predict(video, num_views=num_views)
    evaluated = np.array(result.rows[0].probabilities)[list(prediction.label_numbers)]
    np.testing.assert_allclose(prediction.probabilities, evaluated, atol=1e-6)


def test_top_k_limits_the_classes_and_not_their_probabilities(predictor: Predictor, video: Path) -> None:
    whole, short = predictor.predict(video), predictor.predict(video, top_k=2)
    assert len(whole.labels) == 3
    assert (short.labels, short.probabilities) == (whole.labels[:2], whole.probabilities[:2])


def test_frames_are_sampled_like_a_video_of_as_many_frames(predictor: Predictor, video: Path) -> None:
    frames = read_clip(video, range(30))
    from_file, from_frames = predictor.predict(video), predictor.predict(frames)
    assert from_frames.probabilities == from_file.probabilities
    assert from_frames.frame_indices == from_file.frame_indices
    assert (from_frames.path, from_frames.frame_seconds) == (None, None)


def test_exactly_one_clip_of_frames_is_taken_as_it_is(predictor: Predictor, video: Path) -> None:
    file = predictor.predict(video)
    prediction = predictor.predict(read_clip(video, file.frame_indices[0]))
    assert prediction.frame_indices == ((0, 1, 2, 3),)
    assert prediction.probabilities == file.probabilities


def test_the_clip_can_be_overridden(classifier_folder: Path, video: Path) -> None:
    predictor = Predictor(classifier_folder, device="cpu", clip=ClipConfig(num_frames=8, stride=1))
    assert len(predictor.predict(video).frame_indices[0]) == 8


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((8, 40, 40, 3), dtype=np.float32),
        np.zeros((8, 2, 40, 40), dtype=np.uint8),
        np.zeros((40, 40, 3), dtype=np.uint8),
        np.zeros((0, 40, 40, 3), dtype=np.uint8),
    ],
)
def test_frames_of_another_form_are_refused(predictor: Predictor, frames: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"the frames have shape .*; they must be uint8 \[n, H, W, 3\] or"):
        predictor.predict(frames)


@pytest.mark.parametrize("name", ["top_k", "num_views"])
def test_numbers_below_one_are_refused(predictor: Predictor, video: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        predictor.predict(video, **{name: 0})


def test_bad_file_raises_the_readers_error(predictor: Predictor, bad_video: Path) -> None:
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        predictor.predict(bad_video)


def test_output_that_is_not_finite_is_an_error(predictor: Predictor, video: Path) -> None:
    with torch.no_grad():
        predictor.model.classifier.bias.fill_(float("inf"))
    with pytest.raises(RunError, match=r"clip\.mp4 is not finite: its weights are damaged"):
        predictor.predict(video)


def test_bad_file_among_others_is_reported_and_the_others_predicted(
    predictor: Predictor, video: Path, bad_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = predict_files(predictor, [bad_video, video, video.parent / "missing.mp4"], json=True)
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert status == 2
    assert [one["path"] for one in values["predictions"]] == [str(video)]
    assert values["predictions"][0]["probabilities"] == list(predictor.predict(video).probabilities)
    assert [one["path"] for one in values["errors"]] == [str(bad_video), str(video.parent / "missing.mp4")]
    assert len(printed.err.splitlines()) == 2
    assert all(line.startswith("error: ") and "mp4" in line for line in printed.err.splitlines())


def test_all_good_files_give_status_zero_and_a_table_of_each(
    predictor: Predictor, video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # narrower than the path, which must stay in one piece
    assert predict_files(predictor, [video, video], top_k=2) == 0
    printed = capsys.readouterr()
    prediction = predictor.predict(video)
    assert printed.err == ""
    assert printed.out.count(str(video)) == 2
    assert printed.out.count(f"{prediction.probabilities[0]:.1%}") == 2
    assert printed.out.count(prediction.labels[1]) == 2
    assert prediction.labels[2] not in printed.out
    assert f"frames {prediction.frame_indices[0][0]} to {prediction.frame_indices[0][-1]}" in printed.out


def test_a_folder_is_opened_without_reading_packets_the_second_time(
    predictor: Predictor,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(video, tmp_path / name)
    indexed: list[str] = []
    index_video = decode.index_video
    monkeypatch.setattr(
        decode, "index_video", lambda file, **options: (indexed.append(file.name), index_video(file, **options))[1]
    )
    found = []
    for _ in range(2):
        assert predict_files(predictor, [tmp_path], json=True) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert len(indexed) == 2


def test_folder_means_its_videos_and_an_empty_one_is_reported(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "some" / "deep").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for name in ("b.mp4", "deep/a.mp4"):
        write_video(tmp_path / "some" / name, frames)
    (tmp_path / "some" / "notes.txt").write_text("no video")
    status = predict_files(predictor, [tmp_path / "none", tmp_path / "some"], json=True)
    values = json.loads(capsys.readouterr().out)
    assert status == 2
    assert [Path(one["path"]).name for one in values["predictions"]] == ["b.mp4", "a.mp4"]
    assert "holds no video" in values["errors"][0]["error"]


def test_print_takes_markup_and_strange_bytes_in_names_as_text(predictor: Predictor) -> None:
    prediction = predictor.predict(np.zeros((4, 32, 32, 3), dtype=np.uint8))
    strange = dataclasses.replace(prediction, path="a\udcff[bold].mp4", labels=("[red]x", "y", "z"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_prediction(strange, Console(file=stream, width=60))
    stream.seek(0)
    text = stream.read()
    assert "a?[bold].mp4" in text
    assert "[red]x" in text
    assert "--" in text


def test_folder_that_transformers_wrote_gives_transformers_probabilities(tmp_path: Path, video: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label={0: "cut", 1: "run"},
        label2id={"cut": 0, "run": 1},
    )
    theirs = transformers.VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        theirs.classifier.weight.normal_(std=1.5)
    theirs.save_pretrained(tmp_path)
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**settings, "image_processor_type": "VideoMAEImageProcessor"}), encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="assuming 4 frames, stride 4"):
        predictor = Predictor(tmp_path, device="cpu")
    prediction = predictor.predict(video)
    pixel_values = predictor.processor(
        read_clip(video, prediction.frame_indices[0]), return_tensors="pt"
    ).pixel_values
    with torch.no_grad():
        expected = theirs(pixel_values).logits[0].softmax(dim=0).numpy()
    np.testing.assert_allclose(prediction.probabilities, expected[list(prediction.label_numbers)], atol=1e-5)
    assert abs(expected[0] - expected[1]) > 0.05
