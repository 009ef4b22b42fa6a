"""The pipeline: transformers' arguments and return value, and the frames that the model was trained with."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videomae.compat.pipeline import VideoClassificationPipeline, pipeline
from videomae.compat.video_processor import VideoMAEVideoProcessor
from videomae.errors import ConfigError, RunError, VideoReadError, WeightsError
from videomae.inference.predictor import Predictor
from videomae.model.classification import VideoMAEForVideoClassification
from videomae.processing.image_processor import VideoMAEImageProcessor
from videomae.video.decode import read_clip
from videomae.video.sampling import ClipConfig, centre_clip

CLASSES = ("cut", "jump", "run")  # of the shared classifier, as its sampling is
CLIP = ClipConfig(num_frames=4, stride=3)
TASK = "video-classification"
NUM_FRAMES = 30  # of the shared `video`


@pytest.fixture(scope="module")
def classify(classifier_folder: Path) -> VideoClassificationPipeline:
    return pipeline(TASK, model=classifier_folder, device="cpu")


def logits(classify: VideoClassificationPipeline, video: Path, clip: ClipConfig) -> torch.Tensor:
    """Return `[K]` the logits of the middle clip, sampled here."""
    frames = read_clip(video, centre_clip(NUM_FRAMES, clip))
    with torch.no_grad():
        return classify.model(classify.processor(frames, return_tensors="pt").pixel_values).logits[0].double()


def by_label(result: list[dict[str, Any]]) -> list[float]:
    scores = {one["label"]: one["score"] for one in result}
    return [scores[name] for name in CLASSES]


def test_the_result_has_transformers_form_and_the_predictors_numbers(
    classify: VideoClassificationPipeline, classifier_folder: Path, video: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = classify(str(video))
    assert [set(one) for one in result] == [{"score", "label"}] * 3  # five are asked for, three there are
    prediction = Predictor(classifier_folder, device="cpu").predict(video)
    assert [one["label"] for one in result] == list(prediction.labels)
    np.testing.assert_allclose([one["score"] for one in result], prediction.probabilities, atol=1e-6)
    assert result[0]["score"] - result[-1]["score"] > 0.05


def test_several_files_give_a_list_of_results(classify: VideoClassificationPipeline, video: Path) -> None:
    one = classify(video, top_k=1)
    assert len(one) == 1
    assert classify([video], top_k=1) == [one]
    assert classify([str(video), video], top_k=1) == [one, one]


def test_frame_sampling_rate_and_num_frames_choose_the_frames(
    classify: VideoClassificationPipeline, video: Path
) -> None:
    results = []
    for count, stride in ((4, 1), (4, 7), (8, 2)):
        wanted = logits(classify, video, ClipConfig(count, stride)).softmax(dim=0)
        got = by_label(classify(video, num_frames=count, frame_sampling_rate=stride))
        np.testing.assert_allclose(got, wanted, atol=1e-6)
        results.append(got)
    assert np.ptp(results, axis=0).max() > 1e-3, "the frames make a difference"
    trained = logits(classify, video, ClipConfig(8, CLIP.stride)).softmax(dim=0)
    np.testing.assert_allclose(by_label(classify(video, num_frames=8)), trained, atol=1e-6)


def test_arguments_of_pipeline_are_defaults_of_the_call(classifier_folder: Path, video: Path) -> None:
    made = pipeline(TASK, classifier_folder, device=-1, top_k=2, frame_sampling_rate=1, function_to_apply="none")
    result = made(video)
    assert len(result) == 2
    raw = logits(made, video, ClipConfig(4, 1))
    np.testing.assert_allclose([one["score"] for one in result], raw.sort(descending=True).values[:2], atol=1e-5)
    assert len(made(video, top_k=3, function_to_apply="softmax")) == 3


@pytest.mark.parametrize(
    ("problem", "usual"),
    [
        (None, "softmax"),
        ("single_label_classification", "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
    ],
)
def test_what_makes_scores_follows_the_problem(
    classifier_folder: Path, video: Path, problem: str | None, usual: str
) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_folder, problem_type=problem)
    processor = VideoMAEVideoProcessor.from_pretrained(classifier_folder)
    classify = pipeline(TASK, model, image_processor=processor)
    raw = logits(classify, video, CLIP)
    wanted = {"softmax": raw.softmax(dim=0), "sigmoid": raw.sigmoid(), "none": raw}
    for name, values in wanted.items():
        got = by_label(classify(video, function_to_apply=name))
        np.testing.assert_allclose(got, values, atol=1e-5)
    assert by_label(classify(video)) == by_label(classify(video, function_to_apply=usual))


def test_a_model_of_unknown_sampling_is_sampled_as_published_with_a_warning(
    classifier_folder: Path, tmp_path: Path, video: Path
) -> None:
    folder = tmp_path / "as transformers writes it"
    shutil.copytree(classifier_folder, folder)
    (folder / "videomae.json").unlink()
    classify = pipeline(TASK, model=str(folder), device="cpu")
    with pytest.warns(UserWarning, match="assuming stride 4; give frame_sampling_rate"):
        result = classify(video)
    np.testing.assert_allclose(
        by_label(result), logits(classify, video, ClipConfig(4, 4, "original")).softmax(dim=0), atol=1e-6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert by_label(classify(video, frame_sampling_rate=4)) == by_label(result)
        told = pipeline(TASK, str(folder), device="cpu", clip=ClipConfig(4, 4, "original"))
        assert by_label(told(video)) == by_label(result)


def test_a_finished_run_and_a_weights_file_alone_are_models_too(
    classify: VideoClassificationPipeline, classifier_folder: Path, tmp_path: Path, video: Path
) -> None:
    shutil.copytree(classifier_folder, tmp_path / "run" / "model")
    assert pipeline(TASK, tmp_path / "run", device="cpu")(video) == classify(video)
    alone = pipeline(TASK, classifier_folder / "model.safetensors", device="cpu", clip=CLIP)
    np.testing.assert_allclose(by_label(alone(video)), by_label(classify(video)), atol=1e-6)
    (tmp_path / "run" / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        pipeline(TASK, tmp_path / "run", device="cpu")


def test_a_processor_that_samples_does_not_sample_the_frames_again(
    classify: VideoClassificationPipeline, classifier_folder: Path, video: Path
) -> None:
    processor = VideoMAEVideoProcessor.from_pretrained(classifier_folder, do_sample_frames=True, num_frames=2)
    assert pipeline(TASK, classifier_folder, device="cpu", image_processor=processor)(video) == classify(video)


def test_transformers_gives_the_same_for_the_same_frames(
    classify: VideoClassificationPipeline, classifier_folder: Path, video: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.VideoMAEForVideoClassification.from_pretrained(classifier_folder).eval()
    frames = read_clip(video, centre_clip(NUM_FRAMES, CLIP))
    with torch.no_grad():
        wanted = theirs(classify.processor(frames, return_tensors="pt").pixel_values).logits[0]
        scores, order = wanted.softmax(dim=0).topk(3)
    result = classify(video)
    assert [one["label"] for one in result] == [theirs.config.id2label[number] for number in order.tolist()]
    np.testing.assert_allclose([one["score"] for one in result], scores, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0; it must be a whole number, at least 1"),
        ({"num_frames": 3}, "clip.num_frames is 3, which the model's tubelets of 2 frames do not divide"),
        ({"frame_sampling_rate": 1.5}, "frame_sampling_rate is 1.5; it must be a whole number"),
        ({"function_to_apply": "tanh"}, "function_to_apply is 'tanh'; choose from softmax, sigmoid, none"),
    ],
)
def test_arguments_out_of_range_are_named(
    classify: VideoClassificationPipeline, video: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        classify(video, **options)


def test_what_cannot_be_classified_is_named(
    classify: VideoClassificationPipeline, classifier_folder: Path, bad_video: Path, video: Path
) -> None:
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        classify(bad_video)
    with pytest.raises(ConfigError, match="a dict is no video: give a path"):
        classify({"video": 1})
    with pytest.raises(ConfigError, match="task is 'image-classification'; this package's only pipeline is"):
        pipeline("image-classification", classifier_folder)
    with pytest.raises(ConfigError, match="unknown argument of pipeline 'topk': did you mean 'top_k'"):
        pipeline(TASK, classifier_folder, topk=3)
    one = VideoMAEImageProcessor()
    with pytest.raises(ConfigError, match="are one argument: give one of them"):
        pipeline(TASK, classifier_folder, image_processor=one, video_processor=one)
    model = VideoMAEForVideoClassification.from_pretrained(classifier_folder)
    with pytest.raises(ConfigError, match="does not say how frames are prepared: give image_processor"):
        pipeline(TASK, model)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    broken = pipeline(TASK, model, image_processor=VideoMAEVideoProcessor.from_pretrained(classifier_folder))
    with pytest.raises(RunError, match="is not finite: its weights are damaged"):
        broken(video)
