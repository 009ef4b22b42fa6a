"""Evaluation of a real classifier on real files, against doing every view alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from videomae.data.manifest import Manifest, VideoRow
from videomae.data.scan import scan_labelled
from videomae.errors import ConfigError, RunError, WeightsError
from videomae.evaluation import evaluator
from videomae.evaluation.evaluator import evaluate, evaluate_folder
from videomae.evaluation.metrics import compute_metrics
from videomae.evaluation.results import EvaluationConfig, EvaluationResult
from videomae.evaluation.views import ViewsConfig
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.sharing.record import ModelRecord, save_record
from videomae.video.decode import VideoReader, read_clip
from videomae.video.sampling import ClipConfig, crop_views, view_clips
from videomae.video.write import write_video

SMALL = EvaluationConfig(views=ViewsConfig(num_clips=2, num_crops=3), workers=0, precision="fp32")


def one_view_at_a_time(
    path: Path, model: VideoMAEForVideoClassification, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> np.ndarray:
    """Return the published recipe's probabilities of a video, written out: one view at a time."""
    with VideoReader(path) as reader:
        rows = view_clips(len(reader), clip, num_views=2)
    softmaxes = []
    for row in rows:
        whole = processor(read_clip(path, row), do_center_crop=False, return_tensors="pt").pixel_values
        for top, left in crop_views(whole.shape[-2], whole.shape[-1], size=32, num_crops=3):
            with torch.no_grad():
                logits = model(whole[..., top : top + 32, left : left + 32]).logits[0].numpy().astype(np.float64)
            softmaxes.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    assert len(softmaxes) == 6
    return np.mean(softmaxes, axis=0)


def probabilities(result: EvaluationResult) -> np.ndarray:
    return np.array([row.probabilities for row in result.rows])


def fit_classifier(
    model: VideoMAEForVideoClassification, manifest: Manifest, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    """Make the classifier right on every view of the videos, by least squares on its features."""
    features, targets = [], []
    for row in manifest.rows:
        with VideoReader(row.path) as reader:
            for frames in view_clips(len(reader), clip, num_views=2):
                whole = processor(reader.frames(frames), do_center_crop=False, return_tensors="pt").pixel_values
                for top, left in crop_views(whole.shape[-2], whole.shape[-1], size=32, num_crops=3):
                    with torch.no_grad():
                        states = model.videomae(whole[..., top : top + 32, left : left + 32]).last_hidden_state
                        features.append(model.features(states)[0].double())
                    targets.append(row.label)
    wanted = 50.0 * torch.eye(3, dtype=torch.float64)[targets]
    inputs = torch.cat([torch.stack(features), torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution
    with torch.no_grad():
        model.classifier.weight.copy_(solution[:-1].T)
        model.classifier.bias.copy_(solution[-1])


def test_probabilities_are_the_mean_of_every_views_softmax(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    manifest = scan_labelled(videos)
    result = evaluate(model, manifest, processor=processor, clip=clip, config=SMALL)
    assert [row.path for row in result.rows] == [
        f"{name}/{number}.mp4" for name in ("cut", "jump", "run") for number in (0, 1)
    ]
    for row in result.rows:
        expected = one_view_at_a_time(videos / row.path, model, processor, clip)
        np.testing.assert_allclose(row.probabilities, expected, atol=2e-6)
        assert row.prediction == expected.argmax()
    spread = probabilities(result).max(axis=1) - probabilities(result).min(axis=1)
    assert spread.min() > 0.05, "probabilities are all alike: this test would prove nothing"


def test_views_that_coincide_count_as_often_as_the_protocol_has_them(
    model: VideoMAEForVideoClassification, processor: VideoMAEImageProcessor, clip: ClipConfig, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "cut" / "short.mp4"
    path.parent.mkdir()
    write_video(path, noise)
    rows = view_clips(11, clip, num_views=3)
    assert rows[0].tolist() == rows[1].tolist() != rows[2].tolist(), "two of the three clips coincide"
    manifest = Manifest(tmp_path, (VideoRow(path, 0),), ("cut",))
    config = EvaluationConfig(views=ViewsConfig(num_clips=3, num_crops=1), workers=0, precision="fp32")
    result = evaluate(model, manifest, processor=processor, clip=clip, config=config)
    with torch.no_grad():
        clips = processor([read_clip(path, row) for row in rows], return_tensors="pt").pixel_values
        each = model(clips).logits.double().softmax(dim=1)
    np.testing.assert_allclose(probabilities(result)[0], each.mean(dim=0), atol=2e-6)
    assert not np.allclose(each.mean(dim=0), (each[0] + each[2]) / 2, atol=1e-4), "the weights would not show"


def test_a_video_of_many_clips_is_read_in_parts_and_gives_the_same(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = ViewsConfig(num_clips=11, num_crops=3)
    done: dict[int, list[tuple[int, int]]] = {}
    results = []
    for batch_size, item_clips in ((4, 4), (64, 32)):
        monkeypatch.setattr(evaluator, "MAX_ITEM_CLIPS", item_clips)
        config = EvaluationConfig(views=views, batch_size=batch_size, workers=0, precision="fp32")
        progress: list[tuple[int, int]] = done.setdefault(batch_size, [])
        results.append(
            evaluate(
                model,
                scan_labelled(videos),
                processor=processor,
                clip=clip,
                config=config,
                on_progress=lambda number, total, progress=progress: progress.append((number, total)),  # type: ignore[misc]
            )
        )
    np.testing.assert_allclose(probabilities(results[0]), probabilities(results[1]), atol=2e-6)
    assert done[4] == done[64] == [(number, 6) for number in range(1, 7)], "progress counts videos, not parts"
    np.testing.assert_allclose(probabilities(results[0]).sum(axis=1), 1.0)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (5, 0), (64, 2)])
def test_batches_and_workers_do_not_change_the_result(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    batch_size: int,
    workers: int,
) -> None:
    manifest = scan_labelled(videos)
    reference = evaluate(model, manifest, processor=processor, clip=clip, config=SMALL)
    config = EvaluationConfig(views=SMALL.views, batch_size=batch_size, workers=workers, precision="fp32")
    result = evaluate(model, manifest, processor=processor, clip=clip, config=config)
    np.testing.assert_allclose(probabilities(result), probabilities(reference), atol=2e-6)
    assert result.choice.confusion == reference.choice.confusion


def test_classifier_that_knows_its_videos_gets_all_right_and_one_wrong_label_shows(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    fit_classifier(model, scan_labelled(videos), processor, clip)
    result = evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    assert result.choice.top1 == 1.0
    assert result.choice.confusion == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    shutil.copytree(videos, tmp_path / "moved")
    (tmp_path / "moved" / "cut" / "0.mp4").rename(tmp_path / "moved" / "run" / "stray.mp4")
    moved = evaluate(model, scan_labelled(tmp_path / "moved"), processor=processor, clip=clip, config=SMALL)
    assert moved.choice.top1 == 5 / 6
    assert moved.choice.confusion == ((1, 0, 0), (0, 2, 0), (1, 0, 2))


def test_labels_follow_names_when_the_classifier_numbers_its_classes_otherwise(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    fit_classifier(model, scan_labelled(videos), processor, clip)
    order = [2, 0, 1]  # new number -> old number
    renamed = VideoMAEForVideoClassification(model.config.replace(id2label={0: "run", 1: "cut", 2: "jump"})).eval()
    state = dict(model.state_dict())
    state["classifier.weight"], state["classifier.bias"] = (
        model.classifier.weight[order],
        model.classifier.bias[order],
    )
    renamed.load_state_dict(state)
    result = evaluate(renamed, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    assert result.classes == ("run", "cut", "jump")
    assert [row.label for row in result.rows] == [1, 1, 2, 2, 0, 0]
    assert result.choice.top1 == 1.0


def test_bad_video_is_named_and_left_out_and_the_others_stay_the_same(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(videos, data)
    (data / "jump" / "0.mp4").write_bytes(b"nothing that decodes")
    fit_classifier(model, scan_labelled(videos), processor, clip)
    whole = evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    result = evaluate(model, scan_labelled(data), processor=processor, clip=clip, config=SMALL)
    assert [one.path for one in result.bad] == ["jump/0.mp4"]
    assert "0.mp4" in result.bad[0].reason
    assert len(result.rows) == result.metrics.num_videos == 5
    np.testing.assert_allclose(probabilities(result), np.delete(probabilities(whole), 2, axis=0), atol=1e-4)
    labels = np.array([row.label for row in result.rows])
    assert result.metrics == compute_metrics(probabilities(result), labels)
    assert result.choice.top1 == 1.0, "judged over the rows that are there"
    assert "1 of 6 videos could not be read, left out of the figures:" in result.summary()
    assert result.summary()[-1].startswith("  jump/0.mp4: ")
    assert result.metrics_dict()["num_bad_videos"] == 1


def test_evaluation_without_any_readable_video_is_an_error(
    model: VideoMAEForVideoClassification, processor: VideoMAEImageProcessor, clip: ClipConfig, tmp_path: Path
) -> None:
    for name in ("cut", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mp4").write_bytes(b"")
    with pytest.raises(RunError, match=r"none of the 2 videos can be read; the first is cut/x\.mp4: "):
        evaluate(model, scan_labelled(tmp_path), processor=processor, clip=clip, config=SMALL)


def test_evaluation_leaves_mode_gradients_and_random_state_as_they_were(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    model.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    assert model.training
    assert model.fc_norm is not None
    assert model.fc_norm.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_give_nan_are_an_error_that_names_the_video(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(RunError, match=r"output for cut/0\.mp4 is not finite"):
        evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)


def test_progress_is_told_after_each_video(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        model,
        scan_labelled(videos),
        processor=processor,
        clip=clip,
        config=SMALL,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(number, 6) for number in range(1, 7)]


def test_json_holds_everything_and_is_strict(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, clip: ClipConfig
) -> None:
    result = evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    values = json.loads(result.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert values["classes"] == ["cut", "jump", "run"]
    assert values["clip"] == {"num_frames": 4, "stride": 3, "kind": "dense", "fps": None}
    assert values["config"]["views"] == {"num_clips": 2, "num_crops": 3}
    assert values["metrics"]["num_videos"] == 6
    assert values["videos"][3]["path"] == "jump/1.mp4"
    assert values["videos"][3]["probabilities"] == list(result.rows[3].probabilities)


def test_folder_is_evaluated_with_the_sampling_and_processor_it_remembers(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    save_record(folder, ModelRecord(sampling=clip))
    output = tmp_path / "result.json"
    result = evaluate_folder(tmp_path / "run", videos, config=SMALL, device="cpu", output=output)
    expected = evaluate(model, scan_labelled(videos), processor=processor, clip=clip, config=SMALL)
    np.testing.assert_allclose(probabilities(result), probabilities(expected), atol=2e-6)
    assert output.read_text(encoding="utf-8") == result.to_json()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "run"]
    other = evaluate_folder(tmp_path / "run", videos, clip=ClipConfig(4, 1), config=SMALL, device="cpu")
    assert other.clip == ClipConfig(4, 1)
    assert not np.allclose(probabilities(other), probabilities(expected), atol=1e-4)


def test_output_into_a_missing_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder of output .*gone/result\.json does not exist"):
        evaluate_folder(tmp_path / "no model", tmp_path, output=tmp_path / "gone" / "result.json")


def test_output_that_is_a_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output .* is a folder: give the name of a file in it"):
        evaluate_folder(tmp_path / "no model", tmp_path, output=tmp_path)


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        evaluate_folder(tmp_path, tmp_path)


def test_model_without_classifier_is_refused_instead_of_given_a_fresh_one(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor, tmp_path: Path
) -> None:
    model.videomae.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="holds a bare encoder, without a classifier: fine-tune it first"):
        evaluate_folder(tmp_path, videos, config=SMALL, device="cpu")


def test_clip_that_does_not_fit_the_model_is_refused(
    model: VideoMAEForVideoClassification, videos: Path, processor: VideoMAEImageProcessor
) -> None:
    with pytest.raises(ConfigError, match=r"clip\.num_frames is 3"):
        evaluate(model, scan_labelled(videos), processor=processor, clip=ClipConfig(num_frames=3), config=SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch_size is 0; it must be at least 1"), ({"workers": -1}, "workers is -1; use 0")],
)
def test_config_out_of_range_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**settings)  # type: ignore[arg-type]


def test_a_folder_of_one_class_is_evaluated_and_an_empty_one_counts_no_videos(
    model: VideoMAEForVideoClassification,
    videos: Path,
    processor: VideoMAEImageProcessor,
    clip: ClipConfig,
    tmp_path: Path,
) -> None:
    model.save_pretrained(tmp_path / "model", processor=processor, record=ModelRecord(sampling=clip))
    whole = evaluate_folder(tmp_path / "model", videos, config=SMALL, device="cpu")
    (tmp_path / "some").mkdir()
    shutil.copytree(videos / "jump", tmp_path / "some" / "jump")
    one = evaluate_folder(tmp_path / "model", tmp_path / "some", config=SMALL, device="cpu")
    np.testing.assert_allclose(probabilities(one), probabilities(whole)[2:4], atol=2e-6)
    assert [row.label for row in one.rows] == [1, 1]
    assert one.choice.per_class == (None, whole.choice.per_class[1], None)
    (tmp_path / "some" / "run").mkdir()
    assert evaluate_folder(tmp_path / "model", tmp_path / "some", config=SMALL, device="cpu").metrics == one.metrics
