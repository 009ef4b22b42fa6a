"""Features: shapes, exact definitions, time spans, and the file they are saved in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from videomae.errors import ConfigError, VideoReadError, WeightsError
from videomae.inference.features import (
    FeatureSet,
    Pooling,
    VideoFeatures,
    extract_features,
    load_features,
    write_features,
)
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.model.config import VideoMAEConfig
from videomae.model.encoder import VideoMAEModel
from videomae.model.pretraining import VideoMAEForPreTraining
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video import opening
from videomae.video.decode import VideoReader, read_clip
from videomae.video.index_store import IndexStore
from videomae.video.sampling import ClipConfig, centre_clip, sliding_clips
from videomae.video.write import write_video

CLIP = ClipConfig(num_frames=4, stride=3)  # as the folders say
SHAPES = {"clip": [16], "attention": [16], "frame": [4, 16], "tubelet": [2, 16], "token": [32, 16]}


def pixels_of(folder: Path, video: Path, frames: np.ndarray) -> torch.Tensor:
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    return processor(read_clip(video, frames), return_tensors="pt").pixel_values


def one(folder: Path, video: Path, pooling: Pooling, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
    features = extract_features(folder, [video], pooling=pooling, device="cpu", **settings).videos[0]  # type: ignore[arg-type]
    return features.features, features.time_spans


@pytest.mark.parametrize("kind", ["classifier", "pretraining", "encoder"])
@pytest.mark.parametrize("pooling", list(SHAPES))
def test_every_kind_of_model_gives_the_documented_shape(
    kind: str, pooling: Pooling, video: Path, request: pytest.FixtureRequest
) -> None:
    features, spans = one(request.getfixturevalue(f"{kind}_folder"), video, pooling)
    assert (list(features.shape), features.dtype) == (SHAPES[pooling], torch.float32)
    assert (list(spans.shape), spans.dtype) == ([*SHAPES[pooling][:-1], 2], torch.float64)
    assert features.isfinite().all()


@pytest.mark.slow
def test_base_size_gives_the_published_shapes(tmp_path: Path, video: Path) -> None:
    torch.manual_seed(0)
    VideoMAEModel(VideoMAEConfig.preset("base", num_hidden_layers=1)).save_pretrained(tmp_path)
    VideoMAEImageProcessor().save_pretrained(tmp_path)
    expected = {"clip": [768], "attention": [768], "frame": [16, 768], "tubelet": [8, 768], "token": [1568, 768]}
    with pytest.warns(UserWarning, match="assuming 16 frames, stride 4"):
        found = {pooling: list(one(tmp_path, video, pooling)[0].shape) for pooling in SHAPES}  # type: ignore[arg-type]
    assert found == expected


@pytest.mark.parametrize("kind", ["classifier", "pretraining", "encoder"])
def test_tokens_are_the_encoders_output_on_the_middle_clip(
    kind: str, video: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    pixel_values = pixels_of(folder, video, centre_clip(30, CLIP))
    with torch.no_grad():
        expected = VideoMAEModel.from_pretrained(folder)(pixel_values).last_hidden_state[0]
    torch.testing.assert_close(one(folder, video, "token")[0], expected, atol=1e-6, rtol=0)


def test_pretrained_tokens_are_after_the_final_norm(pretraining_folder: Path, video: Path) -> None:
    model = VideoMAEForPreTraining.from_pretrained(pretraining_folder)
    assert model.videomae.layernorm is not None
    tokens, _ = one(pretraining_folder, video, "token")
    torch.testing.assert_close(tokens.mean(dim=1), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(dim=1, correction=0), torch.ones(32), atol=1e-3, rtol=0)


def test_clip_row_of_a_classifier_is_what_its_last_layer_sees(classifier_folder: Path, video: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_folder)
    features, _ = one(classifier_folder, video, "clip")
    with torch.no_grad():
        expected = model(pixels_of(classifier_folder, video, centre_clip(30, CLIP))).logits[0]
        torch.testing.assert_close(model.classifier(features), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["token", "tubelet", "frame"])
def test_fc_norm_of_the_mean_of_any_rows_is_the_clip_row(
    classifier_folder: Path, video: Path, pooling: Pooling
) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_folder)
    rows, _ = one(classifier_folder, video, pooling)
    assert model.fc_norm is not None
    with torch.no_grad():
        pooled = model.fc_norm(rows.mean(dim=0))
    torch.testing.assert_close(pooled, one(classifier_folder, video, "clip")[0], atol=1e-5, rtol=0)


def test_clip_row_of_a_pretrained_model_is_the_mean_of_its_tokens(pretraining_folder: Path, video: Path) -> None:
    tokens, _ = one(pretraining_folder, video, "token")
    torch.testing.assert_close(one(pretraining_folder, video, "clip")[0], tokens.mean(dim=0), atol=1e-6, rtol=0)


def test_tubelet_rows_are_means_of_time_slices_and_frame_rows_repeat_them(
    pretraining_folder: Path, video: Path
) -> None:
    tokens, _ = one(pretraining_folder, video, "token")
    tubelets, _ = one(pretraining_folder, video, "tubelet")
    frames, _ = one(pretraining_folder, video, "frame")
    expected = torch.stack([tokens[:16].mean(dim=0), tokens[16:].mean(dim=0)])  # 4x4 patches a slice
    torch.testing.assert_close(tubelets, expected, atol=1e-6, rtol=0)
    assert not torch.allclose(tubelets[0], tubelets[1], atol=1e-3)
    assert torch.equal(frames, tubelets[[0, 0, 1, 1]])


def test_cls_token_is_in_no_row_but_the_classifiers_clip_row(cls_folder: Path, video: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(cls_folder)
    with torch.no_grad():
        states = model.videomae(pixels_of(cls_folder, video, centre_clip(30, CLIP))).last_hidden_state[0]
        assert model.fc_norm is not None
        clip_row = model.fc_norm(states[0])
    torch.testing.assert_close(one(cls_folder, video, "token")[0], states[1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(one(cls_folder, video, "clip")[0], clip_row, atol=1e-6, rtol=0)


def test_time_spans_are_those_of_the_frames_that_were_read(classifier_folder: Path, video: Path) -> None:
    frames = centre_clip(30, CLIP)
    start = frames / 20.0  # 20 frames per second
    spans = {pooling: one(classifier_folder, video, pooling)[1].numpy() for pooling in SHAPES}
    np.testing.assert_allclose(spans["frame"], np.stack([start, start + 0.05], axis=1), atol=1e-6)
    tubelets = np.array([[start[0], start[1] + 0.05], [start[2], start[3] + 0.05]])
    np.testing.assert_allclose(spans["tubelet"], tubelets, atol=1e-6)
    np.testing.assert_allclose(spans["token"], tubelets.repeat(16, axis=0), atol=1e-6)
    np.testing.assert_allclose(spans["clip"], [start[0], start[3] + 0.05], atol=1e-6)


@pytest.mark.parametrize("pooling", list(SHAPES))
def test_sliding_clips_cover_the_video_and_each_equals_its_clip_alone(
    classifier_folder: Path, video: Path, pooling: Pooling
) -> None:
    result = extract_features(classifier_folder, [video], pooling=pooling, step_frames=7, device="cpu")
    features = result.videos[0]
    windows = sliding_clips(30, CLIP, step_frames=7)
    assert features.frame_indices.tolist() == windows.tolist()
    assert list(features.features.shape) == [len(windows), *SHAPES[pooling]]
    assert list(features.time_spans.shape) == [len(windows), *SHAPES[pooling][:-1], 2]
    assert features.time_spans.min() == 0.0
    assert features.time_spans.max() == pytest.approx(1.5)
    model = VideoMAEModel.from_pretrained(classifier_folder)
    with torch.no_grad():
        last = model(pixels_of(classifier_folder, video, windows[-1])).last_hidden_state[0]
    if pooling == "token":
        torch.testing.assert_close(features.features[-1], last, atol=1e-6, rtol=0)


def test_file_holds_every_video_under_its_number_and_path(
    classifier_folder: Path, video: Path, bad_video: Path, tmp_path: Path
) -> None:
    result = extract_features(classifier_folder, [video, bad_video, video], pooling="tubelet", device="cpu")
    assert [one.path for one in result.bad] == [str(bad_video)]
    assert "bad.mp4" in result.bad[0].reason
    result.save(tmp_path / "features.safetensors")
    with safe_open(tmp_path / "features.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == sorted(
            f"{number:05d}:{video}/{kind}"
            for number in (0, 1)
            for kind in ("features", "time_spans", "frame_indices")
        )
        assert torch.equal(file.get_tensor(f"00001:{video}/features"), result.videos[1].features)
    again = load_features(tmp_path / "features.safetensors")
    assert (again.model, again.pooling, again.clip) == (str(classifier_folder), "tubelet", CLIP)
    assert again.step_frames is None
    for read, written in zip(again.videos, result.videos, strict=True):
        assert read.path == written.path
        assert torch.equal(read.features, written.features)
        assert torch.equal(read.time_spans, written.time_spans)
        assert torch.equal(read.frame_indices, written.frame_indices)


@pytest.mark.parametrize("pooling", list(SHAPES))
@pytest.mark.parametrize("step_frames", [None, 5])
def test_features_written_as_they_are_computed_are_those_that_are_returned(
    classifier_folder: Path, video: Path, bad_video: Path, tmp_path: Path, pooling: Pooling, step_frames: int | None
) -> None:
    (tmp_path / "none").mkdir()
    videos, output = [video, tmp_path / "none", bad_video, video], tmp_path / "written.safetensors"
    settings = {"pooling": pooling, "step_frames": step_frames, "device": "cpu", "batch_size": 2}
    wanted = extract_features(classifier_folder, videos, **settings)  # type: ignore[arg-type]
    written = write_features(classifier_folder, videos, output, **settings)  # type: ignore[arg-type]
    assert written.bad == wanted.bad
    assert [Path(one.path).name for one in written.bad] == ["none", "bad.mp4"]
    assert written.shapes == tuple((one.path, tuple(one.features.shape)) for one in wanted.videos)
    found = load_features(output)
    assert (found.model, found.pooling, found.clip, found.step_frames) == (
        wanted.model,
        wanted.pooling,
        wanted.clip,
        wanted.step_frames,
    )
    for one, other in zip(found.videos, wanted.videos, strict=True):
        assert one.path == other.path
        for name in ("features", "time_spans", "frame_indices"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    many = extract_features(classifier_folder, videos, **{**settings, "batch_size": 64})  # type: ignore[arg-type]
    torch.testing.assert_close(many.videos[0].features, wanted.videos[0].features, atol=1e-6, rtol=0)


def test_a_video_that_breaks_off_leaves_no_part_of_itself_in_the_file(
    classifier_folder: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, broken = VideoReader.frames_in_order, tmp_path / "broken.mp4"
    shutil.copy(video, broken)

    def fails_late(self: VideoReader, indices: np.ndarray, *, threads: int = 1) -> Iterator[np.ndarray]:
        for number, frame in zip(indices, frames(self, indices, threads=threads), strict=True):
            if self.info.path == broken and number > 20:
                raise VideoReadError("broken.mp4 breaks off")
            yield frame

    monkeypatch.setattr(VideoReader, "frames_in_order", fails_late)
    settings = {"pooling": "token", "step_frames": 3, "device": "cpu", "batch_size": 1}
    videos, output = [video, broken, video], tmp_path / "f.safetensors"
    written = write_features(classifier_folder, videos, output, **settings)  # type: ignore[arg-type]
    assert [one.reason for one in written.bad] == ["broken.mp4 breaks off"]
    first, second = load_features(output).videos
    assert first.path == second.path == str(video)
    assert torch.equal(first.features, second.features)


def test_without_any_readable_video_no_file_is_written_and_an_old_one_stays(
    classifier_folder: Path, bad_video: Path, tmp_path: Path
) -> None:
    output = tmp_path / "f.safetensors"
    output.write_text("old")
    written = write_features(classifier_folder, [bad_video], output, device="cpu")
    assert (written.shapes, len(written.bad)) == ((), 1)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "f.safetensors"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("features.npz", r"output is '.*features\.npz'; its name must end with \.safetensors"),
        ("gone/f.safetensors", r"the folder of output .*f\.safetensors does not exist: make it"),
        ("f.safetensors", r"output .*f\.safetensors is a folder: give the name of a file in it"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "f.safetensors").mkdir()
    with pytest.raises(ConfigError, match=message):
        write_features(tmp_path / "no model", [tmp_path / "no video"], tmp_path / name)


def test_failed_write_leaves_the_old_file_and_nothing_else(
    classifier_folder: Path, video: Path, tmp_path: Path
) -> None:
    result = extract_features(classifier_folder, [video], device="cpu")
    with pytest.raises(WeightsError, match="cannot be written"):
        result.save(tmp_path / "missing" / "features.safetensors")
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "features.safetensors"
    target.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(WeightsError, match="cannot be written"):
        result.save(target)
    assert [path.name for path in folder.iterdir()] == ["features.safetensors"]


def test_folder_means_its_videos(classifier_folder: Path, tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4"):
        write_video(tmp_path / name, np.zeros((5, 32, 32, 3), dtype=np.uint8))
    result = extract_features(classifier_folder, [tmp_path], device="cpu")
    assert [Path(one.path).name for one in result.videos] == ["a.mp4", "b.mp4"]


def test_path_with_bytes_that_are_no_text_can_be_saved(classifier_folder: Path, video: Path, tmp_path: Path) -> None:
    result = extract_features(classifier_folder, [video], device="cpu")
    strange = FeatureSet(
        result.model,
        "clip",
        CLIP,
        None,
        tuple(type(one)("a\udcff.mp4", one.features, one.time_spans, one.frame_indices) for one in result.videos),
    )
    strange.save(tmp_path / "f.safetensors")
    assert load_features(tmp_path / "f.safetensors").videos[0].path == "a?.mp4"


def test_rows_of_an_odd_number_of_values_are_read_back_equal(tmp_path: Path) -> None:
    videos = [
        VideoFeatures(f"{n}.mp4", torch.full((3,), n + 0.5), torch.tensor([0.0, n]).double(), torch.arange(4))
        for n in range(3)
    ]
    FeatureSet("a model", "clip", CLIP, None, tuple(videos)).save(tmp_path / "f.safetensors")
    for one, other in zip(load_features(tmp_path / "f.safetensors").videos, videos, strict=True):
        for name in ("path", "features", "time_spans", "frame_indices"):
            found, wanted = getattr(one, name), getattr(other, name)
            assert found == wanted if name == "path" else torch.equal(found, wanted)
            assert name == "path" or found.dtype == wanted.dtype


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no file"):
        load_features(tmp_path / "none")
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="holds no features of videomae"):
        load_features(tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("0123456789")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_features(tmp_path / "text")


def test_settings_out_of_range_are_refused(classifier_folder: Path, video: Path) -> None:
    with pytest.raises(ConfigError, match="pooling is 'mean'; choose one of clip, attention, frame, tubelet, token"):
        extract_features(classifier_folder, [video], pooling="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="step_frames is 0"):
        extract_features(classifier_folder, [video], step_frames=0)
    clip = ClipConfig(num_frames=4, kind="segment")
    with pytest.raises(ConfigError, match="sliding clips lie at a fixed stride"):
        extract_features(classifier_folder, [video], step_frames=4, clip=clip, device="cpu")


def test_features_of_a_frame_rate_are_the_same_in_memory_and_in_a_file(
    classifier_folder: Path, video: Path, tmp_path: Path
) -> None:
    clip = ClipConfig(num_frames=4, stride=1, fps=5.0)  # the video has 20 frames a second
    kept = extract_features(classifier_folder, [video], clip=clip, device="cpu").videos[0]
    write_features(classifier_folder, [video], tmp_path / "x.safetensors", clip=clip, device="cpu")
    assert torch.equal(kept.features, load_features(tmp_path / "x.safetensors").videos[0].features)
    plain = ClipConfig(num_frames=4, stride=1)
    assert not torch.equal(kept.features, one(classifier_folder, video, "clip", clip=plain)[0])


def test_reader_is_closed_again(classifier_folder: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    close = VideoReader.close
    monkeypatch.setattr(VideoReader, "close", lambda self: (closed.append(True), close(self))[1])
    extract_features(classifier_folder, [video], device="cpu")
    assert closed


def test_a_stopped_extraction_says_that_nothing_is_written_and_how_to_keep_what_is_done(
    classifier_folder: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    class Stopped(VideoReader):
        def __init__(self, path: Path, *, store: IndexStore | None = None, **settings: bool) -> None:
            if opened:
                raise KeyboardInterrupt
            opened.append(path)
            super().__init__(path, store=store, **settings)

    monkeypatch.setattr(opening, "VideoReader", Stopped)
    with (
        pytest.warns(UserWarning, match=r"stopped after 1 of 3 videos, and .* is not written: .* some of the videos"),
        pytest.raises(KeyboardInterrupt),
    ):
        write_features(classifier_folder, [video] * 3, tmp_path / "x.safetensors", device="cpu")
    assert list(tmp_path.iterdir()) == []
